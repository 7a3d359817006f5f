"""The device, data and software that a result depends on beside its settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch

from metabench.executors.loading import LoadedDataset
from metabench.machine.device import device_name
from metabench.planning.plan import Cell
from metabench.records.record import Machine, Record
from metabench.records.store import Store
from metabench.registry.manager import PluginManager

#: How episodes are seeded: by names and sizes of classes. Records and checkpoints of 0.1 were seeded by labels.
_SEEDING = "names"


def providers(cell: Cell, plugins: PluginManager) -> dict[str, str]:
    """Return distribution and version of each class of a cell."""
    names = {"algorithm": cell.algorithm.name, "dataset": cell.dataset.name, "backbone": cell.backbone.name}
    return {kind: plugins.provider(kind, name) for kind, name in names.items()}


def origin_of(data: LoadedDataset, device: torch.device, provided: Mapping[str, str]) -> dict[str, str]:
    """Return the origin of a result, as a record and a checkpoint store it.

    Args:
        data: the cell's dataset.
        device: the device that it runs on.
        provided: the cell's `providers`.
    """
    return {
        "device": device.type,
        "dataset_fingerprint": data.fingerprint,
        "torch": str(torch.__version__),
        "seeding": _SEEDING,
        **provided,
    }


def is_valid(record: Record, origin: Mapping[str, str]) -> bool:
    """Return whether a record is good, and of this origin."""
    of_record = {
        "device": record.machine.kind,
        "dataset_fingerprint": record.dataset_fingerprint,
        "torch": record.environment.get("torch"),
        "seeding": _SEEDING if record.data else None,
        **record.environment.get("providers", {}),
    }
    return record.status == "ok" and of_record == dict(origin)


def kept_records(
    cells: Sequence[Cell],
    records: Mapping[str, Record],
    datasets: Mapping[str, LoadedDataset],
    device: torch.device,
    plugins: PluginManager,
    store: Store,
) -> dict[str, Record]:
    """Return the records that need no new run, by cell.

    Args:
        cells: the cells that are to have a record.
        records: the records of earlier runs, by name (`metabench.records.store.Store.records_by_name`).
        datasets: the loaded datasets, by label.
        device: the device that cells run on.
        plugins: the provider of the classes.
        store: the output directory of `records`.
    """
    kept = {}
    for cell in cells:
        record = records.get(cell.id)
        if record is None:
            continue
        origin = origin_of(datasets[cell.dataset.label], device, providers(cell, plugins))
        if is_valid(record, origin) and store.is_complete(record):
            kept[cell.id] = record
    return kept


def machine_of(device: torch.device, cells_at_once: int) -> Machine:
    """Return the machine, and the share of it that one of several cells has."""
    kind: Literal["cpu", "cuda"] = "cuda" if device.type == "cuda" else "cpu"
    threads = torch.get_num_threads() if kind == "cpu" else None
    return Machine(kind=kind, name=device_name(device), threads=threads, cells_at_once=cells_at_once)
