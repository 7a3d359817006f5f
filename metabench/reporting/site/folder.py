"""The folder of a site, which is replaced as a whole."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from metabench.errors import StoreError, shown
from metabench.files import read_regular

#: The file that lists the pages, by which a site is known; without them, no folder is replaced.
_LIST = "site.json"


def check_folder(path: Path) -> None:
    """Check that a folder is empty, or a site without other files, or does not exist.

    Raises:
        StoreError: it has files that are of no site, or cannot be read.
    """
    advice = "name an empty folder, or a site of metabench, with --output"
    if Path(os.path.realpath(path)) in [Path.cwd(), *Path.cwd().parents]:
        raise StoreError(f"{path} holds the current folder, and a site replaces its folder: {advice}")
    try:
        if not os.path.lexists(path) or (path.is_dir() and not any(path.iterdir())):
            return
        foreign = sorted(_files(path) - _listed(path)) if path.is_dir() else [path.name]
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error
    if foreign:
        raise StoreError(f"metabench did not write {shown(foreign[0])} in {path}, and does not replace it: {advice}")


def write_folder(path: Path, pages: Iterable[tuple[str, str]]) -> tuple[int, int]:
    """Write the pages of a site, in the place of an earlier one; whole or not at all.

    The pages are written beside the folder, which then takes the place of the earlier one.

    Args:
        path: the folder, see `check_folder`.
        pages: address and text of each page.

    Returns:
        The number of pages, and their size in bytes.

    Raises:
        StoreError: they cannot be written.
    """
    path = Path(os.path.realpath(path))
    work: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
        new = work / "new"
        sizes = {address: _write(new / address, text) for address, text in pages}
        _write(new / _LIST, json.dumps({"pages": sorted(sizes)}, indent=1) + "\n")
        _take_place(new, path, work / "old")
        return len(sizes), sum(sizes.values())
    except OSError as error:
        raise StoreError(
            f"cannot write {path}: {error.strerror or error}. Name another folder with --output"
        ) from error
    finally:
        if work is not None and (path.exists() or not (work / "old").exists()):  # never the only copy
            shutil.rmtree(work, ignore_errors=True)


def _write(path: Path, text: str) -> int:
    """Write a file that no program sees yet; return its size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        size = file.write(text.encode("utf-8"))
        file.flush()
        os.fsync(file.fileno())
    return size


def _take_place(new: Path, path: Path, aside: Path) -> None:
    """Move a folder to its place, and what is there aside; put that back where it fails."""
    try:
        if path.exists():
            path.rename(aside)
        new.rename(path)
    except BaseException:
        if aside.exists() and not path.exists():
            aside.rename(path)
        raise


def _files(path: Path) -> set[str]:
    """Return the files below a folder, relative to it."""
    return {found.relative_to(path).as_posix() for found in path.rglob("*") if not found.is_dir() or found.is_symlink()}


def _listed(path: Path) -> set[str]:
    """Return the files that the site in a folder has; none where it is no site."""
    try:
        pages = json.loads(read_regular(path / _LIST))["pages"]
        return {_LIST, *map(str, pages)}
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return set()
