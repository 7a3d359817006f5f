"""Runs the cells of a plan in this process, and keeps a record of each as soon as it is there."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Protocol

import torch

from metabench.api import Progress, Split
from metabench.data import DataRoots, load_splits
from metabench.engine import Outcome, check, run_cell
from metabench.errors import CellFailed, StoreError
from metabench.measure import describe_device, environment
from metabench.plan import Cell, check_cell
from metabench.plugins import PluginManager
from metabench.record import Record
from metabench.store import Store
from metabench.suite import Suite
from metabench.watching import Interrupted, Watcher


@dataclass(frozen=True)
class LoadedDataset:
    """The splits of a dataset, and the hash of its content."""

    splits: Mapping[str, Split]
    fingerprint: str


class Reporter(Watcher, Protocol):
    """Sees a whole run."""

    def cell_started(self, cell: Cell, number: int, of: int) -> None:
        """Be told that a cell begins."""

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

    Raises:
        Interrupted: the user asked to stop; finished cells are kept, and the current one's checkpoint.
        StoreError: the output directory cannot be written.
    """
    records = []
    for number, cell in enumerate(cells, 1):
        data = datasets[cell.dataset.label]
        here = origin(cell, data, device, plugins)
        if fresh:
            store.forget(cell.id)
        earlier = store.record(cell.id)
        if earlier is not None and is_valid(earlier, here) and store.is_complete(earlier):
            reporter.cell_done(earlier, kept=True)
            records.append(earlier)
            continue
        reporter.cell_started(cell, number, len(cells))
        record, outcome = _attempt(suite, cell, data, here, device, plugins, store, reporter)
        if outcome is None:
            store.write(record)
        else:
            store.write(record, outcome.episodes, outcome.picture)
        plugins.cell_finished(store.path, record.model_dump())
        reporter.cell_done(record, kept=False)
        records.append(record)
    return records


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


def _attempt(
    suite: Suite,
    cell: Cell,
    data: LoadedDataset,
    here: Mapping[str, str],
    device: torch.device,
    plugins: PluginManager,
    store: Store,
    reporter: Reporter,
) -> tuple[Record, Outcome | None]:
    """Run one cell; whatever goes wrong inside it becomes a failed record."""
    outcome: Outcome | None = None
    problem: str | None = None
    try:
        outcome = run_cell(cell, data.splits, device, plugins, store.checkpoint(cell.id), reporter, here)
    except (StoreError, Interrupted):
        raise
    except CellFailed as error:
        problem = str(error)
    except Exception as error:  # a plugin may raise anything; the other cells must go on
        log = f"cells/{cell.id}.traceback.txt"
        store.write_text(log, traceback.format_exc())
        problem = f"{type(error).__name__}: {error} (see {log})"
    record = Record(
        cell=cell.id,
        suite=suite.name,
        profile=suite.profile,
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
        device=describe_device(device),
        dataset_fingerprint=data.fingerprint,
        environment={**environment(device), "providers": providers(cell, plugins)},
        finished=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    return record, outcome
