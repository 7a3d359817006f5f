"""Examine all images of the splits once, and keep the results beside the pack."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from metabench.data.identical import Findings, Overlapping, examine
from metabench.data.order import content_of
from metabench.files import atomic_file

if TYPE_CHECKING:  # imports torch
    from metabench.api import Progress, Split


@dataclass(frozen=True)
class Examination:
    """The results of reading all images of the splits.

    Attributes:
        findings: oddities of the images.
        test_content: hash of the test images (`metabench.data.order.content_of`).
    """

    findings: Findings
    test_content: str


def hashes_of(path: Path) -> Path:
    """Return the file of the hashes of all images, by split, that is kept beside the results."""
    return path.with_suffix(".npz")


def kept_examination(path: Path, key: str) -> Examination | None:
    """Return the results that an earlier run has kept; None where there are none that can be read.

    Args:
        path: their file.
        key: hash of everything that the images follow from.
    """
    with suppress(OSError, ValueError, TypeError, KeyError):
        kept = json.loads(path.read_bytes())
        if kept["key"] == key and hashes_of(path).exists():
            return Examination(Findings(**kept["findings"]), str(kept["test_content"]))
    return None


def new_examination(
    path: Path, key: str, name: str, splits: Mapping[str, Split], overlapping: Overlapping, progress: Progress
) -> Examination:
    """Read all images of the splits, some at a time, and keep the results.

    Args:
        path: the file that will have the results.
        key: hash of everything that the images follow from.
        name: the dataset's name, for messages.
        splits: the checked splits.
        overlapping: whether the dataset's splits share classes or images on purpose, or "classes" only.
        progress: told of the images that were read.

    Raises:
        InvalidData: a class or an image is in two splits, and `overlapping` does not allow it.
    """
    total, done = sum(len(split.images) for split in [*splits.values(), splits["test"]]), 0

    def seen(images: int) -> None:
        nonlocal done
        done += images
        progress(done, total, f"checking {name}")

    findings, hashes = examine(name, splits, overlapping, seen)
    examination = Examination(findings, content_of(splits["test"], seen))
    # A cache that cannot be written may still be read: the images are then examined each time.
    with suppress(OSError):
        with atomic_file(hashes_of(path)) as temporary, open(temporary, "wb") as file:
            np.savez(file, **dict[str, Any](hashes))
        with atomic_file(path) as temporary:
            temporary.write_text(json.dumps({"key": key, **asdict(examination)}), encoding="utf-8")
    return examination
