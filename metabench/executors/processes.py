"""Run each job in a worker process of its own, one after the other or several at once.

Code of plugins may exit, crash or change the state of its process: it then ends or spoils one job.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any, Generic, Protocol, TypeVar

from metabench.engine.progress import Interrupted, Watcher
from metabench.errors import MetabenchError, in_one_line
from metabench.machine.stops import watch_stops

#: Seconds between a worker's progress messages, and between checks whether to stop.
_POLL_SECONDS = 0.1
#: Seconds that workers have to end after the request to stop; then they are killed.
_STOP_SECONDS = 5.0
#: Modules that the fork server imports, so that no worker has to; the server computes nothing. All but the first are
#: imported late by a cell: by optimisers, intervals, pictures and checkpoints.
_PRELOADED = [
    "metabench.executors.job",
    "torch._dynamo",
    "scipy.special",
    "PIL.PngImagePlugin",
    "PIL.BmpImagePlugin",
    "PIL.GifImagePlugin",
    "PIL.JpegImagePlugin",
    "PIL.PpmImagePlugin",
    "torch.utils.serialization.config",
]
#: Modules that the fork server of a dry run imports.
_PLANNING = ["metabench.executors.preparation", "metabench.api"]
#: Files of CUDA devices on Linux, also within WSL.
_CUDA_DEVICES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/nvhost-ctrl", "/dev/dxg")
#: Signals that ask the main process to stop; workers do not receive them.
_STOPPING = {getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)}


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
    context = _context()
    _start_fork_server(context)
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
                process = context.Process(target=_run_worker, args=arguments)
                with _signals_blocked(), _main_hidden():
                    process.start()
                sender.close()
                workers[receiver] = _Worker(job, process, watcher)
            ready = wait(list(workers), timeout=_POLL_SECONDS)
            for receiver in [connection for connection in workers if connection in ready]:
                kind, content = _receive(receiver, workers[receiver].process)
                if kind in ("phase", "advance"):
                    getattr(workers[receiver].watcher, kind)(*content)
                    continue
                if kind == "result":
                    yield workers[receiver].job, content
                    continue
                worker = workers.pop(receiver)
                _end([worker.process], _STOP_SECONDS)
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
        _end([worker.process for worker in workers.values()], _STOP_SECONDS)
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


def start_is_cheap() -> bool:
    """Return whether a worker starts in hundredths of a second (fork server), not in the seconds of a new Python."""
    # The fork server imports torch._dynamo, which may initialise CUDA, and a fork cannot use an initialised CUDA.
    return sys.platform == "linux" and sys.version_info >= (3, 11) and not _has_cuda()


def _has_cuda() -> bool:
    """Return whether CUDA can be used; import torch only where there is a device."""
    if not any(os.path.exists(device) for device in _CUDA_DEVICES):
        return False
    import torch

    return torch.cuda.is_available()


def prepare_workers(only_planning: bool = False) -> None:
    """Let the fork server import its modules, while this process does other things.

    Workers need no such call; the first one then starts earlier.

    Args:
        only_planning: whether no worker will train, so that the server imports less, and answers a second earlier.
    """
    context = _context()
    if only_planning and not isinstance(context, SpawnContext):
        context.set_forkserver_preload(_PLANNING)
    _start_fork_server(context)


def _context() -> ForkServerContext | SpawnContext:
    """Return the start method of workers: fork server where possible, else spawn.

    A direct fork would copy torch's threads in an unknown state.
    """
    if not start_is_cheap():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context


def _start_fork_server(context: ForkServerContext | SpawnContext) -> None:
    """Start the fork server with PYTHONSAFEPATH=1, if the context uses one.

    A file in the current directory then cannot shadow an installed module.
    """
    resource_tracker.ensure_running()  # first, because it would unblock the signals that are blocked below
    if not isinstance(context, ForkServerContext):
        return
    previous = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        with _signals_blocked():
            forkserver.ensure_running()
    finally:
        del os.environ["PYTHONSAFEPATH"]
        if previous is not None:
            os.environ["PYTHONSAFEPATH"] = previous


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block the signals that ask to stop, in this thread and in processes started within the block.

    They may reach the whole process group; only the main process handles them, and asks its workers to stop.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)  # children inherit the mask
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def _main_hidden() -> Iterator[None]:
    """Keep workers from importing the main script: they need nothing of it, and it may be what started the run."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _receive(connection: Connection, process: BaseProcess) -> tuple[str, Any]:
    """Return kind and content of a worker's message; `Died` if it sends no more."""
    try:
        kind, content = connection.recv()
        return kind, content
    except (EOFError, OSError):  # the worker ended before or within a message, or closed its pipe
        _end([process], _STOP_SECONDS)
        return "died", Died(process.exitcode)
    except Exception as error:  # the message cannot be unpickled here
        _end([process], 0.0)
        return "died", Died(None, in_one_line(error))


def _end(processes: Sequence[BaseProcess], seconds: float) -> None:
    """Wait for processes to end; kill them after the deadline, or at a further signal to stop."""
    deadline = time.monotonic() + seconds
    with _signals_blocked():  # an interrupted cleanup would leave workers behind
        while (alive := [process.sentinel for process in processes if process.is_alive()]) and not _is_urgent():
            left = deadline - time.monotonic()
            if left <= 0:
                break
            wait(alive, timeout=min(_POLL_SECONDS, left))
        for process in processes:
            process.kill()
            process.join()


def _is_urgent() -> bool:
    """Return whether a blocked signal asks to stop."""
    return hasattr(signal, "sigpending") and bool(signal.sigpending() & _STOPPING)


def _run_worker(
    job: Job, connection: Connection, stop: ctypes.c_bool, threads: int, environment: Mapping[str, str]
) -> None:
    """Run a job in its worker; send its results, or the error that ends all jobs.

    The worker then ends at once: threads and exit handlers of plugins cannot hold it.
    """
    import torch

    gc.freeze()  # a collection would touch, and so copy, all that is shared with the fork server: .2 s
    os.environ.clear()  # the fork server's environment may be older than the main process's
    os.environ.update(environment)
    with suppress(OSError):
        os.dup2(2, 1)  # what plugins print must not mix with the leaderboard on standard output
    _ignore_signals()
    watch_stops()
    torch.set_num_threads(threads)
    watcher = _SendingWatcher(connection, stop)
    threading.Thread(target=_end_with_parent, args=(watcher,), daemon=True).start()
    try:
        for result in job.run(watcher):
            watcher.send("result", result)
        message: tuple[str, Any] = ("ended", None)
    except (Interrupted, MetabenchError) as error:
        message = ("raised", error)
    except BaseException as error:  # e.g. a KeyboardInterrupt of a plugin
        message = ("died", Died(None, in_one_line(error)))
    watcher.send(*message)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    for child in multiprocessing.active_children():  # e.g. of a DataLoader
        child.kill()
    os._exit(0)


def _ignore_signals() -> None:
    """Let the signals that ask to stop pass by this worker, and reach the processes that a plugin starts.

    They may reach the whole process group; only the main process handles them. A blocked or ignored signal would be so
    in the children of a worker as well, and e.g. `multiprocessing.Pool` could not end them.
    """
    for number in _STOPPING:
        signal.signal(number, lambda number, frame: None)
    if hasattr(signal, "pthread_sigmask"):
        # Blocked while it forks: a signal that reaches the child before its handlers are restored would be lost.
        os.register_at_fork(
            before=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING),
            after_in_parent=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING),
            after_in_child=_restore_signals,
        )
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)


def _restore_signals() -> None:
    for number in _STOPPING:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING | {signal.SIGCONT})


def _end_with_parent(watcher: _SendingWatcher) -> None:
    """Ask the job to stop when the main process has ended; end the worker if it does not."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker has a parent"
    parent.join()
    watcher.orphaned = True
    time.sleep(_STOP_SECONDS)
    os._exit(1)


class _SendingWatcher:
    """The watcher in a worker: sends the progress to the main process.

    `advance` sends at most one message per `_POLL_SECONDS`.

    Attributes:
        orphaned: whether the main process has ended.
    """

    def __init__(self, connection: Connection, stop: ctypes.c_bool) -> None:
        self.orphaned = False
        self._connection = connection
        self._stop = stop
        self._sent = 0.0
        self._note = ""

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """See `metabench.engine.progress.Watcher`."""
        self.send("phase", (name, total, done))

    def advance(self, done: int, note: str = "") -> None:
        """See `metabench.engine.progress.Watcher`."""
        self._note = note or self._note
        if time.monotonic() - self._sent > _POLL_SECONDS:
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
