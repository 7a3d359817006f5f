"""Interpret a test episode of finished cells, from their kept weights."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from metabench.analysis.interpretation import Interpretation
from metabench.data.packing import DataRoots
from metabench.engine.interpretation import interpret
from metabench.engine.learner import computing, finished_learner
from metabench.engine.progress import Watcher
from metabench.errors import StoreError
from metabench.executors.loading import LoadedDataset, load_dataset
from metabench.executors.origin import training_origin
from metabench.planning.cells import Cell
from metabench.planning.fitting import datasets_of
from metabench.planning.plan import make_plan
from metabench.planning.suite_file import read_suite, resolve
from metabench.records.record import Record
from metabench.records.runs import Runs
from metabench.registry.manager import PluginManager
from metabench.text import shape_text

#: Most methods that are interpreted.
_METHODS = 12


@dataclass(frozen=True)
class Interpreting:
    """The interpretation of cells, as a job of a worker.

    Attributes:
        records: by output directory, the records of the cells.
        episode: number of the test episode.
    """

    records: Mapping[Path, Sequence[Record]]
    episode: int

    def run(self, watcher: Watcher) -> Iterator[list[Interpretation]]:
        """Load plugins, data and weights; yield the interpretations of all cells.

        Raises:
            StoreError: a cell is not in the suite of its run, or its weights are not kept.
            MetabenchError: data are missing, or a class cannot be loaded.
        """
        plugins, device = PluginManager.from_environment(), torch.device("cpu")
        found = []
        for directory, records in self.records.items():
            cells = _planned(directory, records, plugins)
            roots = DataRoots.from_environment(os.environ)
            datasets = {
                label: load_dataset(choice, plugins, roots, device, lambda done, total, name: None)
                for label, choice in datasets_of([cell for cell, _ in cells]).items()
            }
            watcher.phase("interpret", len(cells))
            for done, (cell, record) in enumerate(cells, 1):
                found += _interpreted(cell, record, directory, datasets, plugins, device, watcher, self.episode)
                watcher.advance(done)
        yield found


def cells_to_interpret(runs: Runs) -> dict[Path, list[Record]]:
    """Return the first seed of each method of the first task that has classes, by output directory."""
    suitable = [record for record in runs.records if record.status == "ok" and record.task == "classification"]
    suitable = [record for record in suitable if record.way and not record.floor]
    if not suitable:
        return {}
    first = min(_task(record) for record in suitable)
    methods: dict[str, Record] = {}
    for record in sorted(suitable, key=lambda record: (record.algorithm, record.seed)):
        if _task(record) == first:
            methods.setdefault(record.algorithm, record)
    chosen: dict[Path, list[Record]] = {}
    for record in list(methods.values())[:_METHODS]:
        chosen.setdefault(runs.directory(record), []).append(record)
    return chosen


def _task(record: Record) -> tuple[str, str, int, int]:
    return record.dataset, record.backbone, record.way, record.shot


def _planned(directory: Path, records: Sequence[Record], plugins: PluginManager) -> list[tuple[Cell, Record]]:
    """Return the cells of the records, as the suite of their run plans them.

    Raises:
        StoreError: there is no suite, or it lacks a cell.
    """
    path = directory / "suite.yaml"
    if not path.exists():
        raise StoreError(f"{path} is missing: --interpret needs the suite of the run")
    suite, file = resolve(read_suite(path))
    cells = {cell.id: cell for cell in make_plan(suite, file, plugins)}
    for record in records:
        if record.cell not in cells:
            raise StoreError(
                f"the suite {path} has no cell {record.cell} of {record.algorithm}: code or suite have changed since; "
                "run the suite again"
            )
    return [(cells[record.cell], record) for record in records]


def _interpreted(
    cell: Cell,
    record: Record,
    directory: Path,
    datasets: Mapping[str, LoadedDataset],
    plugins: PluginManager,
    device: torch.device,
    watcher: Watcher,
    episode: int,
) -> list[Interpretation]:
    """Return the interpretation of a cell; none of vectors, which are no images."""
    training = cell.training
    origin = training_origin(training, datasets[training.dataset.label].fingerprint, device, plugins)
    learner = finished_learner(training, datasets, device, plugins, directory, watcher, origin)
    with computing(training, device):
        ready = learner.ready(cell, watcher)
        temperature = record.temperature.value if record.temperature else None
        task = f"{record.dataset} · {shape_text(record.way, record.shot)} · {record.backbone}"
        found = interpret(cell, ready.algorithm, ready.splits, device, episode, temperature, record.algorithm, task)
    return [found] if found else []
