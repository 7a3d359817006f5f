"""Vectors of a file with their classes, splits and names, checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from metabench.api import DataError
from metabench_plugins.images.splits import SPLITS
from metabench_plugins.vectors.keys import KeysConfig
from metabench_plugins.vectors.reading import read_arrays

Array = npt.NDArray[Any]
#: Number of names that a message shows.
_SHOWN = 5


@dataclass(frozen=True)
class LabelledVectors:
    """The content of a file.

    Attributes:
        vectors: [n, D] finite float32 numbers.
        labels: [n] names of classes.
        splits: [n] names of splits; None where the file has none.
        names: [n] names, all different.
        unused: names of classes without vectors.
    """

    vectors: npt.NDArray[np.float32]
    labels: Sequence[str]
    splits: Sequence[str] | None
    names: Sequence[str]
    unused: Sequence[str] = ()


def read_labelled(path: Path, keys: KeysConfig) -> LabelledVectors:
    """Return the checked content of a file.

    Args:
        path: a file with a suffix of `reading.READERS`.
        keys: the names of its arrays.

    Raises:
        DataError: the file cannot be read, lacks an array, or has one of another shape or type; a number is not finite.
    """
    arrays = read_arrays(path, keys)
    vectors = _vectors(path, keys.key("vectors"), arrays["vectors"])
    count = len(vectors)
    labels, unused = _labels(path, keys, arrays, count)
    _check_finite(path, keys.key("vectors"), vectors, labels)
    splits = _splits(path, keys.key("splits"), arrays["splits"], count) if "splits" in arrays else None
    names = [f"{row:09d}" for row in range(count)]
    if "names" in arrays:
        names = _texts(path, keys.key("names"), arrays["names"], count)
        _check_different(path, keys.key("names"), names)
    return LabelledVectors(vectors, labels, splits, names, unused)


def _vectors(path: Path, key: str, array: Array) -> npt.NDArray[np.float32]:
    if array.ndim != 2 or array.dtype.kind not in "fiu" or 0 in array.shape:
        raise DataError(
            f"{path}: '{key}' must be numbers [n, D], a row for each vector, and is {_described(array)}: correct it"
        )
    with np.errstate(over="ignore"):  # numbers beyond float32 become infinite, and are found below
        return np.ascontiguousarray(array, dtype=np.float32)


def _check_finite(path: Path, key: str, vectors: npt.NDArray[np.float32], labels: Sequence[str]) -> None:
    wrong = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(wrong):
        raise DataError(
            f"{path}: {len(wrong)} of the {len(vectors)} vectors of '{key}' have numbers that are not finite (NaN, "
            f"infinite, or beyond float32), e.g. row {wrong[0]} of the class '{labels[wrong[0]]}': correct these rows, "
            "or leave them out"
        )


def _labels(path: Path, keys: KeysConfig, arrays: Mapping[str, Array], count: int) -> tuple[list[str], list[str]]:
    """Return the name of the class of each vector, and the names of the classes without any."""
    key, labels = keys.key("labels"), arrays["labels"]
    texts = _texts(path, key, labels, count)
    if "class_names" not in arrays:
        return texts, []
    named, names = keys.key("class_names"), arrays["class_names"]
    known = _texts(path, named, names, len(names) if names.ndim == 1 else 0)
    _check_different(path, named, known)
    if labels.dtype.kind not in "iu":
        raise DataError(f"{path}: '{key}' has names of classes already: remove '{named}', or make the labels numbers")
    wrong = np.flatnonzero((labels < 0) | (labels >= len(known)))
    if len(wrong):
        raise DataError(
            f"{path}: row {wrong[0]} of '{key}' is {labels[wrong[0]]}, and '{named}' has names for 0 … "
            f"{len(known) - 1}: add the name, or correct the label"
        )
    used = set(labels.tolist())
    return [known[label] for label in labels], [name for number, name in enumerate(known) if number not in used]


def _splits(path: Path, key: str, array: Array, count: int) -> list[str]:
    splits = _texts(path, key, array, count)
    if array.dtype.kind in "iu":
        splits = [SPLITS[int(text)] if text in ("0", "1", "2") else text for text in splits]
    wrong = next((row for row, split in enumerate(splits) if split not in SPLITS), None)
    if wrong is not None:
        raise DataError(
            f"{path}: row {wrong} of '{key}' is '{splits[wrong]}', and must be train, val or test (or 0, 1 or 2): "
            "correct it"
        )
    return splits


def _texts(path: Path, key: str, array: Array, count: int) -> list[str]:
    """Return an array of texts or whole numbers as texts."""
    if array.shape != (count,) or array.dtype.kind not in "iuUS":
        raise DataError(
            f"{path}: '{key}' must be {count} texts or whole numbers, and is {_described(array)}: correct it"
        )
    try:
        texts = [str(value, "utf-8") if isinstance(value, bytes) else str(value) for value in array.tolist()]
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: '{key}' has texts that are not UTF-8: save them as UTF-8") from error
    empty = next((row for row, text in enumerate(texts) if not text.strip()), None)
    if empty is not None:
        raise DataError(f"{path}: row {empty} of '{key}' is empty: give it a text")
    return texts


def _check_different(path: Path, key: str, texts: Sequence[str]) -> None:
    twice = [text for text, times in Counter(texts).items() if times > 1]
    if twice:
        more = ", …" if len(twice) > _SHOWN else ""
        shown = ", ".join(f"'{text}'" for text in twice[:_SHOWN])
        raise DataError(f"{path}: '{key}' has {shown}{more} more than once: make all different")


def _described(array: Array) -> str:
    kinds = {"U": "texts", "S": "texts", "O": "objects", "b": "truth values"}
    return f"{kinds.get(array.dtype.kind, str(array.dtype))} {list(array.shape)}"
