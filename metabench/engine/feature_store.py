"""Features on disk: named by everything that they follow from, written once, mapped by all workers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metabench.api import Backbone, Rows, Split, TensorRows
from metabench.engine.progress import Interrupted, Watcher
from metabench.errors import CellFailed
from metabench.files import alone
from metabench.planning.cells import Choice, Training
from metabench.row_files import DamagedFile, map_rows, written_rows

#: Version of the files; part of their names.
_FORMAT = 1


@dataclass(frozen=True)
class FeatureStore:
    """The folder of features.

    Attributes:
        folder: the folder; None keeps features in memory.
        origin: what the features follow from beside weights, split and scale.
        subset: which images of the split ``train`` there are; empty for all.
    """

    folder: Path | None
    origin: str
    subset: str = ""

    @classmethod
    def of(cls, training: Training, data: Choice, origin: Mapping[str, str], folder: Path | None) -> FeatureStore:
        """Return the store of a dataset's features by the backbone of a training.

        Args:
            training: the training.
            data: the dataset.
            origin: device, data, code and versions that its results depend on; features are kept only with them.
            folder: the folder of features; None keeps them in memory.
        """
        backbone = training.backbone.settings
        of_features = {name: value for name, value in origin.items() if name != "algorithm"}
        parts = [_FORMAT, of_features, data.name, data.params, backbone["name"], backbone["params"], training.precision]
        known = folder is not None and "dataset_fingerprint" in origin
        limits = training.subset if data == training.dataset else None
        subset = f"{limits.identity} of seed {training.seed}" if limits else ""
        return cls(folder if known else None, json.dumps(parts, sort_keys=True), subset)

    def path(self, split: Split, name: str, backbone: Backbone) -> Path | None:
        """Return the file of a split's features; None without a folder."""
        if self.folder is None:
            return None
        scale = [[float(value) for value in values] for values in (split.mean, split.std)]
        form = [split.rows.shape, list(split.class_names), split.offsets.tolist(), scale]
        parts = [self.origin, name, form, _weights_hash(backbone)]
        text = json.dumps([*parts, self.subset] if self.subset and name == "train" else parts)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.safetensors"


def mapped(path: Path, shape: tuple[int, ...]) -> Rows | None:
    """Return the features on disk; None where there are none of the shape that can be read.

    Args:
        path: their file.
        shape: (n, D), the number of images and the length of a feature vector.
    """
    with suppress(OSError, DamagedFile):
        rows = map_rows(path).rows
        if rows.shape == shape:
            return TensorRows(torch.from_numpy(rows))
    return None


def stored(path: Path, shape: tuple[int, ...], parts: Iterable[Tensor], watcher: Watcher | None) -> Rows:
    """Write features to a file, whole or not at all, and map it; another worker that does so is waited for.

    Args:
        path: the file.
        shape: (n, D), the number of images and the length of a feature vector.
        parts: [k, D] features each, computed as they are taken.
        watcher: may ask to stop.

    Raises:
        CellFailed: the features cannot be stored.
        Interrupted: the watcher asked to stop.
    """

    def waiting() -> None:
        if watcher is not None and watcher.should_stop():
            raise Interrupted

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with alone(path, waiting):
            if mapped(path, shape) is None:
                with written_rows(path) as writer:
                    for part in parts:
                        writer.add(part.cpu().numpy())
                    writer.finish({}, {})
    except OSError as error:
        raise CellFailed(
            f"cannot store features ({shape[0] * shape[1] * 4 / 2**20:.0f} MiB) in {path.parent}: {error.strerror}. "
            "Free some space or make it writable, or set METABENCH_CACHE to another directory"
        ) from error
    rows = mapped(path, shape)
    if rows is None:
        raise CellFailed(f"the features in {path} cannot be read: delete that file, and run again")
    return rows


def _weights_hash(backbone: Backbone) -> str:
    """Return a hash of all parameters and buffers."""
    digest = hashlib.sha256()
    named: list[tuple[str, Any]] = [*backbone.named_parameters(), *backbone.named_buffers()]
    for name, value in named:
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
