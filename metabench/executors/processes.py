"""Run each job in a worker process of its own, one after the other or several at once.

Code of plugins may exit, crash or change the state of its process: it then ends or spoils one job. The results come
through pipes, as pickles: this is for work within one command, e.g. planning, and not for the jobs of a run.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, Protocol, TypeVar

from metabench.engine.progress import Interrupted, Watcher
from metabench.errors import MetabenchError, in_one_line
from metabench.executors.forks import (
    POLL_SECONDS,
    STOP_SECONDS,
    begin_worker,
    context_of_workers,
    end_processes,
    end_worker,
    start,
    start_fork_server,
)


class Job(Protocol):
    """The work of one worker; it must be picklable."""

    def run(self, watcher: Watcher) -> Iterator[Any]:
        """Do the work in the worker; yield picklable results.

        Raises:
            Interrupted: the watcher asked to stop.
            MetabenchError: an error that must end all jobs.
        """


_Job = TypeVar("_Job", bound=Job)


@dataclass(frozen=True)
class Died:
    """The result of a worker that ended without sending one.

    Attributes:
        code: exit code; -N if signal N killed the worker.
        error: type and message of an exception that ended it; empty if there was none.
    """

    code: int | None
    error: str = ""

    @property
    def problem(self) -> str:
        """Return the error message of the job."""
        if self.error:
            return f"its process ended with {self.error}"
        if self.code == -signal.SIGKILL:
            return "its process was killed (signal 9), perhaps because the system ran out of memory: try fewer --jobs"
        reason = f"signal {-self.code}" if self.code and self.code < 0 else f"exit code {self.code}"
        return f"its process ended ({reason}); see its messages above"


@dataclass
class _Worker(Generic[_Job]):
    job: _Job
    process: BaseProcess
    watcher: Watcher


def run_jobs(
    waiting: Sequence[_Job],
    at_once: int,
    threads: int,
    started: Callable[[_Job], Watcher],
    key: Callable[[_Job], object] = id,
    after: Callable[[_Job], Collection[object]] = lambda job: (),
) -> Iterator[tuple[_Job, Any]]:
    """Yield each result with its job, as they come; `Died` if a job ends before its last result.

    Args:
        waiting: the jobs, in starting order.
        at_once: number of workers at a time.
        threads: number of threads of each worker.
        started: called when a job starts; returns its progress watcher.
        key: returns the key of a job.
        after: returns the keys of the jobs that must have ended before a job.

    Raises:
        Interrupted: a watcher asked to stop, and all workers have stopped.
        MetabenchError: a job raised it, and the other workers have been stopped.
    """
    context = context_of_workers()
    start_fork_server(context)
    # Without a lock: a worker that is killed while it holds one would block all others.
    stop = context.RawValue(ctypes.c_bool, False)
    queue, workers = list(waiting), dict[Connection, _Worker[_Job]]()
    failure: MetabenchError | Interrupted | None = None
    try:
        while workers or (queue and not stop.value):
            while len(workers) < at_once and not stop.value:
                unfinished = {key(job) for job in (*queue, *(worker.job for worker in workers.values()))}
                startable = next((i for i, job in enumerate(queue) if unfinished.isdisjoint(after(job))), None)
                if startable is None:
                    break
                job = queue.pop(startable)
                watcher = started(job)
                receiver, sender = context.Pipe(duplex=False)
                arguments = (job, sender, stop, threads, dict(os.environ))
                process = start(context, _run_worker, arguments)
                sender.close()
                workers[receiver] = _Worker(job, process, watcher)
            ready = wait(list(workers), timeout=POLL_SECONDS)
            for receiver in [connection for connection in workers if connection in ready]:
                kind, content = _receive(receiver, workers[receiver].process)
                if kind in ("phase", "advance"):
                    getattr(workers[receiver].watcher, kind)(*content)
                    continue
                if kind == "result":
                    yield workers[receiver].job, content
                    continue
                worker = workers.pop(receiver)
                end_processes([worker.process], STOP_SECONDS)
                if isinstance(content, Died) and stop.value:
                    failure = failure or Interrupted()  # the signal that stopped the run may have killed the worker
                elif kind == "raised":
                    failure = failure if isinstance(failure, MetabenchError) else content
                    stop.value = True
                elif kind == "died":
                    yield worker.job, content
            if any(worker.watcher.should_stop() for worker in workers.values()):
                stop.value = True
    finally:
        stop.value = True
        end_processes([worker.process for worker in workers.values()], STOP_SECONDS)
    if failure is not None or queue:
        raise failure or Interrupted


def run_job(job: Job, threads: int, watcher: Watcher) -> Any:
    """Return the only result of a job, or `Died`.

    Args:
        job: the job.
        threads: number of threads of its worker.
        watcher: its progress watcher.

    Raises:
        Interrupted, MetabenchError: as `run_jobs`.
    """
    ((_, result),) = run_jobs([job], 1, threads, lambda job: watcher)
    return result


def _receive(connection: Connection, process: BaseProcess) -> tuple[str, Any]:
    """Return kind and content of a worker's message; `Died` if it sends no more."""
    try:
        kind, content = connection.recv()
        return kind, content
    except (EOFError, OSError):  # the worker ended before or within a message, or closed its pipe
        end_processes([process], STOP_SECONDS)
        return "died", Died(process.exitcode)
    except Exception as error:  # the message cannot be unpickled here
        end_processes([process], 0.0)
        return "died", Died(None, in_one_line(error))


def _run_worker(
    job: Job, connection: Connection, stop: ctypes.c_bool, threads: int, environment: Mapping[str, str]
) -> None:
    """Run a job in its worker; send its results, or the error that ends all jobs.

    The worker then ends at once.
    """
    watcher = _SendingWatcher(connection, stop)
    begin_worker(threads, environment, watcher.orphan)
    try:
        for result in job.run(watcher):
            watcher.send("result", result)
        message: tuple[str, Any] = ("ended", None)
    except (Interrupted, MetabenchError) as error:
        message = ("raised", error)
    except BaseException as error:  # e.g. a KeyboardInterrupt of a plugin
        message = ("died", Died(None, in_one_line(error)))
    watcher.send(*message)
    end_worker(0)


class _SendingWatcher:
    """The watcher in a worker: sends the progress to the main process.

    `advance` sends at most one message per `POLL_SECONDS`.

    Attributes:
        orphaned: whether the main process has ended.
    """

    def __init__(self, connection: Connection, stop: ctypes.c_bool) -> None:
        self.orphaned = False
        self._connection = connection
        self._stop = stop
        self._sent = 0.0
        self._note = ""

    def orphan(self) -> None:
        """Note that the main process has ended."""
        self.orphaned = True

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """See `metabench.engine.progress.Watcher`."""
        self.send("phase", (name, total, done))

    def advance(self, done: int, note: str = "") -> None:
        """See `metabench.engine.progress.Watcher`."""
        self._note = note or self._note
        if time.monotonic() - self._sent > POLL_SECONDS:
            self.send("advance", (done, self._note))
            self._sent, self._note = time.monotonic(), ""

    def should_stop(self) -> bool:
        """See `metabench.engine.progress.Watcher`."""
        return self.orphaned or self._stop.value

    def send(self, kind: str, content: object) -> None:
        """Send a message of a kind to the main process."""
        try:
            self._connection.send((kind, content))
        except OSError:  # nobody reads the pipe any more
            self.orphaned = True
