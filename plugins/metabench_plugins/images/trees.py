"""Files below a folder, or in a zip archive that is not unpacked."""

from __future__ import annotations

import abc
import io
import os
import unicodedata
import zipfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath

from metabench.api import DataError
from metabench_plugins.images.decoding import DamagedImage, Encoded

#: Most bytes of a list of images, and of an image in an archive: more would fill the memory.
MOST_BYTES = 2**28
#: Names that macOS and Windows add, in small letters.
_ADDED = ("__macosx", "thumbs.db", "desktop.ini")


class Tree(abc.ABC):
    """Files with paths relative to a place; hidden files are left out.

    Attributes:
        place: the folder or archive.
    """

    def __init__(self, place: Path) -> None:
        self.place = place

    @property
    @abc.abstractmethod
    def files(self) -> Sequence[str]:
        """Return the paths of all files, sorted by their Unicode form NFC."""

    @property
    @abc.abstractmethod
    def folders(self) -> Sequence[str]:
        """Return the paths of all folders."""

    @property
    def links(self) -> Sequence[str]:
        """Return the paths of links that are not followed."""
        return ()

    @abc.abstractmethod
    def below(self, folder: str) -> Sequence[str] | None:
        """Return the paths of all files below a folder, or None if there is no such folder."""

    @abc.abstractmethod
    def has(self, path: str) -> bool:
        """Return whether there is a file of a path."""

    @abc.abstractmethod
    def source(self, path: str) -> Encoded:
        """Return a file for decoding."""

    @abc.abstractmethod
    def content(self, path: str) -> bytes:
        """Return the content of a file.

        Raises:
            DataError: the file cannot be read, or is too large.
        """

    def shown(self, path: str) -> str:
        """Return the place of a file for messages."""
        return str(self.place / path)

    def text(self, path: str) -> str:
        """Return the text of a file in UTF-8.

        Raises:
            DataError: the file cannot be read, is too large, or is of another encoding.
        """
        try:
            return self.content(path).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self.shown(path)} is no text in UTF-8 (byte {error.start}): save it in that encoding"
            ) from error


class FolderTree(Tree):
    """The files below a folder.

    Links to folders are not followed, nor are links to files outside.
    """

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self._home = str(place)  # a text: lists have thousands of paths

    @cached_property
    def _walked(self) -> tuple[list[str], list[str], list[str]]:
        """Return the paths of files, of folders, and of links that are not followed."""
        files, folders, links = list[str](), list[str](), list[str]()
        home = os.path.realpath(self.place) + os.sep
        waiting = [""]
        while waiting:
            folder = waiting.pop()
            for entry in _entries(self.place / folder):
                path = f"{folder}{entry.name}"
                if is_hidden(entry.name):
                    continue
                if entry.is_symlink():
                    inside = os.path.realpath(entry.path).startswith(home) and os.path.isfile(entry.path)
                    (files if inside else links).append(path)
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(path)
                    waiting.append(f"{path}/")
                elif entry.is_file(follow_symlinks=False):
                    files.append(path)
        return sorted(files, key=plain), sorted(folders, key=plain), sorted(links, key=plain)

    @property
    def files(self) -> Sequence[str]:
        """See `Tree.files`."""
        return self._walked[0]

    @property
    def folders(self) -> Sequence[str]:
        """See `Tree.folders`."""
        return self._walked[1]

    @property
    def links(self) -> Sequence[str]:
        """See `Tree.links`."""
        return self._walked[2]

    def below(self, folder: str) -> Sequence[str] | None:
        """Return the paths of all files below a folder, which may be absolute or lead out of the place."""
        if "\0" in folder or not (self.place / folder).is_dir():
            return None
        return [f"{folder.rstrip('/')}/{path}" for path in FolderTree(self.place / folder).files]

    def has(self, path: str) -> bool:
        """Return whether there is a file of a path, which may be absolute or lead out of the folder."""
        return "\0" not in path and os.path.isfile(os.path.join(self._home, path))

    def source(self, path: str) -> Encoded:
        """See `Tree.source`."""
        return self.place / path

    def content(self, path: str) -> bytes:
        """See `Tree.content`."""
        place = self.place / path
        try:
            if place.stat().st_size > MOST_BYTES:
                raise DataError(f"{place} has more than {MOST_BYTES >> 20} MiB, too much for a list of images")
            return place.read_bytes()
        except OSError as error:
            raise DataError(f"{place} cannot be read: {error.strerror}") from error


class ZipTree(Tree):
    """The files of a zip archive.

    Raises:
        DataError: the archive is encrypted.
    """

    def __init__(self, place: Path, archive: zipfile.ZipFile) -> None:
        super().__init__(place)
        self._archive = archive
        self._members = dict[str, zipfile.ZipInfo]()
        for member in archive.infolist():
            path = PurePosixPath(member.filename.replace("\\", "/"))
            if not (member.is_dir() or any(map(is_hidden, path.parts)) or path.is_absolute() or ".." in path.parts):
                self._members[path.as_posix()] = member
        if any(member.flag_bits & 1 for member in self._members.values()):
            raise DataError(f"{place} is encrypted: unpack it, and give the folder")

    @cached_property
    def files(self) -> Sequence[str]:
        """See `Tree.files`."""
        return sorted(self._members, key=plain)

    @cached_property
    def folders(self) -> Sequence[str]:
        """Return the paths of folders that hold files; an archive need not list others."""
        found = {parent.as_posix() for path in self._members for parent in PurePosixPath(path).parents}
        return sorted(found - {"."}, key=plain)

    def below(self, folder: str) -> Sequence[str] | None:
        """See `Tree.below`."""
        start = f"{folder.rstrip('/')}/"
        return [path for path in self.files if path.startswith(start)] or None

    def has(self, path: str) -> bool:
        """See `Tree.has`."""
        return path in self._members

    def source(self, path: str) -> Encoded:
        """See `Tree.source`."""

        def opened() -> io.BytesIO:
            member = self._members[path]
            if member.file_size > MOST_BYTES:
                raise DamagedImage(f"it has {member.file_size >> 20} MiB when unpacked, more than {MOST_BYTES >> 20}")
            return io.BytesIO(self._archive.read(member))

        return opened

    def content(self, path: str) -> bytes:
        """See `Tree.content`."""
        member = self._members[path]
        if member.file_size > MOST_BYTES:
            raise DataError(f"{self.shown(path)} has more than {MOST_BYTES >> 20} MiB, too much for a list of images")
        try:
            return self._archive.read(member)
        except Exception as error:  # of zlib and zipfile, for damaged archives
            raise DataError(f"{self.shown(path)} cannot be unpacked ({error}): replace the archive") from error


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise DataError(f"the folder {folder} cannot be read: {error.strerror}. Make it readable") from error


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is one that systems hide or add."""
    return name.startswith(".") or name.lower() in _ADDED


def plain(text: str) -> str:
    """Return a name in Unicode's form NFC, with an escape for each byte that is no text."""
    return unicodedata.normalize("NFC", text.encode("utf-8", "backslashreplace").decode())
