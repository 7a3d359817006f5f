"""The device, data and software that a result depends on beside its settings."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

import torch

from metabench.analysis.shift import measures_of_shift
from metabench.errors import StoreError
from metabench.machine.device import device_name
from metabench.planning.cells import Cell, Testing, Training
from metabench.planning.identity import IDENTITY_VERSION
from metabench.records.machines import Machine
from metabench.records.measured import Estimate
from metabench.records.record import EpisodeResults, Record
from metabench.records.store import Store
from metabench.records.trained import TrainingFiles
from metabench.registry.manager import PluginManager

#: The packages of the core whose code computes results.
_HARNESS = ("machine", "api", "data", "planning", "analysis", "engine")


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
    """Return the code of a cell's algorithm, dataset and backbone, and of those of its training if they differ."""
    training = cell.training
    names = {
        "algorithm": ("algorithm", cell.algorithm.name),
        "dataset": ("dataset", cell.dataset.name),
        "backbone": ("backbone", cell.backbone.name),
    }
    if not cell.is_trained_by_itself:
        names["trained_by"] = ("algorithm", training.algorithm.name)
    if cell.is_cross_domain:
        names["trained_on"] = ("dataset", training.dataset.name)
    return Code(
        providers={role: plugins.provider(kind, name) for role, (kind, name) in names.items()},
        hashes={role: plugins.code(kind, name) for role, (kind, name) in names.items()},
    )


def planned_code(training: Training, cells: Sequence[Cell], plugins: PluginManager) -> dict[str, str]:
    """Return hashes of the code of a training and its cells, by kind and name, e.g. ``"algorithm maml"``."""
    used = {("algorithm", training.algorithm.name), ("dataset", training.dataset.name)}
    used |= {("backbone", training.backbone.name)}
    for cell in cells:
        used |= {("algorithm", cell.algorithm.name), ("dataset", cell.dataset.name)}
    return {f"{kind} {name}": plugins.code(kind, name) for kind, name in sorted(used)}


@cache
def harness_hash() -> str:
    """Return a hash of the code of the core that computes results, for a record; no result depends on it alone."""
    root, digest = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(path for package in _HARNESS for path in (root / package).rglob("*.py")):
        content = hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest()
        digest.update(f"{path.relative_to(root).as_posix()} {content}\n".encode())
    return digest.hexdigest()[:16]


def training_origin(
    training: Training, fingerprint: str, device: torch.device, plugins: PluginManager
) -> dict[str, str]:
    """Return the origin of weights, as a checkpoint and their summary store it.

    Args:
        training: the training.
        fingerprint: fingerprint of its dataset.
        device: the device that it runs on.
        plugins: the provider of the classes.
    """
    choices = {"algorithm": training.algorithm, "dataset": training.dataset, "backbone": training.backbone}
    hashes = {kind: plugins.code(kind, choice.name) for kind, choice in choices.items()}
    return origin_of(fingerprint, device, Code({}, hashes))


def origin_of(fingerprint: str, device: torch.device, code: Code) -> dict[str, str]:
    """Return the origin of a result, as a record stores it.

    Args:
        fingerprint: fingerprint of the dataset.
        device: the device that it runs on.
        code: the code of the classes.
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
    if record.data and record.data.trained_on:
        of_record["trained_on_data"] = record.data.trained_on
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
) -> tuple[dict[str, Record], dict[str, EpisodeResults]]:
    """Return the records that need no new run, and the results that need further episodes only, by cell.

    Args:
        cells: the cells that are to have a record.
        records: the records of earlier runs, by name (`metabench.records.store.Store.records_by_name`).
        fingerprints: fingerprints of the datasets, by label.
        device: the device that cells run on.
        plugins: the provider of the classes.
        store: the output directory of `records`.

    Raises:
        StoreError: a record needs further episodes, and its weights have not been kept.
    """
    kept, growing = {}, {}
    codes: dict[tuple[str, ...], Code] = {}
    for cell in cells:
        record = records.get(cell.id)
        if record is None or cell.problem:
            continue
        training = cell.training
        names: tuple[str, ...] = (cell.algorithm.name, cell.dataset.name, cell.backbone.name)
        names += (training.algorithm.name, str(cell.is_trained_by_itself), str(cell.is_cross_domain))
        codes[names] = codes.get(names) or code_of(cell, plugins)
        origin = origin_of(fingerprints[cell.dataset.label], device, codes[names])
        if cell.is_cross_domain:
            origin["trained_on_data"] = fingerprints[training.dataset.label]
        if not (is_valid(record, origin) and store.is_complete(record)):
            continue
        lacking = [measure.name for measure in measures_of_shift(cell.test) if measure.name not in record.metrics]
        if record.primary is None or (_has_enough(record.primary, cell.test) and not lacking):
            kept[cell.id] = record
            continue
        of_weights = training_origin(training, fingerprints[training.dataset.label], device, plugins)
        trained = TrainingFiles(store.path, training.id).read() if training.schedule else None
        if training.schedule and (trained is None or trained.origin != of_weights):
            raise StoreError(
                f"{cell.title} has {_what_it_has(record.primary, lacking)}, and its weights have not been kept in "
                f"{store.path}: run it again with --fresh, or {'ask for less' if lacking else 'lower eval.episodes'}"
            )
        results = store.episodes(record, groups=False, by_label=True)
        growing[cell.id] = replace(results, outputs=store.outputs(cell.id))
    return kept, growing


def _what_it_has(accuracy: Estimate, lacking: Sequence[str]) -> str:
    """Return the reason why a record needs a further test, for a message."""
    if lacking:
        return f"no {', '.join(lacking)}"
    return f"{accuracy.episodes} test episodes, more are asked for"


def _has_enough(accuracy: Estimate, test: Testing) -> bool:
    """Return whether a result has as many episodes as its test wants."""
    if accuracy.episodes < test.episodes:
        return False
    if test.until_ci95 is None or test.at_most is None:
        return True
    return accuracy.ci95 <= test.until_ci95 or accuracy.episodes >= test.at_most


def machine_of(device: torch.device, cells_at_once: int) -> Machine:
    """Return the machine, and the share of it that one of several cells has."""
    kind: Literal["cpu", "cuda"] = "cuda" if device.type == "cuda" else "cpu"
    threads = torch.get_num_threads() if kind == "cpu" else None
    return Machine(kind=kind, name=device_name(device), threads=threads, cells_at_once=cells_at_once)
