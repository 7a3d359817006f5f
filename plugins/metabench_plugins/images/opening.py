"""Open a place with images: a folder, a zip archive or a list."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from metabench.api import DataError
from metabench_plugins.images.forms import Form, Found, find_classes, find_in_list
from metabench_plugins.images.trees import FolderTree, Tree, ZipTree, is_hidden

#: Endings of lists of images.
_LISTS = (".csv", ".json")
#: A path that is absolute or climbs, at the beginning of a field.
_OUT = re.compile(rb"""(^|["',;\t ])(/|\.\.[\\/]|[A-Za-z]:[\\/])""", re.MULTILINE)


@contextmanager
def found_images(place: Path, form: Form | None = None, depth: int = 1) -> Iterator[tuple[Found, Tree]]:
    """Yield the classes of a place and its files, which can be read inside the block.

    Args:
        place: a folder, a zip archive, or a list, ``.csv`` or ``.json``.
        form: see `find_classes`; a list is of the form of its ending.
        depth: see `find_classes`.

    Raises:
        DataError: the place cannot be read, or has no classes.
    """
    if place.is_dir():
        tree = FolderTree(place)
        yield find_classes(tree, form, depth), tree
    elif place.suffix.lower() in _LISTS:
        tree = FolderTree(place.parent)
        yield find_in_list(tree, place.name), tree
    else:
        try:
            archive = zipfile.ZipFile(place)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise DataError(
                f"{place} is neither a folder, nor a list (.csv, .json), nor a zip archive that can be read ({error}): "
                "give one of these"
            ) from error
        with archive:
            zipped = ZipTree(place, archive)
            yield find_classes(zipped, form, depth), zipped


def leads_out(place: Path) -> bool:
    """Return whether the images of a place may be elsewhere: it is a list, or has lists with paths that lead out of it.

    The images are not searched, so that a start with a pack is quick.
    """
    if not place.is_dir():
        return place.suffix.lower() in _LISTS
    while True:
        folders = []
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.name.lower().endswith(_LISTS) and entry.is_file() and _OUT.search(Path(entry).read_bytes()):
                    return True
                if entry.is_dir(follow_symlinks=False) and not is_hidden(entry.name):
                    folders.append(Path(entry))
        if len(folders) != 1:
            return False
        place = folders[0]  # a wrapper, see `find_classes`
