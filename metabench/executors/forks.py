"""Start worker processes: forks of a server that has imported torch, or new ones; end them."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from types import ModuleType

from metabench.machine.stops import watch_stops

#: Seconds between a worker's progress messages, and between checks whether to stop.
POLL_SECONDS = 0.1
#: Seconds that workers have to end after the request to stop; then they are killed.
STOP_SECONDS = 5.0
#: Modules that the fork server imports, so that no worker has to; the server computes nothing. All but the first are
#: imported late by a cell: by optimisers, intervals, pictures and checkpoints.
_PRELOADED = [
    "metabench.executors.job",
    "metabench.executors.local",
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
    context = context_of_workers()
    if only_planning and not isinstance(context, SpawnContext):
        context.set_forkserver_preload(_PLANNING)
    start_fork_server(context)


def context_of_workers() -> ForkServerContext | SpawnContext:
    """Return the start method of workers: fork server where possible, else spawn.

    A direct fork would copy torch's threads in an unknown state.
    """
    if not start_is_cheap():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context


def start_fork_server(context: ForkServerContext | SpawnContext) -> None:
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


def end_processes(processes: Sequence[BaseProcess], seconds: float) -> None:
    """Wait for processes to end; kill them after the deadline, or at a further signal to stop."""
    deadline = time.monotonic() + seconds
    with _signals_blocked():  # an interrupted cleanup would leave workers behind
        while (alive := [process.sentinel for process in processes if process.is_alive()]) and not _is_urgent():
            left = deadline - time.monotonic()
            if left <= 0:
                break
            wait(alive, timeout=min(POLL_SECONDS, left))
        for process in processes:
            process.kill()
            process.join()


def _is_urgent() -> bool:
    """Return whether a blocked signal asks to stop."""
    return hasattr(signal, "sigpending") and bool(signal.sigpending() & _STOPPING)


def start(
    context: ForkServerContext | SpawnContext, target: Callable[..., None], arguments: Sequence[object]
) -> BaseProcess:
    """Return a new worker that runs a function."""
    process = context.Process(target=target, args=tuple(arguments))
    with _signals_blocked(), _main_hidden():
        process.start()
    return process


def begin_worker(threads: int, environment: Mapping[str, str], orphaned: Callable[[], None]) -> None:
    """Prepare a worker, first of all in its function.

    Args:
        threads: number of its threads.
        environment: variables of the main process, of which those of the fork server may be an older copy.
        orphaned: called when the main process has ended; the worker has `STOP_SECONDS` then.
    """
    import torch

    gc.freeze()  # a collection would touch, and so copy, all that is shared with the fork server: .2 s
    os.environ.clear()
    os.environ.update(environment)
    with suppress(OSError):
        os.dup2(2, 1)  # what plugins print must not mix with the leaderboard on standard output
    _ignore_signals()
    watch_stops()
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, args=(orphaned,), daemon=True).start()


def end_worker(code: int) -> None:
    """End the worker at once: threads and exit handlers of plugins cannot hold it."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    for child in multiprocessing.active_children():  # e.g. of a DataLoader
        child.kill()
    os._exit(code)


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


def _end_with_parent(orphaned: Callable[[], None]) -> None:
    """Ask the job to stop when the main process has ended; end the worker if it does not."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker has a parent"
    parent.join()
    orphaned()
    time.sleep(STOP_SECONDS)
    os._exit(1)
