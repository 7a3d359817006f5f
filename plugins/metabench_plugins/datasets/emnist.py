"""EMNIST by class: 814 255 handwritten digits and letters of 62 classes.

Cohen et al., "EMNIST: an extension of MNIST to handwritten letters", 2017. https://arxiv.org/abs/1702.05373
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from metabench import api
from metabench.api import ClassImages, DataError, Progress
from metabench_plugins.images.classes import PhotoClass
from metabench_plugins.images.config import ImageConfig
from metabench_plugins.raw.arrays import array_class, rows_by_label
from metabench_plugins.raw.dataset import PublishedDataset
from metabench_plugins.raw.forms import Form, Found, Search
from metabench_plugins.raw.idx import read_idx

#: The characters of the labels 0 … 61.
_CHARACTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase
_PARTS = {
    f"{part} {kind}": [f"emnist-byclass-{part}-{kind}-{form}-ubyte{suffix}" for suffix in ("", ".gz")]
    for part in ("train", "test")
    for kind, form in (("images", "idx3"), ("labels", "idx1"))
}
_SHOWN = "emnist-byclass-train-… and emnist-byclass-test-…, each images-idx3-ubyte and labels-idx1-ubyte, or their .gz"


def _read(found: Found, cache: Path, progress: Progress) -> Iterator[PhotoClass]:
    """Yield the classes by character: the images of train and test together."""
    images, labels = (
        np.concatenate([read_idx(found.parts[f"{part} {kind}"], dimensions) for part in ("train", "test")])
        for kind, dimensions in (("images", 3), ("labels", 1))
    )
    for label, rows in rows_by_label(found.parts["train labels"], labels, len(images)).items():
        if label >= len(_CHARACTERS):
            raise DataError(f"{found} has the label {label}, and EMNIST by class has 0 … 61: get the original files")
        yield array_class(found.place, _CHARACTERS[label], images, rows, _upright)


def _upright(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return an image of the files, whose rows are columns."""
    return pixels.T


class EmnistConfig(ImageConfig):
    """Parameters of `Emnist`, beside those of `ImageConfig`.

    Attributes:
        image_size: height and width in pixels; the original images have 28.
        channels: 1 for grey, 3 for three equal channels.
        invert: whether strokes are 0 on 255, as in the files of Omniglot, or 255 on 0, as in those of EMNIST.
    """

    image_size: int = Field(default=28, ge=1, le=4096)
    channels: Literal[1, 3] = 1
    invert: bool = False


class Emnist(PublishedDataset):
    """EMNIST by class as [1, S, S] images, for tests of what is trained on Omniglot (Chen et al. 2019).

    The 31 classes of even labels validate, and the 31 of odd labels test. Train is val: another dataset trains.
    """

    Config: ClassVar[type[api.Config]] = EmnistConfig
    config: EmnistConfig
    search: Search = Search(
        "EMNIST",
        "emnist",
        ("emnist", "EMNIST", "EMNIST/raw", "emnist/raw", "emnist/EMNIST/raw", "gzip", "emnist/gzip"),
        (Form(_PARTS, "by class, as torchvision keeps it", _read, shown=_SHOWN),),
        ("gzip.zip", "emnist/gzip.zip"),
    )
    images: ClassVar[int | None] = 814_255
    suites: ClassVar[Sequence[str]] = ("cross-char",)
    fetched: ClassVar[bool] = True

    @property
    def scale(self) -> tuple[Sequence[float], Sequence[float]]:
        """Return those that leave values between 0 and 1, as Omniglot's."""
        return (0.0,), (1.0,)

    def fetch(self, folder: Path) -> None:
        """Download EMNIST by torchvision, which checks its MD5."""
        from torchvision import datasets

        datasets.EMNIST(str(folder), split="byclass", download=True)

    def members(self, names: Sequence[str]) -> Mapping[str, Sequence[int]]:
        """Return the classes of each split, by label."""
        even, odd = ([c for c, name in enumerate(names) if _CHARACTERS.index(name) % 2 == rest] for rest in (0, 1))
        return {"train": even, "val": even, "test": odd}

    def finish(self, part: ClassImages) -> ClassImages:
        """Return a class, inverted where that is asked for."""
        return replace(part, images=255 - part.images) if self.config.invert else part
