"""Photographs in class folders and in lists."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from metabench.api import DataError
from metabench_plugins.images.classes import Photo, PhotoClass
from metabench_plugins.images.decoding import is_image
from metabench_plugins.images.lists import Row

#: The name of a class of ImageNet.
_WNID = re.compile(r"n\d{8}")
#: Entries of a folder, and bytes of a list, in which a class of ImageNet is looked for.
_LOOKED_AT = 1000


def has_wnids(path: Path) -> bool:
    """Return whether a folder has class folders of ImageNet."""
    with os.scandir(path) as entries:
        return any(_WNID.fullmatch(entry.name) for entry in islice(entries, _LOOKED_AT))


def names_wnids(path: Path) -> bool:
    """Return whether the first lines of a list name a class of ImageNet."""
    with open(path, encoding="utf-8", errors="replace") as file:
        return bool(_WNID.search(file.read(_LOOKED_AT)))


def class_folders(path: Path) -> Iterator[PhotoClass]:
    """Yield the class of each folder in a folder, by name.

    Raises:
        DataError: a class folder has no images.
    """
    for folder in sorted(entry for entry in path.iterdir() if entry.is_dir() and entry.name[0] != "."):
        photos = photos_below(folder)
        if not photos:
            raise DataError(f"the class folder {folder} has no images: get the original files again")
        yield PhotoClass(folder.name, photos)


def photos_below(folder: Path) -> list[Photo]:
    """Return the images of a folder, at any depth, by name; hidden files are left out."""
    found = [
        Path(place, name) for place, _, names in os.walk(folder) for name in names if name[0] != "." and is_image(name)
    ]
    return [Photo(path.relative_to(folder).as_posix(), str(path), path) for path in sorted(found)]


def listed_classes(place: Path, rows: Sequence[Row], folders: Sequence[str]) -> Iterator[PhotoClass]:
    """Yield the classes of a list of images.

    Args:
        place: the folder from which paths start.
        rows: the images.
        folders: relative paths of the folders that may hold the images; ``{label}`` stands for the class.

    Raises:
        DataError: an image is in none of the folders.
    """
    by_class: dict[str, list[Row]] = {}
    for row in rows:
        by_class.setdefault(row.label, []).append(row)
    for name in sorted(by_class):
        yield PhotoClass(name, [_photo(place, row, folders) for row in by_class[name]])


def _photo(place: Path, row: Row, folders: Sequence[str]) -> Photo:
    candidates = [place / folder.format(label=row.label) / row.path for folder in folders]
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        raise DataError(
            f"the image {row.path} of class '{row.label}' is missing: it was looked for as "
            f"{', '.join(str(path) for path in candidates)}"
        )
    return Photo(Path(row.path).name, str(path), path)
