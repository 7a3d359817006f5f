"""Find raw data, and cache packed copies of datasets.

Raw files are only ever read; packed copies are in the cache. This module imports no torch, so that
`metabench data list` answers at once.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import platformdirs

from metabench.errors import DataError, MetabenchError, in_one_line
from metabench.packs import Pack, read_pack, write_pack

if TYPE_CHECKING:
    from metabench.api import Dataset, Progress, Split

__all__ = ["DataRoots", "load_pack", "load_splits", "make_pack", "pack_path", "packed_files"]

_SUFFIX = ".safetensors"
_T = TypeVar("_T")


@dataclass(frozen=True)
class DataRoots:
    """Directories for raw and packed data.

    Attributes:
        sources: directories with raw data, in search order; never written to.
        cache: directory of packed copies and downloads.
        download: whether a dataset may download its raw data.
    """

    sources: tuple[Path, ...]
    cache: Path
    download: bool = True

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> DataRoots:
        """Read the directories from environment variables.

        METABENCH_DATA is a path list; METABENCH_OFFLINE=1 forbids downloads; METABENCH_CACHE defaults to the platform's
        cache directory.

        Raises:
            DataError: METABENCH_DATA names a directory that does not exist.
        """
        entries = environ.get("METABENCH_DATA", "").split(os.pathsep)
        sources = tuple(Path(entry).expanduser() for entry in entries if entry)
        for source in sources:
            if not os.path.isdir(source):
                raise DataError(f"METABENCH_DATA names {source}, which is not a directory: correct it or unset it")
        cache = environ.get("METABENCH_CACHE")
        return cls(
            sources=sources,
            cache=Path(cache).expanduser() if cache else platformdirs.user_cache_path("metabench"),
            download=environ.get("METABENCH_OFFLINE", "") in ("", "0"),
        )


@dataclass
class _Files:
    """Implements `metabench.api.DatasetFiles` for one dataset."""

    sources: Sequence[Path]
    cache: Path
    download: bool


def pack_path(name: str, dataset: Dataset, roots: DataRoots) -> Path:
    """Return the path of the dataset's packed copy."""
    return roots.cache / name / f"{dataset.pack_name}{_SUFFIX}"


def packed_files(name: str, roots: DataRoots) -> list[Path]:
    """Return a dataset's packed copies, one per configuration."""
    # Names of unfinished files start with a dot.
    return sorted(path for path in (roots.cache / name).glob(f"*{_SUFFIX}") if path.name[0] != ".")


def load_pack(name: str, dataset: Dataset, roots: DataRoots, progress: Progress) -> Pack:
    """Return the packed copy of `dataset`; pack if needed.

    Raises:
        DataError: raw data is missing or damaged, the packed copy is damaged, or the cache is not writable.
    """
    pack = read_pack(pack_path(name, dataset, roots))
    return make_pack(name, dataset, roots, progress) if pack is None else pack


def make_pack(name: str, dataset: Dataset, roots: DataRoots, progress: Progress) -> Pack:
    """Pack `dataset` from its raw data, replacing any packed copy.

    Raises:
        DataError: raw data is missing or damaged, or the cache is not writable.
    """
    path = pack_path(name, dataset, roots)
    _check_writable(path.parent)
    folders = [folder for source in roots.sources for folder in (source / name, source)]
    files = _Files([folder for folder in folders if os.path.isdir(folder)], path.parent, roots.download)
    pack = _guarded(name, lambda: dataset.pack(files, progress))
    write_pack(path, pack)
    return pack


def load_splits(name: str, dataset: Dataset, roots: DataRoots, progress: Progress) -> tuple[Mapping[str, Split], str]:
    """Return the splits of `dataset` and its packed data's fingerprint.

    Raises:
        DataError: as `load_pack`, or a split is missing.
    """
    pack = load_pack(name, dataset, roots, progress)
    splits = _guarded(name, lambda: dataset.split(pack))
    missing = {"train", "val", "test"} - set(splits)
    if missing:
        raise DataError(
            f"the dataset '{name}' has no split {' and no split '.join(sorted(missing))}: its split() must return "
            "train, val and test"
        )
    return splits, pack.fingerprint


def _guarded(name: str, call: Callable[[], _T]) -> _T:
    """Call a plugin's dataset; turn its exceptions into a `DataError`."""
    try:
        return call()
    except MetabenchError:
        raise
    except Exception as error:
        raise DataError(f"the dataset '{name}' failed: {in_one_line(error)}") from error


def _check_writable(folder: Path) -> None:
    # Packing may take a minute and a download: report a full or read-only disk before that.
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"0")
    except OSError as error:
        raise DataError(
            f"cannot write to the cache {folder}: {error.strerror}. "
            "Make it writable, or set METABENCH_CACHE to another directory."
        ) from error
