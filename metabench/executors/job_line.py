"""Show a running job by the lines of its cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from metabench.contracts import Cell, Job
from metabench.engine.progress import Watcher
from metabench.executors.job_files import Progress
from metabench.records.record import Record
from metabench.records.store import Store


class Reporter(Protocol):
    """Shows a run to the user."""

    def cell_started(self, cell: Cell, number: int, of: int) -> Watcher:
        """Called when a cell starts. Returns its progress watcher."""

    def job_started(self, job: Job) -> Watcher:
        """Called when a job without cells starts. Returns its progress watcher."""

    def job_retried(self, job: Job, reason: str) -> None:
        """Called when a job is tried again, because its machine has died."""

    def job_done(self, job: Job, problem: str) -> None:
        """Called when a job without cells has ended.

        Args:
            job: the job.
            problem: why it has failed; empty if it has not.
        """

    def cell_done(self, record: Record, kept: bool) -> None:
        """Called when a cell has a record.

        Args:
            record: the record.
            kept: whether an earlier run made it.
        """


@dataclass
class JobLine:
    """The watcher of a job: shows the progress of its current cell.

    Attributes:
        job: the job.
        reporter: shows it.
        forgetting: the output directory, if the earlier record of a cell is to be deleted when the cell starts.
        numbers: the numbers of the run's cells.
        ended: whether the job has ended.
    """

    job: Job
    reporter: Reporter
    forgetting: Store | None
    numbers: Mapping[str, int]
    ended: bool = False
    _finished: set[str] = field(default_factory=set)
    _followed: tuple[str, int, str] = ("", 0, "")
    _watcher: Watcher = field(init=False)

    def __post_init__(self) -> None:
        if self.job.cells:
            self._start(self.job.cells[0])
        else:
            self._watcher = self.reporter.job_started(self.job)

    @property
    def left(self) -> Sequence[Cell]:
        """Return the cells without a record."""
        return [cell for cell in self.job.cells if cell.id not in self._finished]

    def finish(self, cell: str) -> None:
        """Note that a cell has a record; go on to the next one."""
        current = self.left[:1]
        self._finished.add(cell)
        if self.left[:1] not in ([], current):
            self._start(self.left[0])

    def end(self, problem: str) -> None:
        """Note that the job has ended; of a job without cells, why it failed."""
        if not self.job.cells:
            self.reporter.job_done(self.job, problem)
        self.ended = True

    def follow(self, progress: Progress) -> None:
        """Show the progress that a worker has written."""
        if not progress.phase or progress.cell in self._finished:
            return
        phase = (progress.cell, progress.phases, progress.phase)
        if phase != self._followed:
            self._followed = phase
            self.phase(progress.phase, progress.total, progress.first)
        self.advance(progress.done, progress.note)

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """See `metabench.engine.progress.Watcher`."""
        self._watcher.phase(name, total, done)

    def advance(self, done: int, note: str = "") -> None:
        """See `metabench.engine.progress.Watcher`."""
        self._watcher.advance(done, note)

    def should_stop(self) -> bool:
        """See `metabench.engine.progress.Watcher`."""
        return self._watcher.should_stop()

    def _start(self, cell: Cell) -> None:
        if self.forgetting is not None:
            self.forgetting.forget(cell.id)
        self._watcher = self.reporter.cell_started(cell, self.numbers[cell.id], len(self.numbers))
