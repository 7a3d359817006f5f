"""Run the jobs of a run; write each record as soon as its cell ends."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Protocol

from metabench.contracts import Attempt, Cell, Job, Problem, RunOptions, Work
from metabench.engine.progress import Watcher
from metabench.executors.processes import Died, run_jobs
from metabench.machine.device import share_of_threads
from metabench.records.record import Record
from metabench.records.store import Store
from metabench.registry.manager import PluginManager


class Reporter(Protocol):
    """Shows a run to the user."""

    def cell_started(self, cell: Cell, number: int, of: int) -> Watcher:
        """Called when a cell starts. Returns its progress watcher."""

    def job_started(self, job: Job) -> Watcher:
        """Called when a job without cells starts. Returns its progress watcher."""

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


def run_work(work: Work, plugins: PluginManager, store: Store, reporter: Reporter, options: RunOptions) -> list[Record]:
    """Run the cells without a kept record; return the records of all cells.

    Args:
        work: the cells, the kept records and the jobs.
        plugins: told of each finished cell.
        store: the output directory.
        reporter: shows the progress.
        options: see `RunOptions`.

    Raises:
        Interrupted: the user asked to stop; finished cells are kept, and the checkpoints of unfinished jobs.
        StoreError: the output directory cannot be written.
        MetabenchError: a worker cannot load the plugins or the data.
    """
    cells, records = work.cells, dict(work.kept)
    queue = work.jobs()

    def note(cell: Cell, attempt: Attempt) -> None:
        record = attempt.record if attempt.episodes is None else store.count_look(attempt.record)
        if attempt.traceback:
            store.write_text(store.traceback_name(record.cell), attempt.traceback)
        # A cell that could not be tried, perhaps this time only, leaves its earlier results alone.
        if attempt.episodes is not None or not (cell.problem and store.has_results(record.cell)):
            store.write(record, attempt.episodes, attempt.picture)
        plugins.cell_finished(store.path, record.model_dump())
        reporter.cell_done(record, kept=False)
        records[record.cell] = record

    numbers = {cell.id: number for number, cell in enumerate(cells, 1)}
    for job in queue if options.fresh else []:
        store.drop_weights(job.key, checkpoint=True)
    for cell in cells:
        if cell.id in work.kept:
            reporter.cell_done(work.kept[cell.id], kept=True)
        elif cell.problem:
            reporter.cell_started(cell, numbers[cell.id], len(cells))
            note(cell, Attempt(work.failed(cell, cell.problem)))
    lines: dict[str, _JobLine] = {}

    def started(job: Job) -> Watcher:
        lines[job.key] = _JobLine(job, reporter, store if options.fresh else None, numbers)
        return lines[job.key]

    with closing(_results(queue, options, started)) as results:
        for job, result in results:
            line = lines[job.key]
            if isinstance(result, Attempt):
                note(line.cell, result)
                line.go_on()
            elif isinstance(result, Died):
                for cell in line.left:
                    note(cell, Attempt(work.failed(cell, result.problem)))
                    line.go_on()
            if not line.left:
                line.end(result)
                if not options.keep_weights:
                    _drop_weights(queue, lines, store)
    return [records[cell.id] for cell in cells]


@dataclass
class _JobLine:
    """The watcher of a job: shows the progress of its current cell."""

    job: Job
    reporter: Reporter
    forgetting: Store | None
    numbers: Mapping[str, int]
    done: int = 0
    ended: bool = False
    _watcher: Watcher = field(init=False)

    def __post_init__(self) -> None:
        if self.job.cells:
            self._start()
        else:
            self._watcher = self.reporter.job_started(self.job)

    @property
    def left(self) -> Sequence[Cell]:
        """Return the cells without a record."""
        return self.job.cells[self.done :]

    @property
    def cell(self) -> Cell:
        """Return the current cell."""
        return self.job.cells[self.done]

    def go_on(self) -> None:
        """Go on to the next cell."""
        self.done += 1
        if self.left:
            self._start()

    def end(self, result: Attempt | Problem | Died | None) -> None:
        """Note that the job has ended, with its last result."""
        if not self.job.cells:
            problem = result.problem if isinstance(result, (Problem, Died)) else ""
            self.reporter.job_done(self.job, problem)
        self.ended = True

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """See `metabench.engine.progress.Watcher`."""
        self._watcher.phase(name, total, done)

    def advance(self, done: int, note: str = "") -> None:
        """See `metabench.engine.progress.Watcher`."""
        self._watcher.advance(done, note)

    def should_stop(self) -> bool:
        """See `metabench.engine.progress.Watcher`."""
        return self._watcher.should_stop()

    def _start(self) -> None:
        if self.forgetting is not None:
            self.forgetting.forget(self.cell.id)
        self._watcher = self.reporter.cell_started(self.cell, self.numbers[self.cell.id], len(self.numbers))


def _drop_weights(queue: Sequence[Job], lines: Mapping[str, _JobLine], store: Store) -> None:
    """Delete the weights of ended jobs that no other job waits for."""
    unfinished = [job for job in queue if job.key not in lines or not lines[job.key].ended]
    needed = {key for job in unfinished for key in (job.key, *job.after)}
    for job in queue:
        if job.key not in needed:
            store.drop_weights(job.key)


def _results(
    queue: Sequence[Job], options: RunOptions, started: Callable[[Job], Watcher]
) -> Generator[tuple[Job, Attempt | Problem | Died | None], None, None]:
    """Yield the results of each job as they come: in workers, or in this process."""
    if not options.in_process:
        at_once = max(1, min(options.jobs, len(queue)))
        threads = share_of_threads(at_once)
        yield from run_jobs(queue, at_once, threads, started, key=lambda job: job.key, after=lambda job: job.after)
        return
    for job in queue:
        for result in job.run(started(job)):
            yield job, result
