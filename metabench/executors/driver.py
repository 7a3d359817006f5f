"""Run the cells of a plan; write each record as soon as its cell ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from typing import Protocol

import torch

from metabench.engine.checkpoints import shapes_of
from metabench.engine.progress import Watcher
from metabench.executors.job import Attempt, CellJob
from metabench.executors.loading import LoadedDataset
from metabench.executors.origin import code_of, machine_of, origin_of
from metabench.executors.processes import Died, run_jobs
from metabench.machine.device import in_threads, share_of_threads
from metabench.machine.environment import environment
from metabench.planning.plan import Cell, sharing_a_training
from metabench.planning.suite import Suite
from metabench.records.record import Record
from metabench.records.store import Store
from metabench.registry.manager import PluginManager


class Reporter(Protocol):
    """Shows a run to the user."""

    def cell_started(self, cell: Cell, number: int, of: int) -> Watcher:
        """Called when a cell starts. Returns its progress watcher."""

    def cell_done(self, record: Record, kept: bool) -> None:
        """Called when a cell has a record.

        Args:
            record: the record.
            kept: whether an earlier run made it.
        """


def run_cells(
    suite: Suite,
    cells: Sequence[Cell],
    fingerprints: Mapping[str, str],
    device: torch.device,
    plugins: PluginManager,
    store: Store,
    reporter: Reporter,
    kept: Mapping[str, Record],
    fresh: bool = False,
    jobs: int = 1,
    datasets: Mapping[str, LoadedDataset] | None = None,
    expected: Mapping[str, float] | None = None,
) -> list[Record]:
    """Run the cells without a kept record; return the records of all cells.

    Args:
        suite: the suite of the cells.
        cells: the cells that are to have a record.
        fingerprints: fingerprints of the datasets, by label.
        device: the device that cells run on.
        plugins: the provider of the classes.
        store: the output directory.
        reporter: shows the progress.
        kept: the good records of earlier runs, by cell.
        fresh: delete earlier checkpoints first, and the record of a cell when it starts.
        jobs: how many cells run at once, each in a worker with its share of the threads.
        datasets: the loaded datasets, by label, to run one cell after the other in this process; None runs workers.
        expected: expected seconds of each cell; of several cells at once, the longest trainings start first.

    Raises:
        Interrupted: the user asked to stop; finished cells are kept, and the checkpoints of unfinished ones.
        StoreError: the output directory cannot be written.
        MetabenchError: a worker cannot load the plugins or the data.
    """
    records = dict(kept)
    trainings = sharing_a_training(cells)
    waiting = sharing_a_training(cell for cell in cells if cell.id not in kept)
    jobs = 1 if datasets else max(1, min(jobs, len(waiting)))
    queue = _jobs(suite, cells, waiting, device, store, jobs, expected or {})
    unfinished = Counter({training: len(sharing) for training, sharing in waiting.items()})
    # Only checkpoints of earlier runs may hold shapes of other cells; checkpoints of this run need not be read.
    earlier = set() if fresh else store.checkpoints()

    def drop_checkpoints(cell: Cell) -> None:
        """Delete a finished cell's checkpoints unless a queued or interrupted cell will resume from them."""
        of_this_run = {other.shape for other in trainings[cell.training_id]}
        for name in [cell.id] if unfinished[cell.training_id] else [cell.id, cell.training_id]:
            if name in earlier:
                origin = origin_of(fingerprints.get(cell.dataset.label, ""), device, code_of(cell, plugins))
                shapes = shapes_of(store.checkpoint(name), origin)
                if shapes is None or not of_this_run.issuperset(shapes):
                    continue
            store.drop_checkpoint(name)

    def started(job: CellJob) -> Watcher:
        if fresh and not job.cell.problem:
            store.forget(job.cell.id)
        return reporter.cell_started(job.cell, job.number, job.of)

    for job in queue if fresh else []:
        for name in (job.cell.id, job.cell.training_id):
            store.drop_checkpoint(name)
    for cell in cells:
        if cell.id in kept:
            reporter.cell_done(kept[cell.id], kept=True)
            drop_checkpoints(cell)
    with closing(_attempts(queue, fingerprints, plugins, jobs, datasets, started)) as attempts:
        for job, attempt in attempts:
            record, outcome = attempt.record, attempt.outcome
            if attempt.traceback:
                store.write_text(store.traceback_name(record.cell), attempt.traceback)
            if outcome is not None:
                store.write(record, outcome.episodes, outcome.picture, outcome.outputs)
            elif not (job.cell.problem and store.has_results(record.cell)):
                # A cell that could not be tried, perhaps this time only, leaves its earlier results alone.
                store.write(record)
            unfinished[job.cell.training_id] -= 1
            plugins.cell_finished(store.path, record.model_dump())
            reporter.cell_done(record, kept=False)
            records[record.cell] = record
            if not attempt.died:
                drop_checkpoints(job.cell)
    return [records[cell.id] for cell in cells]


def _jobs(
    suite: Suite,
    cells: Sequence[Cell],
    waiting: Mapping[str, Sequence[Cell]],
    device: torch.device,
    store: Store,
    jobs: int,
    expected: Mapping[str, float],
) -> list[CellJob]:
    """Return the jobs in starting order; cells that share a training follow one another."""
    number = {cell.id: number for number, cell in enumerate(cells, 1)}
    trainings = list(waiting)
    if jobs > 1:
        # The longest first ends at most a third later than the best order (Graham 1969).
        trainings.sort(key=lambda training: -sum(expected.get(cell.id, 0.0) for cell in waiting[training]))
    with in_threads(share_of_threads(jobs)):
        machine, versions = machine_of(device, jobs), environment(device)
    return [
        CellJob(
            cell=cell,
            number=number[cell.id],
            of=len(cells),
            suite=suite.name,
            profile=suite.profile,
            device=device,
            machine=machine,
            environment=versions,
            store=store,
            shapes=[other.shape for other in waiting[training]],
        )
        for training in trainings
        for cell in waiting[training]
    ]


def _attempts(
    queue: Sequence[CellJob],
    fingerprints: Mapping[str, str],
    plugins: PluginManager,
    at_once: int,
    datasets: Mapping[str, LoadedDataset] | None,
    started: Callable[[CellJob], Watcher],
) -> Generator[tuple[CellJob, Attempt], None, None]:
    """Yield each job with its attempt: first the cells that cannot run, then the others in workers or this process."""

    def died(job: CellJob, problem: str) -> Attempt:
        fingerprint = fingerprints.get(job.cell.dataset.label, "")
        return Attempt(job.record(code_of(job.cell, plugins), fingerprint, problem=problem), died=True)

    for job in queue:
        if job.cell.problem:
            started(job)
            yield job, died(job, job.cell.problem)
    queue = [job for job in queue if not job.cell.problem]
    if datasets is not None:
        for job in queue:
            yield job, job.attempt(datasets[job.cell.dataset.label], plugins, started(job))
        return
    threads = share_of_threads(at_once)
    for job, result in run_jobs(queue, at_once, threads, started, lambda job: job.cell.training_id):
        if isinstance(result, Died):
            yield job, died(job, result.problem)
        else:
            yield job, result
