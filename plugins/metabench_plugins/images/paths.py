"""Find the files that a list names, also where the list was written for another place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from metabench_plugins.images.decoding import is_image
from metabench_plugins.images.lists import Row
from metabench_plugins.images.trees import Tree

#: Folders of images beside a list.
_FOLDERS = ("", "images/")
#: Endings that lists leave out.
_ENDINGS = ("", ".jpg", ".png", ".jpeg")


class Paths:
    """The paths of listed images in a tree.

    A path is taken as it is, then below ``images/``, then without its first folders: lists of CloserLookFewShot have
    the absolute paths of the machine that made them. The last folder stays, since images of two classes may have one
    name.

    Args:
        tree: the files.
        start: the folder of the lists, with a slash at its end.
    """

    def __init__(self, tree: Tree, start: str = "") -> None:
        self._tree, self._start = tree, start
        self._last = (0, "", "")  # the change that led to the last image: most paths of a list need the same one

    def images_of(self, row: Row) -> Sequence[str]:
        """Return the paths of the images of a row; none where they are missing."""
        parts = row.path.replace("\\", "/").split("/")
        if row.is_folder:
            places = (f"{self._start}{folder}{'/'.join(parts[left:])}" for left, folder, _ in _changes(len(parts)))
            found = next((paths for place in places if (paths := self._tree.below(place))), ())
            return [path for path in found if is_image(path)]
        for change in (self._last, *_changes(max(1, len(parts) - 1))):
            left, folder, ending = change
            path = "/".join(parts[left:])
            place = path if path.startswith("/") else f"{self._start}{folder}{path}"
            if self._tree.has(f"{place}{ending}"):
                self._last = change
                return [f"{place}{ending}"]
        return []


def _changes(count: int) -> Iterator[tuple[int, str, str]]:
    """Yield the number of first folders that are left out, a folder that is put before, and an ending."""
    return product(range(count), _FOLDERS, _ENDINGS)
