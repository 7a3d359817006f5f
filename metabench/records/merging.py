"""Join output directories of one suite, e.g. its shards, in a new one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from metabench.errors import StoreError
from metabench.files import link_or_copy, read_regular
from metabench.records.looks import look_key
from metabench.records.record import Record
from metabench.records.store import Store
from metabench.records.trained import Trained, TrainingFiles

#: The most contradictions that a message lists.
_LISTED = 10


@dataclass(frozen=True)
class _Found:
    """The record of a cell in one of the directories."""

    store: Store
    record: Record


def merge(sources: Sequence[Path], output: Path, progress: Callable[[int, int], None]) -> Store:
    """Write the records of several directories into a new one, with all files that belong to them.

    Of a cell that several have, the record with the most episodes is taken. Files are linked where that can be. The
    directory appears when it is complete.

    Args:
        sources: the output directories.
        output: the new directory.
        progress: called with the number of cells done, and of all.

    Raises:
        StoreError: the directories are of different suites, have different results of a cell or different weights of a
            training, cannot be read, or `output` exists or cannot be written.
    """
    stores = [Store(path) for path in sources]
    _check(stores, output)
    chosen = _chosen(stores)
    trainings = _trainings(stores)
    building = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        building.mkdir()
        for number, (cell, found) in enumerate(chosen.items(), 1):
            _copy_cell(found.store.path, building, cell)
            progress(number, len(chosen))
        _copy_trainings(stores, trainings, building)
        for name in ("suite.yaml", "plan.json"):
            link_or_copy(stores[0].path / name, building / name)
        looks = _looks(stores)
        if looks:
            Store(building).write_text("looks.json", json.dumps(looks, indent=1) + "\n")
        if output.exists():
            output.rmdir()  # an empty one
        building.rename(output)
    except OSError as error:
        raise StoreError(f"cannot write to {output}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return Store(output)


def _check(stores: Sequence[Store], output: Path) -> None:
    """Refuse directories that are no runs of one suite, and an output that has content."""
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise StoreError(f"{output} exists: give a new directory by --output")
    if len({os.path.realpath(store.path) for store in stores}) < len(stores):
        raise StoreError("a directory is named twice: name each once")
    first = stores[0]
    for store in stores:
        if not store.suite_text() or not store.planned():
            raise StoreError(f"no run in {store.path}: give the --output of a `metabench run`")
        if store.suite_text() != first.suite_text():
            lines = zip(first.suite_text().splitlines(), store.suite_text().splitlines(), strict=False)
            one, other = next(((a.strip(), b.strip()) for a, b in lines if a != b), ("more", "less"))
            raise StoreError(
                f"{first.path} and {store.path} are of different suites or settings ('{one}' and '{other}'): merge "
                "runs of the same suite, profile, seeds and options"
            )
        if {cell["cell"] for cell in store.planned()} != {cell["cell"] for cell in first.planned()}:
            raise StoreError(
                f"{first.path} and {store.path} have other cells planned: run both with, or both without --confirm"
            )


def _chosen(stores: Sequence[Store]) -> dict[str, _Found]:
    """Return the record of each cell that is taken.

    Raises:
        StoreError: two directories disagree.
    """
    found: dict[str, list[_Found]] = {}
    for store in stores:
        for cell, record in store.records_by_name().items():
            found.setdefault(cell, []).append(_Found(store, record))
    problems = [problem for cell, all_found in found.items() for problem in _contradictions(cell, all_found)]
    if problems:
        more = f"; and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
        raise StoreError(
            f"the directories have different results: {'; '.join(problems[:_LISTED])}{more}: find out which is right, "
            "and delete or `metabench invalidate` the other"
        )
    return {cell: max(all_found, key=_precedence) for cell, all_found in found.items()}


def _precedence(found: _Found) -> tuple[int, int]:
    """Return what is taken first: results, the most episodes of them, then a reason why there are none."""
    order = ("failed", "skipped", "invalid", "ok")
    primary = found.record.primary
    return order.index(found.record.status), primary.episodes if primary else 0


def _contradictions(cell: str, all_found: Sequence[_Found]) -> list[str]:
    """Return in what the records of one cell differ, a sentence each."""
    judged = [found for found in all_found if found.record.status in ("ok", "invalid")]
    problems = []
    for other in judged[1:]:
        first = judged[0]
        what = _difference(first, other)
        if what:
            record = first.record
            title = f"{record.algorithm} · {record.dataset} · {record.backbone} · seed {record.seed}"
            problems.append(f"cell {cell} ({title}) {what} in {first.store.path} and {other.store.path}")
    return problems


def _difference(one: _Found, other: _Found) -> str:
    """Return in what two records of a cell differ; empty if they agree to the digit in their common episodes."""
    import numpy as np

    if one.record.status != other.record.status:
        return f"is {one.record.status} and {other.record.status}"
    if one.record.status != "ok":
        return ""
    if one.record.dataset_fingerprint != other.record.dataset_fingerprint:
        return "has other data"
    results = [found.store.episodes(found.record) for found in (one, other)]
    for name in results[0].figures.keys() & results[1].figures.keys():
        a, b = (result.figures[name] for result in results)
        common = min(len(a), len(b))
        if not np.array_equal(a[:common], b[:common]):
            episode = int(np.argmax(np.any((a[:common] != b[:common]).reshape(common, -1), axis=1)))
            return f"has another {name} of episode {episode}"
    return ""


def _trainings(stores: Sequence[Store]) -> dict[str, tuple[Store, Trained]]:
    """Return the directory whose weights of a training are taken, by the training: that with the most snapshots.

    Raises:
        StoreError: two directories have different weights of a training.
    """
    chosen: dict[str, tuple[Store, Trained]] = {}
    for store in stores:
        for training in store.trainings():
            trained = TrainingFiles(store.path, training).read()
            if trained is None:
                continue
            other, earlier = chosen.get(training, (store, trained))
            for name in trained.snapshots.keys() & earlier.snapshots.keys():
                if trained.snapshots[name].sha256 != earlier.snapshots[name].sha256:
                    raise StoreError(
                        f"{other.path} and {store.path} have different weights of the training {training} ({name}): "
                        "find out which are right, and delete the others"
                    )
            if training not in chosen or len(trained.snapshots) > len(earlier.snapshots):
                chosen[training] = (store, trained)
    return chosen


def _copy_cell(source: Path, target: Path, cell: str) -> None:
    """Copy the files of a cell: record, per-episode results, picture, traceback and kept outputs."""
    for path in (source / "cells").glob(f"{cell}.*"):
        link_or_copy(path, target / "cells" / path.name)
    outputs = source / "outputs" / f"{cell}.npz"
    if outputs.exists():
        link_or_copy(outputs, target / "outputs" / outputs.name)


def _copy_trainings(stores: Sequence[Store], trainings: Mapping[str, tuple[Store, Trained]], target: Path) -> None:
    """Copy kept weights, weights of other code, and the newest checkpoint of each unfinished training."""
    for training, (store, _) in trainings.items():
        for path in (store.path / "weights").glob(f"{training}*"):
            link_or_copy(path, target / "weights" / path.name)
    newest: dict[str, Path] = {}
    for store in stores:
        for path in [*(store.path / "weights").glob("*/*"), *(store.path / "checkpoints").glob("*/*")]:
            if path.is_file() and not (target / path.relative_to(store.path)).exists():
                link_or_copy(path, target / path.relative_to(store.path))
        for training in store.checkpoints():
            path = TrainingFiles(store.path, training).checkpoint
            if training not in newest or newest[training].stat().st_mtime < path.stat().st_mtime:
                newest[training] = path
    for training, path in newest.items():
        if training not in trainings:
            link_or_copy(path, target / "checkpoints" / path.name)


def _looks(stores: Sequence[Store]) -> dict[str, int]:
    """Return the looks of all directories together; a record that two have, as copies, counts once."""
    total: dict[str, int] = {}
    seen: set[bytes] = set()
    for store in stores:
        for key, count in store.looks().items():
            total[key] = total.get(key, 0) + count
        for cell, record in store.records_by_name().items():
            content = read_regular(store.path / "cells" / f"{cell}.json")
            key = look_key(record)
            if content in seen and total.get(key, 0) > 1:
                total[key] -= 1
            seen.add(content)
    return total
