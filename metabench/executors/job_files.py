"""What the files of a job's folder say (`metabench.executors.job_folder`)."""

from __future__ import annotations

import os
import platform
import uuid
from typing import Literal

from pydantic import BaseModel, ConfigDict

from metabench.contracts import Limits
from metabench.records.record import Record
from metabench.records.values import Line, Text


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Submitted(_Part):
    """A job as others see it (``job.json``).

    Attributes:
        title: one line for people.
        cells: ids of its cells.
        executor: name of the executor.
        attempt: number of the latest attempt.
        outlives_driver: whether it goes on when the driver has ended.
        threads: threads that the worker computes in.
        limits: most time of its training and of each test.
    """

    title: Text
    cells: list[str]
    executor: Text
    attempt: int
    outlives_driver: bool = False
    threads: int = 1
    limits: Limits = Limits()


class Claim(_Part):
    """The worker that has a job.

    Attributes:
        host: name of its computer, and of the container whose processes it counts.
        pid: number of its process there.
        attempt: number of its attempt.
        nonce: a text of its own, by which it knows its claim.
    """

    host: Text
    pid: int
    attempt: int
    nonce: str

    @classmethod
    def of_this_process(cls, attempt: int) -> Claim:
        """Return a new claim of this process."""
        return cls(host=_this_host(), pid=os.getpid(), attempt=attempt, nonce=uuid.uuid4().hex)

    @property
    def is_here(self) -> bool:
        """Return whether its worker is a process of this computer."""
        return self.host == _this_host()

    @property
    def is_dead(self) -> bool:
        """Return whether its worker has surely ended: it was a process of this computer."""
        if not self.is_here:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False


class Progress(_Part):
    """What a worker does now.

    Attributes:
        cell: id of the cell that it trains for or tests; empty of a job without cells.
        stage: ``"training"`` or ``"test"``.
        phase: name of the phase, e.g. ``"validate"``; empty before the first one.
        phases: number of phases so far.
        total: steps or episodes of the phase.
        first: number of them done by an earlier run.
        done: number of them done.
        note: the current loss or accuracy.
        seconds: seconds since the stage began.
    """

    cell: str = ""
    stage: Literal["training", "test"] = "training"
    phase: Line = ""
    phases: int = 0
    total: int = 0
    first: int = 0
    done: int = 0
    note: Line = ""
    seconds: float = 0.0


class Ended(_Part):
    """How a worker ended.

    Attributes:
        how: all cells have a result, or the weights are there (``done``); the job without cells failed (``problem``);
            it was asked to stop (``interrupted``); another worker has the job (``taken``); a limit of time is over
            (``limit``); an error that must end the run (``error``); or an exception beyond the job's (``died``).
        message: the reason; empty where there is none.
        kind: class of the error, of `metabench.errors`.
        stage: stage whose limit is over.
        cell: cell whose limit is over.
        traceback: traceback of the job's problem.
    """

    how: Literal["done", "problem", "interrupted", "taken", "limit", "error", "died"]
    message: str = ""
    kind: str = ""
    stage: str = ""
    cell: str = ""
    traceback: str = ""


class Result(_Part):
    """The result of a cell (``results/CELL.ATTEMPT.json``); its files lie beside it.

    Attributes:
        record: its record, before looks are counted.
        traceback: traceback of an unexpected error; empty otherwise.
        has_episodes: whether there are per-episode results.
    """

    record: Record
    traceback: str = ""
    has_episodes: bool = False


def _this_host() -> str:
    """Return the name of this computer, with its namespace of processes: containers count processes of their own."""
    try:
        return f"{platform.node()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return platform.node()
