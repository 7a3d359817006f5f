"""The executor on Ray: each job is a task, which runs it in a process of its own on some node."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

import ray
from pydantic import Field, PositiveInt
from ray import exceptions

from metabench.contracts import Condition, Executor, ExecutorConfig, Resources, Ticket
from metabench.errors import MetabenchError, UsageError, in_one_line
from metabench.executors.job_folder import JobFolder
from metabench_ray.errand import Errand, Started, Unseen, run_errand
from metabench_ray.mirror import files_to_send, write_files

_logger = logging.getLogger("metabench_ray")
#: Object store of a Ray that is started here, in bytes; it carries no files, since this computer sees its own.
_OBJECT_STORE = 100_000_000
#: What a machine does to a task: another attempt may end well.
_MACHINE_DIED: dict[type[exceptions.RayError], str] = {
    exceptions.NodeDiedError: "its node was lost",
    exceptions.LocalRayletDiedError: "its node was lost",
    exceptions.OutOfMemoryError: "Ray ended it, since the memory of its node ran out: give it memory_mb",
    exceptions.WorkerCrashedError: "the Ray worker that ran it was killed or crashed",
    exceptions.ObjectLostError: "its results were lost with their node",
}


class RayConfig(ExecutorConfig):
    """Options of the executor on Ray.

    Attributes:
        jobs: most jobs at once; None leaves it to Ray, which queues them.
        threads: threads of a worker, and processors that its job takes.
        gpus: share of a GPU that a job takes, if it needs one: 0.5 runs two jobs a GPU.
        address: a running Ray to join, e.g. ``"10.0.0.1:6379"``, or ``"auto"``; None joins that of the variable
            RAY_ADDRESS, or else starts one on this computer, which ends with the run.
    """

    threads: PositiveInt | None = 1
    gpus: Annotated[float, Field(gt=0, le=1)] = 1.0
    address: str | None = None


@dataclass
class _Task:
    ticket: Ticket
    token: str
    generator: ray.ObjectRefGenerator
    condition: Condition = field(default_factory=lambda: Condition("waiting"))

    @property
    def is_open(self) -> bool:
        return self.condition.state in ("waiting", "running")


class OnRay(Executor):
    """Tasks of a Ray, which is joined or started when the first job is submitted.

    Ray ends the tasks of a driver that has ended; a new driver goes on from their files. Ray tries no task again: the
    driver of metabench does.

    Args:
        config: the options.
    """

    Config: ClassVar[type[ExecutorConfig]] = RayConfig
    outlives_driver: ClassVar[bool] = False

    def __init__(self, config: ExecutorConfig) -> None:
        assert isinstance(config, RayConfig), "made by Config"
        self.config = config
        self._gpus, self._address = config.gpus, config.address
        self._tasks: dict[str, _Task] = {}  # by handle, of jobs that have not ended
        self._ended: dict[str, Condition] = {}
        self._is_ours = False  # the connection to Ray, and not that of the program that calls metabench
        self._sends_files = False
        self._warned: set[str] = set()
        self._run_errand: Any = None
        if (self._address or os.environ.get("RAY_ADDRESS", "")).startswith("ray://"):
            raise UsageError(
                "ray://… is a client's address: run metabench on a node of the cluster, and give HOST:PORT"
            )

    def slots(self, needs: Resources) -> int | None:
        """See `metabench.contracts.Executor`."""
        return self.config.jobs

    def submit(self, tickets: Sequence[Ticket]) -> list[str]:
        """See `metabench.contracts.Executor`."""
        self._join()
        handles = []
        for ticket in tickets:
            token = f"token.{uuid.uuid4().hex}"
            (ticket.folder / token).touch()
            handle = json.dumps({"job": ticket.folder.name, "attempt": ticket.attempt, "token": token})
            self._tasks[handle] = _Task(ticket, token, self._start(ticket, token))
            handles.append(handle)
        self._warn_of_needs(tickets)
        return handles

    def alive(self, handles: Sequence[str]) -> dict[str, Condition]:
        """See `metabench.contracts.Executor`."""
        by_generator = {task.generator: handle for handle, task in self._tasks.items()}
        for generator in _ready(list(by_generator), len(by_generator), 0.0):
            handle = by_generator[generator]
            self._read(self._tasks[handle])
            if not self._tasks[handle].is_open:
                self._ended[handle] = self._tasks.pop(handle).condition
        known = {**{handle: task.condition for handle, task in self._tasks.items()}, **self._ended}
        return {handle: known[handle] for handle in handles if handle in known}

    def cancel(self, handles: Sequence[str]) -> None:
        """See `metabench.contracts.Executor`."""
        for handle in handles:
            if handle in self._tasks:
                ray.cancel(self._tasks[handle].generator)

    def wait(self, seconds: float) -> None:
        """See `metabench.contracts.Executor`."""
        if self._tasks:
            _ready([task.generator for task in self._tasks.values()], 1, seconds)
        else:
            time.sleep(seconds)

    def close(self) -> None:
        """See `metabench.contracts.Executor`."""
        if self._is_ours:
            ray.shutdown()
        elif self._run_errand is not None:
            self.cancel(list(self._tasks))
        self._run_errand, self._is_ours = None, False
        self._tasks.clear()

    # ------------------------------------------------------------------------------------------- tasks

    def _start(self, ticket: Ticket, token: str) -> ray.ObjectRefGenerator:
        """Submit the task of a job."""
        needs, files = ticket.resources, None
        if self._sends_files:
            sent = files_to_send(ticket.folder, JobFolder(ticket.folder).job())
            files = {name: ray.put(content) for name, content in sent.items()}
        variables = {name: value for name, value in os.environ.items() if name.startswith("METABENCH_")}
        task = self._run_errand.options(
            name=f"metabench: {ticket.title}",
            num_cpus=needs.threads,
            num_gpus=self._gpus if needs.gpus else 0,
            memory=None if needs.memory_mb is None else needs.memory_mb * 2**20,
        )
        generator: ray.ObjectRefGenerator = task.remote(Errand(ticket, token, Path.cwd(), variables, files))
        return generator

    def _read(self, task: _Task) -> None:
        """Read the news of a task; write the files that it has sent."""
        generator = task.generator
        while task.is_open and task.generator is generator and _ready([generator], 1, 0.0):
            try:
                news = ray.get(next(generator))
            except exceptions.RayError as error:
                task.condition = _died(error)
            except StopIteration:
                task.condition = Condition("died", "its task ended without a word")
            else:
                self._take(task, news)

    def _take(self, task: _Task, news: object) -> None:
        match news:
            case Started():
                task.condition = Condition("running")
                if news.niceness > os.nice(0):
                    self._warn(
                        f"workers of this Ray run at niceness {news.niceness}, which records say: start its nodes with "
                        "RAY_worker_niceness=0 for timings that can be compared"
                    )
            case Condition():
                task.condition = news
            case Unseen():
                self._sends_files = True
                task.generator = self._start(task.ticket, task.token)
            case _:
                assert isinstance(news, Mapping), news
                write_files(task.ticket.folder.parents[1], news)

    # ------------------------------------------------------------------------------------------- the cluster

    def _join(self) -> None:
        """Join or start the Ray, once.

        Raises:
            MetabenchError: there is none at the address, or it has other versions.
        """
        if self._run_errand is not None:
            return
        # No `ray://`, no runtime environment: the nodes have metabench installed.
        self._run_errand = ray.remote(max_retries=0, num_returns="streaming")(run_errand)
        if ray.is_initialized():
            return
        options: dict[str, Any] = {"address": self._address} if self._address else {}
        if not self._address and not os.environ.get("RAY_ADDRESS"):
            os.environ.setdefault("RAY_worker_niceness", "0")
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            options = {"address": "local", "include_dashboard": False, "object_store_memory": _OBJECT_STORE}
        try:
            with _own_signals():
                ray.init(logging_level=logging.WARNING, **options)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            place = self._address or os.environ.get("RAY_ADDRESS") or "this computer"
            raise MetabenchError(
                f"cannot use the Ray of {place}: {in_one_line(error)}. Start one (`ray start --head`), or leave out "
                "its address"
            ) from error
        self._is_ours = True

    def _warn_of_needs(self, tickets: Sequence[Ticket]) -> None:
        """Warn once of jobs that no node of now can run."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        for needs in {(ticket.resources.threads, bool(ticket.resources.gpus)) for ticket in tickets}:
            threads, gpus = needs[0], self._gpus if needs[1] else 0
            if not any(node.get("CPU", 0) >= threads and node.get("GPU", 0) >= gpus for node in nodes):
                self._warn(f"no node of this Ray has {threads} processors and {gpus:g} GPUs: jobs wait until one joins")

    def _warn(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            _logger.warning(message)


def _ready(generators: list[ray.ObjectRefGenerator], count: int, seconds: float) -> list[ray.ObjectRefGenerator]:
    """Return the generators that have news; wait some seconds for a number of them."""
    if not generators:
        return []
    ready: list[ray.ObjectRefGenerator] = ray.wait(generators, num_returns=count, timeout=seconds)[0]
    return ready


def _died(error: exceptions.RayError) -> Condition:
    """Return the condition of a task that Ray has ended."""
    for kind, reason in _MACHINE_DIED.items():
        if isinstance(error, kind):
            return Condition("died", reason, by_machine=True)
    if isinstance(error, exceptions.TaskCancelledError):
        return Condition("died", "it was cancelled")
    cause = error.cause if isinstance(error, exceptions.RayTaskError) else error
    return Condition("died", f"its node could not run it: {in_one_line(cause)}")


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep the driver's handler of SIGTERM, which Ray would replace by one that exits at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
