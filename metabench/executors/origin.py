"""The device, data and software that a result depends on beside its settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from metabench.machine.device import device_name
from metabench.planning.identity import IDENTITY_VERSION
from metabench.planning.plan import Cell
from metabench.records.record import Machine, Record
from metabench.records.store import Store
from metabench.registry.manager import PluginManager


@dataclass(frozen=True)
class Code:
    """The code of a cell's classes.

    Attributes:
        providers: distribution and version by kind of class, for people.
        hashes: `metabench.registry.manager.PluginManager.code` by kind of class; results of other code are not kept.
    """

    providers: Mapping[str, str]
    hashes: Mapping[str, str]


def code_of(cell: Cell, plugins: PluginManager) -> Code:
    """Return the code of a cell's algorithm, dataset and backbone."""
    names = {"algorithm": cell.algorithm.name, "dataset": cell.dataset.name, "backbone": cell.backbone.name}
    return Code(
        providers={kind: plugins.provider(kind, name) for kind, name in names.items()},
        hashes={kind: plugins.code(kind, name) for kind, name in names.items()},
    )


def origin_of(fingerprint: str, device: torch.device, code: Code) -> dict[str, str]:
    """Return the origin of a result, as a record and a checkpoint store it.

    Args:
        fingerprint: fingerprint of the cell's dataset.
        device: the device that it runs on.
        code: the code of the cell's classes.
    """
    return {
        "device": device.type,
        "dataset_fingerprint": fingerprint,
        "torch": _minor(str(torch.__version__)),
        "identity": str(IDENTITY_VERSION),
        **code.hashes,
    }


def is_valid(record: Record, origin: Mapping[str, str]) -> bool:
    """Return whether a record is of this origin, and would be the same again: ok or skipped."""
    of_record = {
        "device": record.machine.kind,
        "dataset_fingerprint": record.dataset_fingerprint,
        "torch": _minor(str(record.environment.get("torch"))),
        "identity": str(record.environment.get("identity", 1)),
        **record.environment.get("code", {}),
    }
    return record.status in ("ok", "skipped") and of_record == dict(origin)


def _minor(version: str) -> str:
    """Return major and minor of a version: patches change no results."""
    return ".".join(version.split(".")[:2])


def kept_records(
    cells: Sequence[Cell],
    records: Mapping[str, Record],
    fingerprints: Mapping[str, str],
    device: torch.device,
    plugins: PluginManager,
    store: Store,
) -> dict[str, Record]:
    """Return the records that need no new run, by cell.

    Args:
        cells: the cells that are to have a record.
        records: the records of earlier runs, by name (`metabench.records.store.Store.records_by_name`).
        fingerprints: fingerprints of the datasets, by label.
        device: the device that cells run on.
        plugins: the provider of the classes.
        store: the output directory of `records`.
    """
    kept = {}
    codes: dict[tuple[str, str, str], Code] = {}
    for cell in cells:
        record = records.get(cell.id)
        if record is None or cell.problem:
            continue
        names = cell.algorithm.name, cell.dataset.name, cell.backbone.name
        codes[names] = codes.get(names) or code_of(cell, plugins)
        origin = origin_of(fingerprints[cell.dataset.label], device, codes[names])
        if is_valid(record, origin) and store.is_complete(record):
            kept[cell.id] = record
    return kept


def machine_of(device: torch.device, cells_at_once: int) -> Machine:
    """Return the machine, and the share of it that one of several cells has."""
    kind: Literal["cpu", "cuda"] = "cuda" if device.type == "cuda" else "cpu"
    threads = torch.get_num_threads() if kind == "cpu" else None
    return Machine(kind=kind, name=device_name(device), threads=threads, cells_at_once=cells_at_once)
