"""The forms in which people keep a dataset, and the search for their files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from metabench.api import DataError, Progress
from metabench_plugins.images.classes import PhotoClass


def anything(path: Path) -> bool:
    """Return True: the name of a file says enough."""
    return True


@dataclass(frozen=True)
class Found:
    """Files that hold a dataset together.

    Attributes:
        parts: the path of each part.
        place: the folder in which they were found.
        origin: the authors and libraries that use the form.
    """

    parts: Mapping[str, Path]
    place: Path
    origin: str

    def __str__(self) -> str:
        """Return the folder and the form, for messages."""
        return f"{self.place} ({self.origin})"


#: Returns the classes of files that were found; is told of the folder for large temporary files, and tells progress.
Read = Callable[[Found, Path, Progress], Iterable[PhotoClass]]


@dataclass(frozen=True)
class Form:
    """A form in which people keep a dataset.

    Attributes:
        parts: for each part, the relative paths under which it is known; a folder's ends with "/".
        origin: the authors and libraries that use the form.
        read: returns the classes.
        looks: whether a file or folder of such a name holds this dataset: names like ``train/`` are everybody's.
        beside: relative paths of further files and folders that the form reads.
        shown: the names of all parts, for messages; empty lists them.
        count: returns the number of images of each class where `read` would read all images first; None where not.
    """

    parts: Mapping[str, Sequence[str]]
    origin: str
    read: Read
    looks: Callable[[Path], bool] = anything
    beside: Sequence[str] = ()
    shown: str = ""
    count: Callable[[Found], Mapping[str, int]] | None = None

    def parts_in(self, place: Path) -> dict[str, Path]:
        """Return the path of each part that a folder has."""
        return {part: path for part, names in self.parts.items() if (path := self._path(place, names))}

    def _path(self, place: Path, names: Sequence[str]) -> Path | None:
        for name in names:
            path = place / name
            if (path.is_dir() if name.endswith("/") else path.is_file()) and self.looks(path):
                return path
        return None

    def __str__(self) -> str:
        """Return the names of all parts, and their origin."""
        return f"{self.shown or ', '.join(' or '.join(names) for names in self.parts.values())} ({self.origin})"


@dataclass(frozen=True)
class Search:
    """Looks for a dataset in any of its forms.

    Attributes:
        title: the dataset's name in messages.
        name: the dataset's name in suites, and of its folder in METABENCH_DATA.
        folders: other names of that folder, and of folders in it.
        forms: the forms, in the order of the search.
        archives: archives of the dataset, which are to be unpacked.
    """

    title: str
    name: str
    folders: Sequence[str]
    forms: Sequence[Form]
    archives: Sequence[str] = ()

    def find(self, sources: Sequence[Path]) -> tuple[Form, Found] | None:
        """Return the first form of which all parts are in one place; None without any."""
        for form in self.forms:
            for place in self._places(sources):
                parts = form.parts_in(place)
                if len(parts) == len(form.parts):
                    return form, Found(parts, place, form.origin)
        return None

    def incomplete(self, sources: Sequence[Path]) -> DataError | None:
        """Return the error that names the missing files of the most complete form, or an archive; None without any."""
        places = self._places(sources)
        partial = [
            (len(parts) / len(form.parts), form, place)
            for place in places
            for form in self.forms
            if (parts := form.parts_in(place))
        ]
        if partial:
            _, form, place = max(partial, key=lambda one: one[0])
            parts = form.parts_in(place)
            there = ", ".join(path.relative_to(place).as_posix() for path in parts.values())
            absent = ", ".join(" or ".join(form.parts[part]) for part in form.parts if part not in parts)
            return DataError(f"{self.title}: {place} has {there}, but not {absent}: put it there")
        archives = [place / name for place in places for name in self.archives if (place / name).is_file()]
        return DataError(f"{self.title}: {archives[0]} is an archive: unpack it where it is") if archives else None

    def missing(self, sources: Sequence[Path], reason: str = "") -> DataError:
        """Return the error that says which files were looked for, and where.

        Args:
            sources: the folders of the search.
            reason: a further reason, e.g. why a download failed.
        """
        if sources:
            others = f" and its folders {', '.join(self.folders)}" if self.folders else ""
            searched = f"it is not in {' or '.join(map(str, sources))}{others}"
        else:
            searched = "METABENCH_DATA, the folder of your datasets, is not set"
        lines = "".join(f"\n- {form}" for form in self.forms)
        return DataError(
            f"{self.title} is missing: {searched}{reason and f', and {reason}'}.\n"
            f"Put the files of one of its forms into METABENCH_DATA/{self.name}:{lines}\n"
            "`metabench run quickstart` needs no data."
        )

    def _places(self, sources: Sequence[Path]) -> list[Path]:
        """Return the folders of the search, in order."""
        return [place for source in sources for place in (source, *(source / name for name in self.folders))]
