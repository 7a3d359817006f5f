"""The executor of this computer: worker processes, which end with the driver; of jobs with a GPU, one a GPU."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import ClassVar

from pydantic import PositiveInt

from metabench.contracts import Condition, Executor, ExecutorConfig, Resources, Ticket
from metabench.executors.forks import (
    STOP_SECONDS,
    begin_worker,
    context_of_workers,
    end_processes,
    end_worker,
    start,
    start_fork_server,
)
from metabench.executors.job_folder import JobFolder
from metabench.executors.worker import work
from metabench.machine.gpus import VISIBLE, visible_gpus


class ProcessesConfig(ExecutorConfig):
    """Options of worker processes.

    Attributes:
        jobs: jobs at once; None means 1.
        per_device: jobs at once on each GPU (``--per-device``).
    """

    per_device: PositiveInt = 1


@dataclass
class _Worker:
    process: BaseProcess
    stop: ctypes.c_bool
    gpu: str | None
    kill_at: float | None = None


class Processes(Executor):
    """Worker processes of this computer.

    Workers are forks of a server that has imported torch, where that can be. A job with a GPU sees one GPU, of those
    that this process sees.

    Args:
        config: the options.
    """

    Config: ClassVar[type[ExecutorConfig]] = ProcessesConfig
    outlives_driver: ClassVar[bool] = False

    def __init__(self, config: ExecutorConfig) -> None:
        assert isinstance(config, ProcessesConfig), "made by Config"
        self.config = config
        self._per_device = config.per_device
        self._workers: dict[str, _Worker] = {}
        self._ended: dict[str, Condition] = {}
        self._gpus: list[str] | None = None

    def slots(self, needs: Resources) -> int:
        """See `metabench.contracts.Executor`."""
        jobs = self.config.jobs or 1
        return min(jobs, max(1, len(self._all_gpus()) * self._per_device)) if needs.gpus else jobs

    def submit(self, tickets: Sequence[Ticket]) -> list[str]:
        """See `metabench.contracts.Executor`."""
        return [self._start(ticket) for ticket in tickets]

    def alive(self, handles: Sequence[str]) -> dict[str, Condition]:
        """See `metabench.contracts.Executor`."""
        for handle, worker in list(self._workers.items()):
            code = worker.process.exitcode
            if code is not None:
                self._ended[handle] = _condition(code)
                self._workers.pop(handle).process.close()
            elif worker.kill_at is not None and time.monotonic() > worker.kill_at:
                worker.process.kill()
        return {handle: self._ended.get(handle, Condition("running")) for handle in handles}

    def cancel(self, handles: Sequence[str]) -> None:
        """See `metabench.contracts.Executor`."""
        for handle in handles:
            worker = self._workers.get(handle)
            if worker is not None and worker.kill_at is None:
                worker.stop.value = True
                worker.kill_at = time.monotonic() + STOP_SECONDS

    def wait(self, seconds: float) -> None:
        """See `metabench.contracts.Executor`."""
        sentinels = [worker.process.sentinel for worker in self._workers.values()]
        if sentinels:
            wait(sentinels, timeout=seconds)
        else:
            time.sleep(seconds)

    def close(self) -> None:
        """See `metabench.contracts.Executor`."""
        self.cancel(list(self._workers))
        end_processes([worker.process for worker in self._workers.values()], STOP_SECONDS)
        self._workers.clear()

    def _start(self, ticket: Ticket) -> str:
        context = context_of_workers()
        start_fork_server(context)
        # Without a lock: a worker that is killed while it holds one would block all others.
        stop = context.RawValue(ctypes.c_bool, False)
        gpu = self._free_gpu() if ticket.resources.gpus else None
        environment = {**os.environ, **({} if gpu is None else {VISIBLE: gpu})}
        arguments = (ticket.folder, ticket.attempt, stop, ticket.resources.threads, environment)
        process = start(context, _work, arguments)
        handle = json.dumps({"pid": process.pid, "attempt": ticket.attempt, "job": ticket.folder.name})
        self._workers[handle] = _Worker(process, stop, gpu)
        return handle

    def _all_gpus(self) -> list[str]:
        if self._gpus is None:
            self._gpus = visible_gpus()
        return self._gpus

    def _free_gpu(self) -> str | None:
        """Return the GPU with the fewest jobs; None where CUDA has no names to choose from."""
        busy = [worker.gpu for worker in self._workers.values()]
        return min(self._all_gpus(), key=busy.count, default=None)


def _condition(code: int) -> Condition:
    """Return the condition of a job by the exit code of its worker.

    Nothing in a worker sends SIGKILL but the system, when memory runs out, and people: the job is tried again. An exit
    code, and any other signal, is the doing of its own code, and would come again.
    """
    if code == 0:
        return Condition("ended")
    if code == -signal.SIGKILL:
        reason = "its process was killed (signal 9), perhaps because the system ran out of memory: try fewer --jobs"
        return Condition("died", reason, by_machine=True)
    reason = f"signal {-code}" if code < 0 else f"exit code {code}"
    return Condition("died", f"its process ended ({reason}); see its messages above")


def _work(folder: Path, attempt: int, stop: ctypes.c_bool, threads: int, environment: Mapping[str, str]) -> None:
    """Run a job in its worker, which ends with the main process."""
    orphaned: list[bool] = []
    begin_worker(threads, environment, lambda: orphaned.append(True))
    end_worker(work(JobFolder(folder), attempt, lambda: bool(orphaned) or stop.value))
