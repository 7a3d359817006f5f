"""Runs cells in processes of their own, several at once: small networks leave a second core idle."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from typing import Any, Generic, Protocol, TypeVar

import torch

from metabench.engine.progress import Interrupted, Watcher
from metabench.errors import MetabenchError

#: Seconds between two messages of a worker about its progress, and between two looks at whether to stop.
_TELL_EVERY = 0.1
#: Seconds that a worker has to end after it was told to.
_PATIENCE = 5.0


class Job(Protocol):
    """Work for one process; it can be pickled."""

    def run(self, watcher: Watcher) -> Any:
        """Do the work, in a process of its own, and return what can be pickled.

        Raises:
            Interrupted: the watcher asked for it.
            MetabenchError: what ends all jobs.
        """


_Job = TypeVar("_Job", bound=Job)


@dataclass(frozen=True)
class Died:
    """What comes back from a process that ended without a word.

    Attributes:
        code: its exit code; -N where signal N killed it.
    """

    code: int | None

    @property
    def problem(self) -> str:
        """Return what to tell the user."""
        if self.code == -signal.SIGKILL:
            return "its process was killed (signal 9), by the system perhaps, for want of memory: try fewer --jobs"
        how = f"signal {-self.code}" if self.code and self.code < 0 else f"exit code {self.code}"
        return f"its process ended ({how}); what it said of that is above"


@dataclass
class _Running(Generic[_Job]):
    job: _Job
    process: BaseProcess
    watcher: Watcher


def run_jobs(
    waiting: Sequence[_Job],
    at_once: int,
    threads: int,
    started: Callable[[_Job], Watcher],
    chain: Callable[[_Job], object] = id,
) -> Iterator[tuple[_Job, Any]]:
    """Yield each job with its result, or `Died`, as they finish.

    Args:
        waiting: in the order in which they start.
        at_once: how many run at a time.
        threads: that each computes in.
        started: called when a job starts; returns who watches it.
        chain: jobs of which it is the same do not run at once, but one after the other.

    Raises:
        Interrupted: a watcher asked for it, and all running jobs have stopped.
        MetabenchError: a job raised it; the others were stopped.
    """
    context = _context()
    stop = context.Event()  # starts the resource tracker, which would unblock the signals
    _start_server(context)
    queue, running = list(waiting), dict[Connection, _Running[_Job]]()
    failure: MetabenchError | Interrupted | None = None
    try:
        while running or (queue and not stop.is_set()):
            while len(running) < at_once and not stop.is_set():
                busy = {chain(under_way.job) for under_way in running.values()}
                startable = next((i for i, job in enumerate(queue) if chain(job) not in busy), None)
                if startable is None:
                    break
                job = queue.pop(startable)
                watcher = started(job)
                ours, theirs = context.Pipe(duplex=False)
                arguments = (job, theirs, stop, threads, dict(os.environ))
                process = context.Process(target=_work, args=arguments, daemon=True)
                with _signals_kept_from_children():
                    process.start()
                theirs.close()
                running[ours] = _Running(job, process, watcher)
            ready = wait(list(running), timeout=_TELL_EVERY)
            for ours in [connection for connection in running if connection in ready]:
                kind, content = _receive(ours, running[ours].process)
                if kind in ("phase", "advance"):
                    getattr(running[ours].watcher, kind)(*content)
                    continue
                ended = running.pop(ours)
                ended.process.join()
                if isinstance(content, Died) and stop.is_set():
                    failure = failure or Interrupted()  # whoever stopped all may have hit this process, too
                elif kind == "raised":
                    failure = failure if isinstance(failure, MetabenchError) else content
                    stop.set()
                else:
                    yield ended.job, content
            if any(job.watcher.should_stop() for job in running.values()):
                stop.set()
    finally:
        stop.set()
        patience = time.monotonic() + _PATIENCE
        for ended in running.values():
            ended.process.join(max(0.0, patience - time.monotonic()))
            ended.process.kill()
    if failure is not None or queue:
        raise failure or Interrupted


def _context() -> ForkServerContext | SpawnContext:
    """Return how processes are made: none is a fork of this one, whose threads would be in an unknown state."""
    # Importing torch._dynamo may touch CUDA, which no fork survives.
    if sys.platform != "linux" or sys.version_info < (3, 11) or torch.cuda.is_available():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # They are forked from a server that has imported what takes seconds (optimisers import torch._dynamo when they are
    # made), and has computed nothing.
    context.set_forkserver_preload(["metabench.executors.driver", "torch._dynamo"])
    return context


def _start_server(context: ForkServerContext | SpawnContext) -> None:
    """Start the server, if there is to be one; like the command itself, it imports nothing from the current folder."""
    if not isinstance(context, ForkServerContext):
        return
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        with _signals_kept_from_children():
            forkserver.ensure_running()
    finally:
        del os.environ["PYTHONSAFEPATH"]
        if before is not None:
            os.environ["PYTHONSAFEPATH"] = before


@contextmanager
def _signals_kept_from_children() -> Iterator[None]:
    """Start processes that Ctrl-C and SIGTERM, which may reach a whole group, do not end: whoever waits is told."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})  # children inherit the mask
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _receive(connection: Connection, process: BaseProcess) -> tuple[str, Any]:
    try:
        kind, content = connection.recv()
        return kind, content
    except (EOFError, OSError):  # it ended before, or within, a message
        process.join()
        return "finished", Died(process.exitcode)


def _work(job: Job, connection: Connection, stop: Event, threads: int, environment: Mapping[str, str]) -> None:
    """Run a job: what a worker does from its start to its end."""
    os.environ.clear()  # of the server that it was forked from, which may be older than a change of ours
    os.environ.update(environment)
    torch.set_num_threads(threads)
    try:
        connection.send(("finished", job.run(_Teller(connection, stop))))
    except (Interrupted, MetabenchError) as error:
        connection.send(("raised", error))


class _Teller:
    """The watcher in a worker: sends on what it sees, though not every step."""

    def __init__(self, connection: Connection, stop: Event) -> None:
        self._connection = connection
        self._stop = stop
        self._told = 0.0
        self._note = ""

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """See `metabench.engine.progress.Watcher`."""
        self._connection.send(("phase", (name, total, done)))

    def advance(self, done: int, note: str = "") -> None:
        """See `metabench.engine.progress.Watcher`."""
        self._note = note or self._note
        if time.monotonic() - self._told > _TELL_EVERY:
            self._connection.send(("advance", (done, self._note)))
            self._told, self._note = time.monotonic(), ""

    def should_stop(self) -> bool:
        """See `metabench.engine.progress.Watcher`."""
        return self._stop.is_set()
