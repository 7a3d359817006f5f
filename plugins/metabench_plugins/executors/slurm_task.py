"""A task of SLURM's array: runs its jobs, one after the other, by worker processes of the node."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import Any

from submitit import JobEnvironment
from submitit.helpers import DelayedSubmission

from metabench.contracts import Condition, Executor, PluginManager, Ticket
from metabench_plugins.executors.slurm_files import Handle

#: Seconds between two looks at a worker.
_LOOK_SECONDS = 0.5
#: The signal by which SLURM announces a time limit or a preemption, as submitit asks it to.
_ANNOUNCED: signal.Signals = getattr(signal, f"SIG{JobEnvironment.USR_SIG}")


class SlurmTask:
    """What submitit pickles, calls on the node, and asks for a checkpoint.

    Args:
        tickets: its jobs.
    """

    def __init__(self, tickets: Sequence[Ticket]) -> None:
        self.tickets = tickets
        self._workers: Executor | None = None
        self._is_terminated = False

    def __call__(self) -> None:
        """Run the jobs that have not ended; called by submitit."""
        signal.signal(signal.SIGTERM, self._terminate)
        processes: Any = PluginManager.from_environment().executor_class("processes")
        self._workers = processes(processes.Config(jobs=1))
        for ticket in self.tickets:
            handle = Handle.of(ticket)
            if handle.end() is None and not handle.should_stop:
                self._run(ticket, handle, self._workers)
        self._workers.close()

    def checkpoint(self) -> DelayedSubmission:
        """Stop the worker, which writes a checkpoint; called by submitit before it requeues this task."""
        if self._workers is not None:
            self._workers.close()
        return DelayedSubmission(SlurmTask(self.tickets))

    def _run(self, ticket: Ticket, handle: Handle, workers: Executor) -> None:
        with _announcement_blocked():
            (worker,) = workers.submit([ticket])
        while (condition := workers.alive([worker])[worker]).state == "running":
            if self._is_terminated or handle.should_stop:
                workers.cancel([worker])
            workers.wait(_LOOK_SECONDS)
        if self._is_terminated:
            _end_terminated()
        handle.write_end(_seen_from_afar(condition))

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        self._is_terminated = True


def _seen_from_afar(condition: Condition) -> Condition:
    """Return the condition of a worker with a reason for people who are not on its node."""
    if condition.state != "died":
        return condition
    if condition.by_machine:
        reason = "its process was killed (signal 9), perhaps for want of memory: ask for more by memory_mb"
    else:
        reason = f"{condition.reason.partition(';')[0]}: see {JobEnvironment().paths.stderr}"
    return replace(condition, reason=reason)


def _end_terminated() -> None:
    """End this process; requeue the task first if SLURM preempts it, and has not cancelled it."""
    asked = ["squeue", "--noheader", f"--jobs={JobEnvironment().job_id}", "--format=%T"]
    state = subprocess.run(asked, check=False, capture_output=True, text=True, timeout=60).stdout.strip()
    if state == "RUNNING":
        signal.raise_signal(_ANNOUNCED)  # submitit requeues the task, and ends this process
    os._exit(1)


@contextmanager
def _announcement_blocked() -> Iterator[None]:
    """Block the announcement, here meanwhile, and for good in the processes that are started meanwhile.

    SLURM sends it to all processes of a task, and would kill them by it; this one stops its workers.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {_ANNOUNCED})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
