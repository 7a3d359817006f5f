"""Run the jobs of a plan; write each record as soon as its cell ends."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Protocol

import torch

from metabench.engine.progress import Watcher
from metabench.executors.job import Attempt, Problem, TrainingJob
from metabench.executors.loading import LoadedDataset
from metabench.executors.origin import code_of, machine_of
from metabench.executors.processes import Died, run_jobs
from metabench.machine.device import in_threads, share_of_threads
from metabench.machine.environment import environment
from metabench.planning.cells import Cell, Training
from metabench.planning.jobs import Job, make_jobs
from metabench.planning.suite import Suite
from metabench.records.record import EpisodeResults, Record
from metabench.records.store import Store
from metabench.records.trained import TrainingFiles
from metabench.registry.manager import PluginManager


class Reporter(Protocol):
    """Shows a run to the user."""

    def cell_started(self, cell: Cell, number: int, of: int) -> Watcher:
        """Called when a cell starts. Returns its progress watcher."""

    def training_started(self, training: Training) -> Watcher:
        """Called when a training without cells starts. Returns its progress watcher."""

    def training_done(self, training: Training, problem: str) -> None:
        """Called when a training without cells has ended.

        Args:
            training: the training.
            problem: why it has failed; empty if it has not.
        """

    def cell_done(self, record: Record, kept: bool) -> None:
        """Called when a cell has a record.

        Args:
            record: the record.
            kept: whether an earlier run made it.
        """


@dataclass(frozen=True)
class RunOptions:
    """How a run treats earlier files, and how many jobs run at once.

    Attributes:
        fresh: delete earlier checkpoints and weights first, and the record of a cell when it starts.
        jobs: how many jobs run at once, each in a worker with its share of the threads.
        keep_weights: whether the selected weights stay in the output directory.
        reselect: whether to train again where kept weights lack a selection.
    """

    fresh: bool = False
    jobs: int = 1
    keep_weights: bool = True
    reselect: bool = False


def run_cells(
    suite: Suite,
    plan: Sequence[Cell],
    cells: Sequence[Cell],
    fingerprints: Mapping[str, str],
    device: torch.device,
    plugins: PluginManager,
    store: Store,
    reporter: Reporter,
    kept: Mapping[str, Record],
    growing: Mapping[str, EpisodeResults],
    options: RunOptions,
    datasets: Mapping[str, LoadedDataset] | None = None,
    expected: Mapping[str, float] | None = None,
) -> list[Record]:
    """Run the cells without a kept record; return the records of all cells.

    Args:
        suite: the suite of the cells.
        plan: all cells of the suite.
        cells: the cells that are to have a record.
        fingerprints: fingerprints of the datasets, by label.
        device: the device that cells run on.
        plugins: the provider of the classes.
        store: the output directory.
        reporter: shows the progress.
        kept: the good records of earlier runs, by cell.
        growing: the results of earlier runs that need further episodes, by cell.
        options: see `RunOptions`.
        datasets: the loaded datasets, by label, to run one job after the other in this process; None runs workers.
        expected: expected seconds of each cell; of several jobs at once, the longest start first.

    Raises:
        Interrupted: the user asked to stop; finished cells are kept, and the checkpoints of unfinished trainings.
        StoreError: the output directory cannot be written.
        MetabenchError: a worker cannot load the plugins or the data.
    """
    records = dict(kept)
    waiting = [cell for cell in cells if cell.id not in kept]

    def has_weights(training: Training) -> bool:
        return not options.fresh and TrainingFiles(store.path, training.id).read() is not None

    jobs = make_jobs(plan, [cell for cell in waiting if not cell.problem], has_weights)
    at_once = 1 if datasets else max(1, min(options.jobs, len(jobs)))
    if at_once > 1:
        # The longest first ends at most a third later than the best order (Graham 1969).
        jobs.sort(key=lambda job: -sum((expected or {}).get(cell.id, 0.0) for cell in job.cells))
    with in_threads(share_of_threads(at_once)):
        machine, versions = machine_of(device, at_once), environment(device)

    def executable(job: Job) -> TrainingJob:
        return TrainingJob(
            training=job.training,
            cells=job.cells,
            selections=job.selections,
            suite=suite.name,
            profile=suite.profile,
            device=device,
            machine=machine,
            environment=versions,
            store=store,
            earlier={cell.id: growing[cell.id] for cell in job.cells if cell.id in growing},
            reselect=options.reselect,
        )

    def failed(job: TrainingJob, cell: Cell, problem: str) -> Attempt:
        fingerprint = fingerprints.get(cell.dataset.label, "")
        return Attempt(job.record(cell, code_of(cell, plugins), fingerprint=fingerprint, problem=problem))

    def note(cell: Cell, attempt: Attempt) -> None:
        record, outcome = attempt.record, attempt.outcome
        if attempt.traceback:
            store.write_text(store.traceback_name(record.cell), attempt.traceback)
        if outcome is not None:
            store.write(record, outcome.episodes, outcome.picture)
        elif not (cell.problem and store.has_results(record.cell)):
            # A cell that could not be tried, perhaps this time only, leaves its earlier results alone.
            store.write(record)
        plugins.cell_finished(store.path, record.model_dump())
        reporter.cell_done(record, kept=False)
        records[record.cell] = record

    queue = [executable(job) for job in jobs]
    numbers = {cell.id: number for number, cell in enumerate(cells, 1)}
    for job in queue if options.fresh else []:
        store.drop_weights(job.training.id, checkpoint=True)
    for cell in cells:
        if cell.id in kept:
            reporter.cell_done(kept[cell.id], kept=True)
    for cell in waiting:
        if cell.problem:
            reporter.cell_started(cell, numbers[cell.id], len(cells))
            note(cell, failed(executable(Job(cell.training, [cell], [])), cell, cell.problem))
    lines: dict[str, _JobLine] = {}

    def started(job: TrainingJob) -> Watcher:
        lines[job.key] = _JobLine(job, reporter, store if options.fresh else None, numbers)
        return lines[job.key]

    with closing(_results(queue, plugins, at_once, datasets, started)) as results:
        for job, result in results:
            line = lines[job.key]
            if isinstance(result, Attempt):
                note(line.cell, result)
                line.go_on()
            elif isinstance(result, Died):
                for cell in line.left:
                    note(cell, failed(job, cell, result.problem))
                    line.go_on()
            if not line.left:
                line.end(result)
                if not options.keep_weights:
                    _drop_weights(queue, lines, store)
    return [records[cell.id] for cell in cells]


@dataclass
class _JobLine:
    """The watcher of a job: shows the progress of its current cell."""

    job: TrainingJob
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
            self._watcher = self.reporter.training_started(self.job.training)

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
            self.reporter.training_done(self.job.training, problem)
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


def _drop_weights(queue: Sequence[TrainingJob], lines: Mapping[str, _JobLine], store: Store) -> None:
    """Delete the weights of ended jobs that no other job waits for."""
    unfinished = [job for job in queue if job.key not in lines or not lines[job.key].ended]
    needed = {key for job in unfinished for key in (job.key, *job.after)}
    for job in queue:
        if job.key not in needed:
            store.drop_weights(job.key)


def _results(
    queue: Sequence[TrainingJob],
    plugins: PluginManager,
    at_once: int,
    datasets: Mapping[str, LoadedDataset] | None,
    started: Callable[[TrainingJob], Watcher],
) -> Generator[tuple[TrainingJob, Attempt | Problem | Died | None], None, None]:
    """Yield the results of each job (`TrainingJob.run`) as they come: in workers, or in this process."""
    if datasets is None:
        threads = share_of_threads(at_once)
        yield from run_jobs(queue, at_once, threads, started, key=lambda job: job.key, after=lambda job: job.after)
        return
    for job in queue:
        watcher = started(job)
        for attempt in job.attempts(datasets, plugins, watcher):
            yield job, attempt
