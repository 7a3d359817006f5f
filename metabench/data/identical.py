"""Find identical and constant images in and across the splits of a dataset."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from metabench.data.validation import normalised
from metabench.errors import InvalidData

if TYPE_CHECKING:  # imports torch
    from metabench.api import Rows, Split

#: Bytes of the images hashed at once, so that padded copies stay small.
_AT_ONCE = 2**22


#: Whether splits may share classes and images, or classes only; see `metabench.api.Dataset.overlapping`.
Overlapping: TypeAlias = bool | Literal["classes"]


@dataclass(frozen=True)
class Findings:
    """Oddities of the images that do not prevent a run.

    Attributes:
        duplicates: by split, the images equal to an earlier one of the split; splits without any are left out.
        across_classes: by split, the duplicates whose first copy is in another class.
        constant: by split, the images whose pixels are all equal in each channel.
        overlapping: whether the dataset allows that its splits share classes or images.
        shared: number of images in more than one split.
        shared_classes: number of classes in more than one split.
    """

    duplicates: Mapping[str, int] = field(default_factory=dict)
    across_classes: Mapping[str, int] = field(default_factory=dict)
    constant: Mapping[str, int] = field(default_factory=dict)
    overlapping: bool = False
    shared: int = 0
    shared_classes: int = 0

    def remarks(self) -> list[str]:
        """Return the findings as lines for records and leaderboards."""
        lines = []
        if self.shared or self.shared_classes:
            lines.append(
                f"the dataset allows that its splits overlap: {_count(self.shared_classes, 'class')} and "
                f"{_count(self.shared, 'image')} in more than one"
            )
        for split, count in self.duplicates.items():
            others = self.across_classes.get(split, 0)
            where = f", {others} of another class" if others else ""
            lines.append(f"{_count(count, 'image')} of {split} identical to another{where}")
        lines += [f"{_count(count, 'image')} of {split} without any contrast" for split, count in self.constant.items()]
        return lines


def examine(
    name: str,
    splits: Mapping[str, Split],
    overlapping: Overlapping,
    seen: Callable[[int], None] = lambda images: None,
) -> tuple[Findings, dict[str, npt.NDArray[np.uint64]]]:
    """Compare names of classes and contents of images within and across splits; return findings and hashes of images.

    Args:
        name: the dataset's name, for the message.
        splits: the checked splits.
        overlapping: whether the dataset's splits share classes or images on purpose, or "classes" only.
        seen: told of the number of images of each part that was read.

    Raises:
        InvalidData: a class or an image is in two splits, and `overlapping` does not allow it.
    """
    shared_classes = _shared_classes(name, splits, bool(overlapping))
    rows = {split: content.rows for split, content in splits.items()}
    class_of = {
        split: np.repeat(np.arange(len(content.class_names)), np.diff(content.offsets.numpy()))
        for split, content in splits.items()
    }
    duplicates, across_classes, shared = Counter[str](), Counter[str](), []
    looks = {split: _looks(content, seen) for split, content in rows.items()}
    hashes = {split: of_images for split, (of_images, _) in looks.items()}
    for copies in _identical(rows, hashes):
        if len({split for split, _ in copies}) > 1:
            shared.append(copies)
        first: dict[str, int] = {}
        for split, index in copies:
            if split in first:
                duplicates[split] += 1
                across_classes[split] += int(class_of[split][first[split]] != class_of[split][index])
            first.setdefault(split, index)
    if shared and overlapping is not True:
        one = shared[0][0]
        other = next(copy for copy in shared[0] if copy[0] != one[0])
        places = [
            f"image {_image_name(splits[split], i)} of {split} (class '{splits[split].class_names[c]}')"
            for split, i, c in ((split, i, class_of[split][i]) for split, i in (one, other))
        ]
        raise InvalidData(
            f"the dataset '{name}' has {_count(len(shared), 'image')} in more than one split, e.g. {places[0]} is "
            f"{places[1]}: {_ADVICE}"
        )
    constant = {split: count for split, (_, count) in looks.items() if count}
    counts = dict(+duplicates), dict(+across_classes), constant
    return Findings(*counts, bool(overlapping), len(shared), shared_classes), hashes


_ADVICE = (
    "results on it would be too good; remove the copies, or set `overlapping = True` in the dataset's class if this is "
    "on purpose"
)


def _image_name(split: Split, index: int) -> str:
    """Return the name of an image; its index where it has none."""
    return str(index) if split.image_names is None else f"'{split.image_names[index]}'"


def _shared_classes(name: str, splits: Mapping[str, Split], overlapping: bool) -> int:
    """Return the number of class names in more than one split."""
    first: dict[str, str] = {}
    shared: dict[str, tuple[str, str]] = {}
    for split, content in splits.items():
        for class_name in map(normalised, content.class_names):
            if class_name in first:
                shared.setdefault(class_name, (first[class_name], split))
            first.setdefault(class_name, split)
    if shared and not overlapping:
        class_name, (one, other) = next(iter(shared.items()))
        raise InvalidData(
            f"the dataset '{name}' has {_count(len(shared), 'class')} in more than one split, e.g. '{class_name}' in "
            f"{one} and {other}: {_ADVICE}"
        )
    return len(shared)


def _looks(rows: Rows, seen: Callable[[int], None]) -> tuple[npt.NDArray[np.uint64], int]:
    """Return a hash of each image, and the number of constant images; read some images at a time."""
    hashes, constant = [np.empty(0, np.uint64)], 0
    for part in rows.parts():
        images = part.cpu().numpy()
        hashes.append(hash_images(images))
        constant += int(_constant(images).sum()) if images.ndim == 4 else 0
        seen(len(images))
    return np.concatenate(hashes), constant


def _identical(
    rows: Mapping[str, Rows], hashes_of: Mapping[str, npt.NDArray[np.uint64]]
) -> list[list[tuple[str, int]]]:
    """Return all copies, as (split, index), of each image that occurs more than once."""
    hashes = np.concatenate(list(hashes_of.values()))
    names = list(rows)
    firsts = np.cumsum([0, *(len(hashes) for hashes in hashes_of.values())])
    _, group, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    copies: dict[bytes, list[tuple[str, int]]] = {}
    # Equal images have equal hashes; the few images with equal hashes are compared by a hash without collisions.
    for position in np.flatnonzero(counts[group.reshape(-1)] > 1):
        place = int(np.searchsorted(firsts, position, side="right")) - 1
        split, index = names[place], int(position - firsts[place])
        image = _row(rows[split], index)
        copies.setdefault(hashlib.sha256(image.tobytes()).digest(), []).append((split, index))
    return [found for found in copies.values() if len(found) > 1]


def _row(rows: Rows, index: int) -> npt.NDArray[Any]:
    import torch

    return rows.take(torch.tensor([index])).cpu().numpy()


def hash_images(images: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    """Return a 64-bit hash of each of [n, …] images or vectors.

    The hash is a weighted sum of the image's 64-bit words: 129 840 images of 28×28 take some milliseconds.
    """
    rows = np.ascontiguousarray(images).reshape(len(images), -1).view(np.uint8)
    words = -(-rows.shape[1] // 8)
    weights = np.random.Generator(np.random.PCG64(0)).integers(0, 2**63, words, dtype=np.uint64) * 2 + 1
    hashes = np.empty(len(rows), np.uint64)
    at_once = max(1, _AT_ONCE // (8 * words))
    for first in range(0, len(rows), at_once):
        part = slice(first, first + at_once)
        padded = np.pad(rows[part], ((0, 0), (0, 8 * words - rows.shape[1])))
        np.einsum("ij,j->i", padded.view(np.uint64), weights, out=hashes[part])
    return hashes


def _constant(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Return which of [n, C, H, W] images have one value in each channel."""
    flat = images.reshape(*images.shape[:2], -1)
    return np.asarray((flat.min(axis=2) == flat.max(axis=2)).all(axis=1))


def _count(number: int, noun: str) -> str:
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"
