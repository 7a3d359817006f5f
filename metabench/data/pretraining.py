"""Test images that weights may have seen: in the data of their training, or of their pretraining."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # imports torch
    from metabench.api import Rows

#: Number of classes that a remark names.
_NAMED = 3


def remarks_on_pretraining(pretrained_on: str, found_in: Mapping[str, str], class_names: Sequence[str]) -> list[str]:
    """Return remarks on test classes that the images of a pretraining have, too.

    They follow from what the dataset declares; else, for ImageNet, from the names of its classes.

    Args:
        pretrained_on: see `metabench.api.Backbone.pretrained_on`.
        found_in: see `metabench.api.Dataset.found_in`.
        class_names: names of the test classes.
    """
    known = [what for images, what in found_in.items() if images in pretrained_on]
    if not known and "ImageNet" in pretrained_on:
        of_imagenet = set(map(_plain, _imagenet()))
        shared = [name for name in class_names if _plain(name) in of_imagenet]
        if shared:
            examples = ", ".join(shared[:_NAMED]) + (", …" if len(shared) > _NAMED else "")
            known = [f"{len(shared)} of {len(class_names)} test classes have names of its classes ({examples})"]
    return [f"the weights were pretrained on {pretrained_on}: {what}" for what in known]


def _imagenet() -> Sequence[str]:
    """Return the names of the classes of ImageNet-1k, as torchvision knows them."""
    from torchvision.models import ResNet18_Weights

    names: Sequence[str] = ResNet18_Weights.IMAGENET1K_V1.meta["categories"]
    return names


def _plain(name: str) -> str:
    """Return a name, or the last part of a path, in lower case with words divided by spaces."""
    return re.sub(r"[\W_]+", " ", name.rpartition("/")[2]).strip().casefold()


def count_shared(train: Rows, train_hashes: Path, test: Rows, test_hashes: Path) -> int | None:
    """Return the number of test images that are also training images, pixel by pixel.

    Args:
        train: the training images of one dataset.
        train_hashes: the hashes of its images (`metabench.data.examination`).
        test: the test images of another one.
        test_hashes: the hashes of its images.

    Returns:
        The number; None where the hashes could not be kept.
    """
    hashes = _read(train_hashes, "train", len(train)), _read(test_hashes, "test", len(test))
    if hashes[0] is None or hashes[1] is None:
        return None
    order = np.argsort(hashes[0], kind="stable")
    firsts, ends = (np.searchsorted(hashes[0][order], hashes[1], side) for side in ("left", "right"))
    return sum(
        any(np.array_equal(_image(test, int(i)), _image(train, int(j))) for j in order[firsts[i] : ends[i]])
        for i in np.flatnonzero(ends > firsts)
    )


def _read(path: Path, split: str, count: int) -> npt.NDArray[np.uint64] | None:
    try:
        with np.load(path) as kept:
            hashes: npt.NDArray[np.uint64] = kept[split]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return hashes if len(hashes) == count else None


def _image(rows: Rows, index: int) -> npt.NDArray[Any]:
    import torch

    return rows.take(torch.tensor([index])).cpu().numpy()
