"""Check an executor against the contract of `metabench.contracts.Executor`, by small jobs that it runs.

`metabench.testing.ExecutorChecks` runs these checks under pytest, `metabench plugin check` on the command line.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from metabench.conformance import made_up_run
from metabench.conformance.checks import NotConforming
from metabench.contracts import (
    Attempt,
    Condition,
    Executor,
    ExecutorConfig,
    Interrupted,
    PluginManager,
    Record,
    Resources,
    Ticket,
    Watcher,
)
from metabench.executors.choosing import choose_executor
from metabench.executors.job_files import Submitted
from metabench.executors.job_folder import JobFolder

#: Imports the module of an executor with the search path of this process, and says whether that imported torch.
_IMPORTING = """
import importlib, json, sys
sys.path[:] = json.loads(sys.argv[1])
importlib.import_module(sys.argv[2])
print("torch" in sys.modules)
"""
#: Seconds between two looks at a job.
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Subject:
    """The executor to check.

    Attributes:
        executor: its name, or a file with its options.
        folder: a folder that its workers see, too; None takes one for temporary files of this computer.
        seconds: most seconds until a job has run.
        plugins: the plugin manager that provides the executor.
    """

    executor: str
    folder: Path | None = None
    seconds: float = 120.0
    plugins: PluginManager = field(default_factory=PluginManager.from_environment)

    def new(self) -> Executor:
        """Return a new executor."""
        return choose_executor(self.executor, {}, self.plugins)[1]

    @contextmanager
    def started(self, *jobs: TrialJob) -> Iterator[tuple[Executor, list[JobFolder], list[str]]]:
        """Yield an executor to which jobs are submitted, with their folders and handles."""
        with tempfile.TemporaryDirectory(dir=self.folder, ignore_cleanup_errors=True) as root:
            executor, folders, tickets = self.new(), [], []
            for number, job in enumerate(jobs):
                folders.append(JobFolder.of(Path(root), f"{number}-{job.kind}"))
                cells = [cell.id for cell in job.cells]
                folders[-1].write_job(job, Submitted(title=job.title, cells=cells, executor=self.executor, attempt=1))
                tickets.append(Ticket(folders[-1].path, 1, job.title, Resources()))
            handles: list[str] = []
            try:
                handles += executor.submit(tickets)
                yield executor, folders, handles
            finally:
                executor.cancel(handles)
                executor.close()

    def awaited(self, executor: Executor, handle: str) -> Condition | None:
        """Return the condition of a job that has ended; None where the executor knows it no more.

        Raises:
            NotConforming: it has not ended in time.
        """
        deadline = time.monotonic() + self.seconds
        while True:
            condition = executor.alive([handle]).get(handle)
            if condition is None or condition.state in ("ended", "died"):
                return condition
            if time.monotonic() > deadline:
                raise NotConforming(f"alive says {condition.state} of a job {self.seconds:g} s after it was submitted")
            executor.wait(_POLL_SECONDS)

    def until(self, said: Callable[[], bool], executor: Executor, what: str) -> None:
        """Wait until something is so.

        Raises:
            NotConforming: it is not so in time.
        """
        deadline = time.monotonic() + self.seconds
        while not said():
            if time.monotonic() > deadline:
                raise NotConforming(f"{what} within {self.seconds:g} s")
            executor.wait(_POLL_SECONDS)


@dataclass(frozen=True)
class TrialCell:
    """A cell of the checks."""

    id: str
    identity: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    title: str = "a cell of a check"
    problem: str = ""


@dataclass(frozen=True)
class TrialJob:
    """A job of the checks, of one cell; it computes nothing.

    Attributes:
        kind: ``"ends"``, ``"exits"`` (with code 3), ``"killed"`` (by itself) or ``"goes on"`` (until it is asked to
            stop).
    """

    kind: str
    cells: Sequence[TrialCell] = (TrialCell("0" * 16),)
    after: Sequence[str] = ()
    needs: Resources = field(default_factory=Resources)

    @property
    def key(self) -> str:
        """Return its name."""
        return self.kind

    @property
    def title(self) -> str:
        """Return a line for people."""
        return f"check: a job that {self.kind}"

    def with_cells(self, cells: Sequence[Any]) -> TrialJob:
        """See `metabench.contracts.Job`."""
        return replace(self, cells=cells)

    def run(self, watcher: Watcher) -> Iterator[Attempt]:
        """See `metabench.contracts.Job`."""
        if self.kind == "exits":
            os._exit(3)
        if self.kind == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        watcher.phase("test", 1)
        while self.kind == "goes on":
            watcher.advance(0)
            if watcher.should_stop():
                raise Interrupted
            time.sleep(_POLL_SECONDS / 10)
        for cell in self.cells:
            error = f"CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES')}"
            yield Attempt(Record.model_validate({**made_up_run.failed(error), "cell": cell.id}))


def check_options(subject: Subject) -> None:
    """Its Config is an ExecutorConfig, and refuses options that it does not know."""
    executor = subject.new()
    model: Any = type(executor).Config
    if not (isinstance(model, type) and issubclass(model, ExecutorConfig)):
        raise NotConforming("its Config is no subclass of metabench.contracts.ExecutorConfig")
    if model.model_config.get("extra") != "forbid":
        raise NotConforming("its Config takes options that it does not know: keep extra='forbid'")
    if not isinstance(getattr(executor, "config", None), model):
        raise NotConforming("it does not keep its options as self.config")


def check_torch(subject: Subject) -> None:
    """Its module imports no torch, so that a command answers at once."""
    command = [sys.executable, "-c", _IMPORTING, json.dumps(sys.path), type(subject.new()).__module__]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotConforming(f"in a process of its own, its module cannot be imported: {done.stderr.strip()[-300:]}")
    if done.stdout.split()[-1] != "False":
        raise NotConforming("its module imports torch: import it in the worker")


def check_runs(subject: Subject) -> None:
    """Jobs that are submitted together run, each with a handle of its own in JSON, and write their results."""
    with subject.started(TrialJob("ends"), TrialJob("ends")) as (executor, folders, handles):
        if len(set(handles)) != len(folders):
            raise NotConforming(f"submit returned {len(handles)} handles for {len(folders)} tickets, each its own")
        for handle in handles:
            json.loads(handle)
        for folder, handle in zip(folders, handles, strict=True):
            condition = subject.awaited(executor, handle)
            if condition is not None and condition.state == "died":
                raise NotConforming(f"a job that ends died: {condition.reason}")
            subject.until(lambda folder=folder: folder.ended(1) is not None, executor, "a job's end is not seen")  # type: ignore[misc]
            ended = folder.ended(1)
            if ended is None or ended.how != "done" or not folder.results():
                raise NotConforming(f"a job wrote no result ({ended}): run ticket.command, once a ticket")


def check_exits(subject: Subject) -> None:
    """A job that exits with a code has died by itself."""
    condition = _died(subject, "exits")
    if condition is not None and condition.by_machine:
        raise NotConforming(f"a job that exits with code 3 died by its machine ({condition.reason}): it would be again")


def check_killed(subject: Subject) -> None:
    """A job that is killed (SIGKILL) has died by its machine, and would be tried again."""
    condition = _died(subject, "killed")
    if condition is not None and not condition.by_machine:
        raise NotConforming(f"a job that was killed died by itself ({condition.reason}): set by_machine")


def _died(subject: Subject, kind: str) -> Condition | None:
    with subject.started(TrialJob(kind)) as (executor, _, (handle,)):
        condition = subject.awaited(executor, handle)
        if condition is not None and (condition.state != "died" or not condition.reason):
            raise NotConforming(f"of a job that is {kind}, alive says {condition}: died, with the reason")
        return condition


def check_cancel(subject: Subject) -> None:
    """A job that is cancelled is asked to stop first, and ends."""
    with subject.started(TrialJob("goes on")) as (executor, (folder,), (handle,)):
        subject.until(lambda: folder.progress() is not None, executor, "a job does not begin")
        executor.cancel([handle])
        subject.until(lambda: folder.ended(1) is not None, executor, "a cancelled job does not write how it ended")
        ended = folder.ended(1)
        if ended is None or ended.how != "interrupted":
            raise NotConforming(f"a cancelled job ended as {ended}: send SIGTERM to its process first")
        subject.awaited(executor, handle)


def check_adopts(subject: Subject) -> None:
    """A job that outlives its driver is known by its handle to another one; others have ended with it."""
    with subject.started(TrialJob("goes on")) as (executor, (folder,), (handle,)):
        subject.until(lambda: folder.progress() is not None, executor, "a job does not begin")
        executor.close()
        if not executor.outlives_driver:
            subject.until(lambda: folder.claim() is None, executor, "close leaves a worker: end those that are started")
            return
        other = subject.new()
        condition = other.alive([handle]).get(handle)
        if condition is not None and condition.state != "running":
            raise NotConforming(f"another driver sees a running job as {condition.state}: a handle must say enough")
        other.cancel([handle])
        subject.until(lambda: folder.ended(1) is not None, other, "another driver cannot cancel a job by its handle")
        other.close()


CHECKS: dict[str, Callable[[Subject], None]] = {
    "options": check_options,
    "torch": check_torch,
    "runs": check_runs,
    "exits": check_exits,
    "killed": check_killed,
    "cancel": check_cancel,
    "adopts": check_adopts,
}
