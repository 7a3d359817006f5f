"""What becomes of the jobs of a run and of their cells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from metabench.contracts import Cell, Job
from metabench.records.record import Record
from metabench.records.store import Store
from metabench.text import counted


@dataclass(frozen=True)
class CellDone:
    """A cell has a result.

    Attributes:
        job: its job.
        record: its record, before looks are counted.
        tested: whether it was tested.
        traceback: traceback of an unexpected error; empty otherwise.
        write: writes a record with the other results into a store.
    """

    job: Job
    record: Record
    tested: bool
    traceback: str
    write: Callable[[Store, Record], None]


@dataclass(frozen=True)
class CellLost:
    """A cell has no result: its job died, or a limit is over."""

    job: Job
    cell: Cell
    problem: str


@dataclass(frozen=True)
class JobDone:
    """A job has ended; all its cells were announced before.

    Attributes:
        job: the job.
        problem: why it failed, of a job without cells; empty if it did not.
        traceback: traceback of an unexpected error of a job without cells; empty otherwise.
    """

    job: Job
    problem: str = ""
    traceback: str = ""


@dataclass(frozen=True)
class CellElsewhere:
    """Another process that shares the output directory has made the record of a cell.

    Attributes:
        record: the record.
    """

    record: Record


Event = CellDone | CellLost | CellElsewhere | JobDone


class Detached(Exception):
    """The jobs go on without this process (``--detach``).

    Args:
        submitted: number of jobs that are queued or run.
        waiting: number of jobs that wait for others, and are not submitted yet.
    """

    def __init__(self, submitted: int, waiting: int) -> None:
        super().__init__(submitted, waiting)
        self.submitted, self.waiting = submitted, waiting

    def report(self, output: Path) -> str:
        """Return what goes on, and what to do next, for people."""
        lines = [
            f"{counted(self.submitted, 'job')} submitted: `metabench status {output}` shows them, "
            f"`metabench cancel {output}` ends them.",
            "Run the same command again to make the records of those that have ended.",
        ]
        if self.waiting:
            lines.append(f"It then submits {counted(self.waiting, 'job')} that needs weights of others, too.")
        return "\n".join(lines)
