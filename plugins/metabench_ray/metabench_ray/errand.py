"""Run one job on a node of Ray: the task that the executor submits, and what it sends back."""

from __future__ import annotations

import os
import platform
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import ray

from metabench.contracts import Condition, Ticket
from metabench.executors.local import Processes, ProcessesConfig
from metabench_ray.mirror import Files, Mirror, sees

#: Seconds between two looks at the worker.
_LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class Errand:
    """A job for a node.

    Attributes:
        ticket: the job.
        token: name of a file in its folder; a node that has it sees the output directory.
        home: current folder of the driver.
        environment: variables of the driver, which those of the node go before.
        files: files of the job by their path in the output directory, for a node that does not see it; None where
            the driver has not sent any.
    """

    ticket: Ticket
    token: str
    home: Path
    environment: Mapping[str, str]
    files: Mapping[str, ray.ObjectRef] | None = None


@dataclass(frozen=True)
class Started:
    """The job has a node.

    Attributes:
        host: name of the computer.
        niceness: niceness of its workers.
    """

    host: str
    niceness: int


@dataclass(frozen=True)
class Unseen:
    """The node does not see the output directory, and was sent no files: nothing has been done."""


#: What a node sends back. The last one is a `Condition`, or `Unseen`.
News = Started | Unseen | Files | Condition


def run_errand(errand: Errand) -> Iterator[News]:
    """Run a job in a process of its own; yield its news.

    Ray interrupts a task that is to be cancelled. The job then has some seconds for a checkpoint.
    """
    mirror = None
    if not sees(errand.ticket.folder, errand.token):
        if errand.files is None:
            yield Unseen()
            return
        mirror = Mirror(errand.ticket.folder, {name: ray.get(ref) for name, ref in errand.files.items()})
    yield Started(platform.node(), os.nice(0))
    with suppress(OSError):  # it is the driver's, and may not be here
        os.chdir(errand.home)
    for name, value in errand.environment.items():
        os.environ.setdefault(name, value)
    workers = Processes(ProcessesConfig())
    with _interrupts() as interrupts:
        try:
            (handle,) = workers.submit([errand.ticket])
            while (condition := workers.alive([handle])[handle]).state == "running":
                if interrupts:
                    workers.cancel([handle])
                workers.wait(_LOOK_SECONDS)
                if mirror is not None and (news := mirror.news()):
                    yield news
            if mirror is not None:
                yield mirror.last_news()
            where = f" (on {platform.node()})" if condition.reason else ""
            yield replace(condition, reason=condition.reason + where)
        finally:
            workers.close()
            if mirror is not None:
                mirror.remove()


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Yield the interrupts so far, instead of raising KeyboardInterrupt anywhere."""
    interrupts: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, frame: interrupts.append(number))
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, previous)
