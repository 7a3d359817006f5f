"""Where the jobs of a run are run: the contract of an executor.

An executor (hook ``metabench_executors``) starts workers somewhere: processes of this computer, jobs of a cluster. The
driver (`metabench.executors.driver`) decides what runs: it hands out tickets, watches the handles that it gets for
them, tries a job again whose machine has died, and makes the records from the files of the job's folder. An executor
reads and writes none of these files: a worker does, started by `Ticket.command` or by
`metabench.executors.worker.work`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, Protocol

from pydantic import BaseModel, ConfigDict, PositiveInt

from metabench.planning.time_limits import Limits


class ExecutorConfig(BaseModel):
    """Options that every executor has; its own `Config` adds others.

    Attributes:
        jobs: most jobs at once (``--jobs``); None leaves it to the executor.
        threads: threads of a worker; None shares the threads of this computer among the jobs at once.
        memory_mb: memory that a job asks for, in MB; None asks for none.
        limits: longest training and test; of this limit and the suite's, the shorter one holds.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=True, allow_inf_nan=False)

    jobs: PositiveInt | None = None
    threads: PositiveInt | None = None
    memory_mb: PositiveInt | None = None
    limits: Limits = Limits()


@dataclass(frozen=True)
class Resources:
    """What a job needs.

    Attributes:
        gpus: number of GPUs, 0 or 1; the executor makes them visible (``CUDA_VISIBLE_DEVICES``), and the worker takes
            the first.
        threads: threads that its worker computes in.
        memory_mb: memory in MB; None where nobody has said.
        limits: most time of its training and of each test; the worker keeps them, and the driver cancels a job that
            does not.
    """

    gpus: int = 0
    threads: int = 1
    memory_mb: int | None = None
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Ticket:
    """A job to start.

    Attributes:
        folder: the folder of the job, an absolute path that the worker must see too.
        attempt: number of the attempt, from 1; each is submitted once.
        title: one line for people.
        resources: what the job needs.
    """

    folder: Path
    attempt: int
    title: str
    resources: Resources

    @property
    def command(self) -> list[str]:
        """Return the command that runs the job; it ends with exit code 0 where it has written how it ended."""
        safe = ["-P"] if sys.version_info >= (3, 11) else []  # a file in the current folder hides no module
        return [sys.executable, *safe, "-m", "metabench.executors.worker", str(self.folder), str(self.attempt)]


@dataclass(frozen=True)
class Condition:
    """How a submitted job is.

    Attributes:
        state: waiting in a queue; running; ended, with exit code 0; or died without that.
        reason: why it died, e.g. ``"its process was killed (signal 9)"``; empty otherwise.
        by_machine: whether the machine ended it (killed, lost, preempted), and not the job itself (an exit code, any
            other signal): only the former is tried again.
    """

    state: Literal["waiting", "running", "ended", "died"]
    reason: str = ""
    by_machine: bool = False


class Executor(Protocol):
    """A place where workers run; constructed with its options.

    A handle is a text in JSON by which the executor knows a job again. Its module does not import torch.

    Attributes:
        config: the options that it was constructed with.
        Config: its options, as a file of an executor gives them (``--executor FILE.yaml``).
        outlives_driver: whether jobs go on when the driver has ended. Handles of an earlier driver are then given to
            `alive` and `cancel` of a new executor, which adopts them.
    """

    config: ExecutorConfig
    Config: ClassVar[type[ExecutorConfig]] = ExecutorConfig
    outlives_driver: ClassVar[bool] = False

    def __init__(self, config: ExecutorConfig) -> None:
        """Keep the options.

        Raises:
            MetabenchError: the executor cannot be used here; the message says what to do.
        """

    def slots(self, needs: Resources) -> int | None:
        """Return how many jobs of these needs may be submitted at once; None: it queues them itself."""

    def submit(self, tickets: Sequence[Ticket]) -> Sequence[str]:
        """Start jobs, or queue them; return the handle of each.

        The driver passes all jobs that may start now, so that a cluster can take them as one array.

        Raises:
            MetabenchError: jobs cannot be started here; this ends the run.
        """

    def alive(self, handles: Sequence[str]) -> Mapping[str, Condition]:
        """Return the condition of jobs by handle, as surely known; of a handle that is left out, its heartbeat decides.

        A job that is said to run is not given up, however long its worker is silent.
        """

    def cancel(self, handles: Sequence[str]) -> None:
        """Ask jobs to stop: SIGTERM, then SIGKILL some seconds later; return at once.

        A worker writes a checkpoint at the former.
        """

    def wait(self, seconds: float) -> None:
        """Return after some seconds: earlier when a job has ended, later where looks at the jobs cost much."""
        time.sleep(seconds)

    def close(self) -> None:
        """End what has been started in this process; jobs that outlive the driver go on."""
