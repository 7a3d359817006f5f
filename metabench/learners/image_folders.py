"""Find image files in folders, and read them as a dataset reads its own."""

from __future__ import annotations

import os
import unicodedata
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from metabench.api import Dataset, Progress
from metabench.errors import DataError, InvalidData, in_one_line
from metabench.text import counted

#: Images that are read before the progress is told.
_AT_ONCE = 64
#: Most files that a message names.
_NAMED = 20

#: [n, C, H, W] uint8 images.
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ImageFile:
    """An image file.

    Attributes:
        name: its path relative to the folder that was searched.
        path: its place.
        folder: the name of the class folder that it is in; empty if in none.
    """

    name: str
    path: Path
    folder: str


@dataclass(frozen=True)
class EpisodeFiles:
    """The image files of an episode.

    Attributes:
        classes: [N] names of the classes, sorted.
        support: the support images, each in the folder of its class.
        queries: the images to ask about.
    """

    classes: Sequence[str]
    support: Sequence[ImageFile]
    queries: Sequence[ImageFile]

    @property
    def labels(self) -> list[int]:
        """Return the label 0 … N-1 of each support image."""
        return [self.classes.index(image.folder) for image in self.support]


def images_in(place: Path) -> list[ImageFile]:
    """Return the image files of a folder at any depth, by name; other files and hidden ones are left out.

    Args:
        place: a folder, whose folders are classes, or one image file.

    Raises:
        DataError: the place is missing, or has no images.
    """
    if not place.exists():
        raise DataError(f"there is no folder {place}: correct the path")
    if place.is_file():
        found = [ImageFile(place.name, place, "")] if _is_image(place.name) else []
    else:
        found = [_image_file(place, path) for path in _files_below(place) if _is_image(path.name)]
    if not found:
        raise DataError(f"{place} has no images: give a folder with image files, or class folders of them")
    return found


def files_of_episode(support: Path, query: Path) -> EpisodeFiles:
    """Return the files of a support set, and of queries.

    Args:
        support: a folder with a folder of images for each class.
        query: a folder of images, with class folders or none, or one image.

    Raises:
        DataError: a place is missing or has no images, a support image is in no class folder, or there is one class.
    """
    shown = images_in(support)
    loose = [image.path for image in shown if not image.folder]
    if loose:
        raise DataError(f"{loose[0]} is in no class folder: put each support image into a folder of its class")
    classes = sorted({image.folder for image in shown})
    if len(classes) < 2:
        raise DataError(f"{support} has one class, '{classes[0]}': a method needs two to tell apart")
    return EpisodeFiles(classes, shown, images_in(query))


def read_images(images: Sequence[ImageFile], dataset: Dataset, shape: Sequence[int], progress: Progress) -> Pixels:
    """Return the [n, C, H, W] pixels of image files, read by several threads.

    Args:
        images: the files, at least one.
        dataset: the dataset that reads them.
        shape: (C, H, W) of its images.
        progress: told of the progress.

    Raises:
        DataError: files are damaged, which are named all at once.
        InvalidData: the dataset's class fails, or returns other images.
    """
    pixels, damaged = np.empty((len(images), *shape), np.uint8), list[str]()
    with ThreadPoolExecutor(_cores()) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, on oddities of headers
        for start in range(0, len(images), _AT_ONCE):
            part = images[start : start + _AT_ONCE]
            for number, read in enumerate(pool.map(lambda image: _read(image, dataset, shape), part), start):
                if isinstance(read, str):
                    damaged.append(f"{images[number].path} ({read})")
                else:
                    pixels[number] = read
            progress(start + len(part), len(images), "reading images")
    if damaged:
        more = [f"… and {len(damaged) - _NAMED} more"] if len(damaged) > _NAMED else []
        advice = f"replace or remove {'it' if len(damaged) == 1 else 'them'}"
        head = f"{counted(len(damaged), 'image')} cannot be read, {advice}:"
        raise DataError("\n  ".join([head, *damaged[:_NAMED], *more]))
    return pixels


def _read(image: ImageFile, dataset: Dataset, shape: Sequence[int]) -> Pixels | str:
    """Return the pixels of a file, or what is wrong with it."""
    try:
        pixels = dataset.read_image(image.path)
    except DataError as error:
        return str(error)
    except Exception as error:  # a plugin may raise anything
        raise InvalidData(
            f"{type(dataset).__name__} failed in read_image({image.path}): {in_one_line(error)}"
        ) from error
    if pixels.dtype != np.uint8 or pixels.shape != tuple(shape):
        raise InvalidData(
            f"{type(dataset).__name__}.read_image returned {pixels.dtype} of {list(pixels.shape)}: uint8 of "
            f"{list(shape)}, as its splits have, is needed"
        )
    return pixels


def _image_file(place: Path, path: Path) -> ImageFile:
    name = path.relative_to(place).as_posix()
    folder = name.partition("/")[0] if "/" in name else ""
    return ImageFile(name, path, unicodedata.normalize("NFC", folder))


def _files_below(place: Path) -> list[Path]:
    found = []
    for folder, folders, names in os.walk(place):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(folder, name) for name in names if not name.startswith(".")]
    return sorted(found)


def _is_image(name: str) -> bool:
    """Return whether a file has the ending of an image that Pillow opens."""
    form = Image.registered_extensions().get(os.path.splitext(name)[1].lower())
    return form in Image.OPEN


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
