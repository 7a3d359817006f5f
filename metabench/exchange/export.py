"""Write episodes for other code: as names of images, or as arrays."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metabench.api import Split
from metabench.errors import DataError, UsageError
from metabench.exchange.episode_sets import EpisodeSet
from metabench.files import atomic_file

#: Called with (done, total, name of the work).
_Progress = Callable[[int, int, str], None]


def export_episodes(episodes: EpisodeSet, path: Path, progress: _Progress) -> None:
    """Write episodes to a file, whole or not at all.

    A file ``.json`` names the images (`metabench.data.episodes_files`), an episode a line. A file ``.npz`` has arrays:
    each image once (``images``), and for each episode the indices of its ``support`` and ``query`` images with their
    labels ``support_y`` and ``query_y``, and the class behind each label, ``classes``, an index of ``class_names``. The
    episodes of a source have ``support_x`` and ``query_x`` in place of images.

    Args:
        episodes: the episodes.
        path: the file, which does not exist.
        progress: sees the progress.

    Raises:
        DataError: the dataset names no images, and the file is to name them.
        UsageError: the file exists, has another suffix, or the episodes cannot be arrays.
    """
    writers = {".json": _write_names, ".npz": _write_arrays}
    if path.suffix not in writers:
        raise UsageError(f"{path}: end its name with .json, for names of images, or .npz, for arrays")
    if path.exists():
        raise UsageError(f"{path} exists: delete it, or give another name")
    writers[path.suffix](episodes, path, progress)


def _write_names(episodes: EpisodeSet, path: Path, progress: _Progress) -> None:
    split = episodes.data.splits[episodes.split]
    if not isinstance(split, Split) or split.image_names is None:
        raise DataError(
            f"'{episodes.test.dataset.label}' names no images, so that a file cannot name them: write arrays, to a "
            "file .npz"
        )
    names = split.image_names
    with atomic_file(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for number in range(len(episodes)):
            drawn, classes = episodes.indices(number), episodes.classes(number)
            sets: dict[str, dict[str, list[str]]] = {}
            for kind, images, labels in (
                ("support", drawn.support[0], drawn.support_labels[0]),
                ("query", drawn.query[0], drawn.query_labels[0]),
            ):
                sets[kind] = {name: [names[i] for i in images[labels == n]] for n, name in enumerate(classes)}
            file.write(json.dumps(sets, ensure_ascii=False) + "\n")
            progress(number + 1, len(episodes), "writing episodes")


def _write_arrays(episodes: EpisodeSet, path: Path, progress: _Progress) -> None:
    if episodes.test.shape.varies:
        raise UsageError("episodes of different sizes make no arrays: write names, to a file .json")
    split = episodes.data.splits[episodes.split]
    arrays = _of_images(episodes, split, progress) if isinstance(split, Split) else _of_numbers(episodes, progress)
    with atomic_file(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


def _of_images(episodes: EpisodeSet, split: Split, progress: _Progress) -> dict[str, Any]:
    """Return the images that the episodes have, and the episodes as indices of them."""
    parts: dict[str, list[Any]] = {"support": [], "support_y": [], "query": [], "query_y": [], "classes": []}
    for number in range(len(episodes)):
        drawn = episodes.indices(number)
        found = (drawn.support, drawn.support_labels, drawn.query, drawn.query_labels, drawn.classes)
        for values, part in zip(parts.values(), found, strict=True):
            values.append(part[0])
        progress(number + 1, len(episodes), "drawing episodes")
    arrays = {name: np.stack(values) for name, values in parts.items()}
    used, places = np.unique(np.concatenate([arrays["support"], arrays["query"]], axis=1), return_inverse=True)
    places = places.reshape(len(episodes), -1)
    shots = arrays["support"].shape[1]
    return {
        **arrays,
        "support": places[:, :shots],
        "query": places[:, shots:],
        "images": split.rows.take(torch.from_numpy(used)).cpu().numpy(),
        "class_names": np.array(split.class_names),
        "mean": np.array(split.mean),
        "std": np.array(split.std),
    }


def _of_numbers(episodes: EpisodeSet, progress: _Progress) -> dict[str, Any]:
    """Return the tensors of the episodes of a source."""
    drawn = []
    for number, episode in enumerate(episodes):
        drawn.append(episode)
        progress(number + 1, len(episodes), "making episodes")
    return {
        name: torch.stack(parts).numpy() for name, parts in zip(drawn[0]._fields, zip(*drawn, strict=True), strict=True)
    }
