"""Runs the cells of a plan, and keeps a record of each as soon as it is there."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal, Protocol

import torch

from metabench.api import Progress, Split
from metabench.data.packing import DataRoots, load_splits
from metabench.data.sampler import EpisodeShape
from metabench.engine.cell import Outcome, check, run_cell
from metabench.engine.checkpoints import shapes_of
from metabench.engine.progress import Interrupted, Watcher
from metabench.errors import CellFailed, StoreError
from metabench.executors.processes import Died, run_jobs
from metabench.executors.schedule import starting_order
from metabench.machine.device import choose_device, device_name, in_threads, share_of_threads
from metabench.machine.environment import environment
from metabench.planning.plan import Cell, check_cell, sharing_a_training
from metabench.planning.suite import Suite
from metabench.records.record import Machine, Record
from metabench.records.store import Store
from metabench.registry.manager import PluginManager


@dataclass(frozen=True)
class LoadedDataset:
    """The splits of a dataset, and the hash of its content."""

    splits: Mapping[str, Split]
    fingerprint: str


#: The record of a cell, and what it is made from unless the cell failed.
Attempt = tuple[Record, Outcome | None]


class Reporter(Protocol):
    """Sees a whole run."""

    def cell_started(self, cell: Cell, number: int, of: int) -> Watcher:
        """Be told that a cell begins; return who watches it."""

    def cell_done(self, record: Record, kept: bool) -> None:
        """Be told that a cell has a record; `kept` says that it was there from an earlier run."""


def load_datasets(
    cells: Sequence[Cell],
    plugins: PluginManager,
    roots: DataRoots,
    progress: Callable[[], AbstractContextManager[Progress]],
) -> dict[str, LoadedDataset]:
    """Load the datasets of the cells, packing them first where need be, and check that the cells fit them.

    Args:
        cells: what is going to be run.
        plugins: who provides the classes.
        roots: where data is looked for, and packs are kept.
        progress: opens what is told of the packing of one dataset.

    Returns:
        The datasets by their label.

    Raises:
        DataError: a dataset cannot be had.
        SuiteError: a cell asks for more classes or images than there are, or its algorithm refuses it.
    """
    datasets: dict[str, LoadedDataset] = {}
    for cell in cells:
        choice = cell.dataset
        if choice.label not in datasets:
            dataset = plugins.build_dataset(choice.name, choice.params)
            with progress() as told:
                datasets[choice.label] = LoadedDataset(*load_splits(choice.name, dataset, roots, told))
        splits = datasets[choice.label].splits
        check_cell(cell, {name: split.size for name, split in splits.items()})
        check(cell, splits, plugins)
    return datasets


def run_cells(
    suite: Suite,
    cells: Sequence[Cell],
    datasets: Mapping[str, LoadedDataset],
    device: torch.device,
    plugins: PluginManager,
    store: Store,
    reporter: Reporter,
    fresh: bool = False,
    jobs: int = 1,
    expected: Mapping[str, float] | None = None,
) -> list[Record]:
    """Run the cells that have no good record of this device, data and software yet; return all records.

    Args:
        suite: where the cells are from.
        cells: to run.
        datasets: by label.
        device: where everything runs.
        plugins: who provides the classes.
        store: where records go.
        reporter: sees the progress.
        fresh: run the cells that have one, too; the old record goes when its cell starts.
        jobs: how many cells run at once; more than one run in processes of their own, on their share of the threads.
        expected: seconds by the identity of the cell; several at once start in the order in which none is left to run
            alone for long.

    Raises:
        Interrupted: the user asked to stop; finished cells are kept, and the checkpoints of those under way.
        StoreError: the output directory cannot be written.
        MetabenchError: a process of its own cannot load what this one could.
    """
    records: dict[str, Record] = {}
    waiting: list[CellJob] = []
    for number, cell in enumerate(cells, 1):
        here = origin(cell, datasets[cell.dataset.label], device, plugins)
        earlier = None if fresh else store.record(cell.id)
        if earlier is not None and is_valid(earlier, here) and store.is_complete(earlier):
            reporter.cell_done(earlier, kept=True)
            records[cell.id] = earlier
        else:
            waiting.append(CellJob(suite, cell, device, store, number, len(cells)))
    trainings = sharing_a_training(cells)
    sharing = sharing_a_training([job.cell for job in waiting])
    jobs = max(1, min(jobs, len(sharing)))
    waiting = [
        replace(job, jobs=jobs, shapes=[cell.shape for cell in sharing[job.cell.training_id]]) for job in waiting
    ]
    waiting = _in_starting_order(waiting, sharing, expected or {}, jobs)
    for job in waiting if fresh else []:
        for name in (job.cell.id, job.cell.training_id):
            store.drop_checkpoint(name)

    def drop_checkpoints(cell: Cell) -> None:
        """Drop what a finished cell does not need, nor any cell that waits in this run or was cut in an earlier one."""
        here = origin(cell, datasets[cell.dataset.label], device, plugins)
        names = [cell.id] if sharing.get(cell.training_id) else [cell.id, cell.training_id]
        of_this_run = {other.shape for other in trainings[cell.training_id]}
        for name in names:
            shapes = shapes_of(store.checkpoint(name), here)
            if shapes is not None and of_this_run.issuperset(shapes):
                store.drop_checkpoint(name)

    def started(job: CellJob) -> Watcher:
        if fresh:
            store.forget(job.cell.id)
        return reporter.cell_started(job.cell, job.number, job.of)

    for cell in cells:
        if cell.id in records:
            drop_checkpoints(cell)
    with closing(_attempts(waiting, datasets, plugins, jobs, started)) as attempts:
        for job, (record, outcome) in attempts:
            if outcome is None:
                store.write(record)
            else:
                store.write(record, outcome.episodes, outcome.picture)
            sharing[job.cell.training_id].remove(job.cell)
            plugins.cell_finished(store.path, record.model_dump())
            reporter.cell_done(record, kept=False)
            records[job.cell.id] = record
            drop_checkpoints(job.cell)
    return [records[cell.id] for cell in cells]


@dataclass(frozen=True)
class CellJob:
    """A cell that is to be run, here or (`metabench.executors.processes.Job`) in a process of its own."""

    suite: Suite
    cell: Cell
    device: torch.device
    store: Store
    number: int
    of: int
    jobs: int = 1
    shapes: Sequence[EpisodeShape] = ()

    def run(self, watcher: Watcher) -> Attempt:
        """Run the cell in a process that has to load plugins and data first."""
        plugins = PluginManager.from_environment()
        choice = self.cell.dataset
        dataset = plugins.build_dataset(choice.name, choice.params)
        roots = DataRoots.from_environment(os.environ)
        data = LoadedDataset(*load_splits(choice.name, dataset, roots, lambda done, total, what: None))
        choose_device(self.device.type)  # gets this process ready for it
        return self.attempt(data, plugins, watcher)

    def attempt(self, data: LoadedDataset, plugins: PluginManager, watcher: Watcher) -> Attempt:
        """Run the cell; whatever goes wrong inside it becomes a failed record."""
        # Before anything else, since a class in a file may be edited meanwhile.
        here = origin(self.cell, data, self.device, plugins)
        provided = providers(self.cell, plugins)
        try:
            checkpoint, shapes = self._checkpoint(here)
            outcome = run_cell(self.cell, data.splits, self.device, plugins, checkpoint, watcher, here, shapes)
            return self.record(data, provided, outcome=outcome), outcome
        except (StoreError, Interrupted):
            raise
        except CellFailed as error:
            problem = str(error)
        except Exception as error:  # a plugin may raise anything; the other cells must go on
            log = f"cells/{self.cell.id}.traceback.txt"
            self.store.write_text(log, traceback.format_exc())
            problem = f"{type(error).__name__}: {error} (see {log})"
        return self.record(data, provided, problem=problem), None

    def _checkpoint(self, here: Mapping[str, str]) -> tuple[Path, Sequence[EpisodeShape]]:
        """Return the checkpoint to go on from or to begin, and the shapes of the test episodes of who will use it.

        That is the one of the training, unless an earlier run with other cells has left it without the weights for this
        one. It is not overwritten, but waits for those.
        """
        own, shared = self.store.checkpoint(self.cell.id), self.store.checkpoint(self.cell.training_id)
        of_others = self.cell.shape not in (shapes_of(shared, here) or self.shapes)
        return (own, [self.cell.shape]) if of_others or os.path.exists(own) else (shared, self.shapes)

    def record(
        self,
        data: LoadedDataset,
        provided: Mapping[str, str],
        outcome: Outcome | None = None,
        problem: str | None = None,
    ) -> Record:
        """Return the record of the cell: what came out, or what the problem was."""
        cell = self.cell
        machine = machine_of(self.device, self.jobs)
        return Record(
            cell=cell.id,
            suite=self.suite.name,
            profile=self.suite.profile,
            algorithm=cell.algorithm.label,
            dataset=cell.dataset.label,
            backbone=cell.backbone.label,
            way=cell.shape.way,
            shot=cell.shape.shot,
            queries=cell.shape.queries,
            seed=cell.seed,
            identity=cell.identity,
            status="failed" if outcome is None else "ok",
            error=problem,
            accuracy=outcome.accuracy if outcome else None,
            inductive_accuracy=outcome.inductive_accuracy if outcome else None,
            transductive=outcome.transductive if outcome else None,
            worst_classes=outcome.worst_classes if outcome else [],
            remarks=outcome.remarks if outcome else [],
            train=outcome.train if outcome else None,
            eval=outcome.eval if outcome else None,
            flops_per_episode=outcome.flops_per_episode if outcome else None,
            peak_memory_bytes=outcome.peak_memory_bytes if outcome else None,
            parameters=outcome.parameters if outcome else None,
            device=str(machine),
            machine=machine,
            dataset_fingerprint=data.fingerprint,
            environment={**environment(self.device), "providers": dict(provided)},
            finished=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )


def _in_starting_order(
    waiting: Sequence[CellJob], sharing: Mapping[str, Sequence[Cell]], expected: Mapping[str, float], at_once: int
) -> list[CellJob]:
    """Return the jobs in the order in which they should start; those that share a training follow one another."""
    trainings = list(sharing)
    if at_once > 1 and expected:
        seconds = [sum(expected.get(cell.id, 0.0) for cell in sharing[training]) for training in trainings]
        trainings = [trainings[i] for i in starting_order(seconds, at_once)]
    return sorted(waiting, key=lambda job: trainings.index(job.cell.training_id))


def _attempts(
    waiting: Sequence[CellJob],
    datasets: Mapping[str, LoadedDataset],
    plugins: PluginManager,
    at_once: int,
    started: Callable[[CellJob], Watcher],
) -> Generator[tuple[CellJob, Attempt], None, None]:
    """Yield each cell with what came of it: one after the other in this process, or several at once."""
    if at_once == 1:
        for job in waiting:
            yield job, job.attempt(datasets[job.cell.dataset.label], plugins, started(job))
        return
    for job, came in run_jobs(waiting, at_once, share_of_threads(at_once), started, lambda job: job.cell.training_id):
        if isinstance(came, Died):
            with in_threads(share_of_threads(at_once)):  # as the process had it
                provided = providers(job.cell, plugins)
                yield job, (job.record(datasets[job.cell.dataset.label], provided, problem=came.problem), None)
        else:
            yield job, came


def machine_of(device: torch.device, cells_at_once: int) -> Machine:
    """Return the machine, with the share of it that one of several cells at once has."""
    threads = torch.get_num_threads() if device.type == "cpu" else None
    kind: Literal["cpu", "cuda"] = "cuda" if device.type == "cuda" else "cpu"
    return Machine(kind=kind, name=device_name(device), threads=threads, cells_at_once=cells_at_once)


def providers(cell: Cell, plugins: PluginManager) -> dict[str, str]:
    """Return which distribution, and which version, provides each part of a cell."""
    names = {"algorithm": cell.algorithm.name, "dataset": cell.dataset.name, "backbone": cell.backbone.name}
    return {kind: plugins.provider(kind, name) for kind, name in names.items()}


def origin(cell: Cell, data: LoadedDataset, device: torch.device, plugins: PluginManager) -> dict[str, str]:
    """Return what the figures of a cell depend on beside its identity: device, data and software."""
    return {
        "device": device.type,
        "dataset_fingerprint": data.fingerprint,
        "torch": str(torch.__version__),
        **providers(cell, plugins),
    }


def is_valid(record: Record, here: Mapping[str, str]) -> bool:
    """Return whether a record is good, and of this origin."""
    there = {
        "device": "cuda" if record.environment.get("cuda") else "cpu",
        "dataset_fingerprint": record.dataset_fingerprint,
        "torch": record.environment.get("torch"),
        **record.environment.get("providers", {}),
    }
    return record.status == "ok" and there == dict(here)
