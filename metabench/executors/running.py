"""A submitted job, as the driver sees it by the files of its folder."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from metabench.contracts import Cell, Job, Resources
from metabench.executors.events import CellDone
from metabench.executors.heartbeat import Observer
from metabench.executors.job_files import Claim, Result, Submitted
from metabench.executors.job_folder import JobFolder, left
from metabench.executors.job_line import JobLine
from metabench.executors.stages import grace
from metabench.planning.time_limits import Limits
from metabench.records.record import Record
from metabench.records.store import Store

#: Seconds in which a worker that has written how it ended is to have ended, and in which its files are to be seen.
_ENDING_SECONDS = 5.0


@dataclass
class Running:
    """A submitted job.

    Attributes:
        job: the job.
        folder: its folder.
        line: shows it.
        attempt: number of its attempt.
        handle: its handle; None where a worker of another driver has it.
        deaths: how often its machine has died.
        overdue: whether it was cancelled because it does not keep a limit.
        stage: its stage, and the cell of that.
    """

    job: Job
    folder: JobFolder
    line: JobLine
    attempt: int = 1
    handle: str | None = None
    deaths: int = 0
    overdue: bool = False
    stage: tuple[str, str] = ("", "")
    _submitted: int = 0
    _stage_since: float = 0.0
    _ended_at: float | None = None
    _limits: Limits = field(default_factory=Limits)
    _known: set[str] = field(default_factory=set)
    _given: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.observer = Observer(self.folder)

    @property
    def left(self) -> Sequence[Cell]:
        """Return the cells without a result."""
        return left(self.job, self._known)

    @property
    def was_given_all(self) -> bool:
        """Return whether its worker was given all cells that are left; that of an earlier run may have had fewer."""
        return all(cell.id in self._given for cell in self.left)

    def write(self, executor: str, outlives_driver: bool, needs: Resources) -> None:
        """Write the folder, with the cells that are left.

        Raises:
            OSError: it cannot be written.
        """
        job = self.job.with_cells(self.left) if self._known else self.job
        submitted = Submitted(
            title=job.title,
            cells=[cell.id for cell in job.cells],
            executor=executor,
            attempt=self.attempt,
            outlives_driver=outlives_driver,
            threads=needs.threads,
            limits=needs.limits,
        )
        self._limits, self._given = needs.limits, set(submitted.cells)
        self._submitted = max(self._submitted, self.attempt)
        self.folder.write_job(job, submitted)

    def go_on(self) -> None:
        """Go on where a process that had the job before has left it: attempts have numbers of their own."""
        submitted = self.folder.submitted()
        self.attempt = submitted.attempt + 1 if submitted else 1

    def adopt(self, submitted: Submitted, handle: str | None, claim: Claim | None) -> None:
        """Take up a job that an earlier driver has submitted; without handle, the worker that has it is watched."""
        self._limits, self._given, self.handle = submitted.limits, set(submitted.cells), handle
        self.attempt = claim.attempt if handle is None and claim is not None else submitted.attempt

    def follow(self) -> None:
        """Watch the worker that has the job instead: this driver's own was told that it is taken."""
        claim, self.handle = self.folder.claim(), None
        self.attempt = claim.attempt if claim else self.attempt + 1

    def news(self) -> Iterator[CellDone]:
        """Yield the results that have come; show the progress."""
        cells = {cell.id for cell in self.job.cells}
        for cell, name in self.folder.results().items():
            result = self.folder.result(name) if cell in cells and cell not in self._known else None
            if result is not None:
                self._known.add(cell)
                yield _cell_done(self.job, result, self.folder.files(name))
        progress = self.folder.progress()
        if progress is not None:
            self.line.follow(progress)
            if self.stage != (progress.stage, progress.cell):
                self.stage, self._stage_since = (progress.stage, progress.cell), time.monotonic()

    def lose(self, cell: Cell) -> None:
        """Note that a cell gets no result."""
        self._known.add(cell.id)

    def stays_too_long(self) -> bool:
        """Return whether its worker does not keep a limit, e.g. in code that holds Python's lock."""
        limit = self._limits.of(self.stage[0]) if self.stage[0] else None
        if limit is None or self.overdue or self.handle is None:
            return False
        return time.monotonic() - self._stage_since > limit + 2 * grace(limit) + _ENDING_SECONDS

    @property
    def limit_problem(self) -> str:
        """Return the reason of a stage that took longer than its limit."""
        return self._limits.problem(self.stage[0])

    def runs(self) -> None:
        """Note that there is no sign of its end, or no more: a job that was queued again has begun anew."""
        self._ended_at = None

    def is_ending(self) -> bool:
        """Return whether the other sign of its end is to be waited for: a file, or that the process has ended."""
        self._ended_at = self._ended_at or time.monotonic()
        return time.monotonic() - self._ended_at < _ENDING_SECONDS

    def renew(self) -> None:
        """Make ready for another attempt."""
        self.folder.renew()
        self.attempt = max(self.attempt, self._submitted) + 1  # that of a worker which it followed may be lower
        self.handle, self.overdue, self._ended_at, self.stage = None, False, None, ("", "")
        self.observer = Observer(self.folder)


def _cell_done(job: Job, result: Result, files: Mapping[str, Path]) -> CellDone:
    def write(store: Store, record: Record) -> None:
        store.take(record, files)

    return CellDone(job, result.record, result.has_episodes, result.traceback, write)
