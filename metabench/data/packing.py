"""Find raw data, and cache packed copies of datasets.

Raw files are only ever read; packed copies are in the cache. This module imports no torch, so that
`metabench data list` answers at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import platformdirs

from metabench.data.examination import Examination, hashes_of, kept_examination, new_examination
from metabench.data.identical import Findings, Overlapping
from metabench.data.validation import SPLITS, check_pack, check_sizes, check_splits, checked_classes
from metabench.errors import DataError, InvalidData, MetabenchError, in_one_line
from metabench.files import alone
from metabench.packs import ClassImages, Pack, read_pack, write_pack
from metabench.registry.code import code_hash
from metabench.registry.file_classes import is_local

if TYPE_CHECKING:
    from metabench.api import Dataset, DatasetFiles, EpisodeSource, Progress, SourceSplit, Split

__all__ = [
    "DataRoots",
    "LoadedDataset",
    "all_packed_files",
    "dataset_files",
    "load_pack",
    "load_splits",
    "make_pack",
    "pack_path",
    "packed_files",
]

_SUFFIX = ".safetensors"
#: Part of the names of packs: the format of their files.
_FORMAT = 2
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


@dataclass(frozen=True)
class LoadedDataset:
    """A dataset as it is used.

    Attributes:
        splits: the splits ``train``, ``val`` and ``test``, and any others.
        fingerprint: hash of the packed data; of a source, of its class, code and parameters.
        test_content: hash of the test images; of a source, its fingerprint.
        findings: oddities of the images.
        raw_files: number of raw files that the pack was compared with; 0 where there are none.
        remarks: oddities that the dataset noted when it was packed.
        features: folder of the features of its images; None keeps them in memory.
        hashes: file of the hashes of its images, by split; None of a source.
        found_in: see `metabench.api.Dataset.found_in`.
    """

    splits: Mapping[str, Split | SourceSplit]
    fingerprint: str
    test_content: str = ""
    findings: Findings = field(default_factory=Findings)
    raw_files: int = 0
    remarks: Sequence[str] = ()
    features: Path | None = None
    hashes: Path | None = None
    found_in: Mapping[str, str] = field(default_factory=dict)


def pack_path(name: str, dataset: Dataset, roots: DataRoots) -> Path:
    """Return the path of the dataset's packed copy, named by code and parameters.

    Raises:
        DataError: the dataset's parameters cannot be read.
    """
    identity = _guarded(name, "naming its pack", lambda: _identity(name, dataset))
    return roots.cache / _folder(name) / f"v{dataset.version}-{identity}{_SUFFIX}"


def packed_files(name: str, roots: DataRoots) -> list[Path]:
    """Return a dataset's packed copies, one per code and configuration."""
    # Names of unfinished files start with a dot.
    return sorted(path for path in (roots.cache / _folder(name)).glob(f"*{_SUFFIX}") if path.name[0] != ".")


def all_packed_files(roots: DataRoots) -> list[Path]:
    """Return the packed copies of all datasets."""
    return sorted(path for path in roots.cache.glob(f"*/*{_SUFFIX}") if path.name[0] != ".")


def load_pack(name: str, dataset: Dataset, roots: DataRoots, progress: Progress) -> Pack:
    """Return the packed copy of `dataset`; pack if there is none, or if its raw files changed.

    Without raw files, the packed copy is returned as it is.

    Raises:
        DataError: raw data is missing or damaged, the images are not as they must be, the packed copy is damaged, or
            the cache is not writable.
    """
    return _load_pack(name, dataset, roots, progress, _raw_files(name, dataset, roots))


def make_pack(name: str, dataset: Dataset, roots: DataRoots, progress: Progress) -> Pack:
    """Pack `dataset` from its raw data, replacing any packed copy.

    Raises:
        DataError: raw data is missing or damaged, the images are not as they must be, or the cache is not writable.
    """
    path = pack_path(name, dataset, roots)
    with _alone(path, f"another process that packs {name}", progress):
        return _make_pack(name, dataset, roots, progress, _raw_files(name, dataset, roots), path)


def load_splits(name: str, dataset: Dataset | EpisodeSource, roots: DataRoots, progress: Progress) -> LoadedDataset:
    """Return the splits of `dataset`, checked; those of a source need no pack, or are made of one.

    Raises:
        DataError: as `load_pack`, a split is missing or not as it must be, or splits share classes or images.
    """
    from metabench.api import EpisodeSource

    if isinstance(dataset, EpisodeSource):
        return _made(dataset)
    announced = check_sizes(name, _guarded(name, "sizes()", dataset.sizes))
    raw = _raw_files(name, dataset, roots)
    pack = _load_pack(name, dataset, roots, progress, raw)
    if dataset.makes_episodes:
        return _made_of(pack, name, dataset, raw)
    splits = _guarded(name, "split()", lambda: check_splits(name, dataset.split(pack), announced))
    key = _content_key(name, dataset, pack, raw, splits)
    path = pack_path(name, dataset, roots).with_suffix(f".{key[:12]}.json")
    examination = kept_examination(path, key) or _guarded(
        name,
        "reading its images",
        lambda: _examined(path, key, name, splits, dataset.overlapping, progress),
    )
    return LoadedDataset(
        splits=splits,
        fingerprint=pack.fingerprint,
        test_content=examination.test_content,
        findings=examination.findings,
        raw_files=raw.count,
        remarks=pack.remarks,
        features=roots.cache / _folder(name) / "features",
        hashes=hashes_of(path),
        found_in=dict(dataset.found_in),
    )


def _examined(
    path: Path, key: str, name: str, splits: Mapping[str, Split], overlapping: Overlapping, progress: Progress
) -> Examination:
    """Examine the images, unless another process does it meanwhile; arguments as of `new_examination`."""
    with ExitStack() as stack:
        # A cache that cannot be written may still be read.
        with suppress(DataError):
            stack.enter_context(_alone(path, f"another process that checks {name}", progress))
        return kept_examination(path, key) or new_examination(path, key, name, splits, overlapping, progress)


def _made(source: EpisodeSource) -> LoadedDataset:
    """Return the splits of a source."""
    from metabench.api import EpisodeSource, SourceSplit

    code = [code_hash(cls) for cls in _plugin_classes(type(source), EpisodeSource)]
    text = json.dumps([type(source).__qualname__, code, _parameters(source)], sort_keys=True)
    fingerprint = hashlib.sha256(text.encode()).hexdigest()
    return LoadedDataset(
        {split: SourceSplit(source, split, fingerprint) for split in SPLITS},
        fingerprint,
        fingerprint,
        remarks=[
            "its episodes are made and have no classes: no interval about the data, no control by shuffled labels, no "
            "temperature"
        ],
    )


def _made_of(pack: Pack, name: str, dataset: Dataset, raw: _RawFiles) -> LoadedDataset:
    """Return the splits of a dataset whose source reads its pack.

    Raises:
        InvalidData: its split() returns other splits than those of a source.
    """
    from metabench.api import SourceSplit

    splits = _guarded(name, "split()", lambda: dataset.split(pack))
    made = {split: splits.get(split) if isinstance(splits, Mapping) else None for split in SPLITS}
    text = json.dumps([pack.fingerprint, type(dataset).__qualname__, _code(dataset), _parameters(dataset)])
    content = hashlib.sha256(text.encode()).hexdigest()
    checked = {split: replace(one, content=content) for split, one in made.items() if isinstance(one, SourceSplit)}
    if len(checked) < len(SPLITS):
        raise InvalidData(f"the dataset '{name}' makes episodes, but split() returned no SourceSplit.each(source)")
    return LoadedDataset(
        checked,
        pack.fingerprint,
        content,
        raw_files=raw.count,
        remarks=[
            *pack.remarks,
            "its episodes are made and have no classes: no control by shuffled labels, no temperature",
        ],
    )


def _content_key(name: str, dataset: Dataset, pack: Pack, raw: _RawFiles, splits: Mapping[str, Split]) -> str:
    """Return a hash of everything that the images of the splits follow from."""
    forms = {
        split: [content.rows.shape, list(content.class_names), content.offsets.tolist()]
        for split, content in splits.items()
    }
    code = _code(dataset)
    origin = [name, type(dataset).__qualname__, code, _parameters(dataset), dataset.overlapping, raw.stamp]
    text = json.dumps([pack.fingerprint, origin, forms], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class _RawFiles:
    """The raw files of a dataset that were found.

    Attributes:
        count: their number.
        stamp: hash of their relative paths, sizes and times; empty without files.
    """

    count: int
    stamp: str


def _load_pack(name: str, dataset: Dataset, roots: DataRoots, progress: Progress, raw: _RawFiles) -> Pack:
    path = pack_path(name, dataset, roots)
    if (pack := read_pack(path, raw.stamp)) is not None:
        return pack
    with _alone(path, f"another process that packs {name}", progress):
        return read_pack(path, raw.stamp) or _make_pack(name, dataset, roots, progress, raw, path)


def _make_pack(name: str, dataset: Dataset, roots: DataRoots, progress: Progress, raw: _RawFiles, path: Path) -> Pack:
    packed = _guarded(name, "pack()", lambda: dataset.pack(dataset_files(name, roots), progress))
    content: Pack | Iterator[ClassImages]
    if isinstance(packed, Iterator):
        content = checked_classes(name, _guarded_each(name, packed))
    else:
        content = check_pack(name, packed)

    def hashing(done: int, total: int) -> None:
        progress(done >> 20, total >> 20, f"hashing {name}, MiB")

    # The stamp is older than the reading: a file that changed meanwhile is read again.
    pack = write_pack(path, content, raw.stamp, hashing)
    for suffix in ("json", "npz"):
        for examination in path.parent.glob(f"{path.stem}.*.{suffix}"):
            examination.unlink(missing_ok=True)
    return pack


def _guarded_each(name: str, values: Iterator[_T]) -> Iterator[_T]:
    """Yield the values of a generator of a plugin, as `_guarded`."""
    end = object()
    while True:
        value = _guarded(name, "pack()", lambda: next(values, end))
        if value is end:
            return
        yield value  # type: ignore[misc]


def _folder(name: str) -> str:
    """Return the name of a dataset's folder in the cache, without characters that a file system refuses."""
    if is_local(name):
        path, _, attribute = name.rpartition(":")
        name = f"{Path(path).stem}-{attribute}"
    return re.sub(r"[^\w.-]+", "-", name)


def _identity(name: str, dataset: Dataset) -> str:
    """Return a hash of the code and the parameters that determine a pack."""
    parameters = {key: value for key, value in _parameters(dataset).items() if key not in dataset.split_parameters}
    # A relative path means other files in another folder.
    places = [str(path) for path in _paths(parameters)]
    # Code in a file may read the files beside it.
    home = str(Path(name.rpartition(":")[0]).resolve()) if is_local(name) else name
    code = _code(dataset)
    text = json.dumps([_FORMAT, home, type(dataset).__qualname__, code, parameters, places], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _code(dataset: Dataset) -> list[str]:
    """Return the hashes of a dataset's classes."""
    from metabench.api import Dataset

    return [code_hash(cls) for cls in _plugin_classes(type(dataset), Dataset)]


def _plugin_classes(cls: type, base: type) -> list[type]:
    """Return the class and the classes of plugins that it inherits from, below a base class of metabench."""
    return [one for one in cls.__mro__ if issubclass(one, base) and one is not base]


def _parameters(dataset: Dataset | EpisodeSource) -> dict[str, Any]:
    return dict(dataset.config.model_dump(mode="json"))


def _paths(parameters: object) -> list[Path]:
    """Return the existing files and folders that parameters name, at any depth."""
    if isinstance(parameters, Mapping):
        return _paths(list(parameters.values()))
    if isinstance(parameters, list):
        return [path for value in parameters for path in _paths(value)]
    if not isinstance(parameters, str) or not os.path.exists(os.path.expanduser(parameters)):
        return []
    path = Path(parameters).expanduser().resolve()
    return [] if path == Path(path.anchor) else [path]  # "/" is a separator, not a folder of images


def dataset_files(name: str, roots: DataRoots) -> DatasetFiles:
    """Return the directories that a dataset may read and write."""
    folders = [folder for source in roots.sources for folder in (source / _folder(name), source)]
    return _Files([folder for folder in folders if os.path.isdir(folder)], roots.cache / _folder(name), roots.download)


def _raw_files(name: str, dataset: Dataset, roots: DataRoots) -> _RawFiles:
    return _guarded(name, "raw_files()", lambda: _stamped(_raw_places(name, dataset, roots)))


def _raw_places(name: str, dataset: Dataset, roots: DataRoots) -> Iterable[Path]:
    """Return the files and folders that a dataset reads, also missing ones."""
    declared = dataset.raw_files(dataset_files(name, roots))
    if declared is not None:
        return declared
    return [*_paths(_parameters(dataset)), *(source / _folder(name) for source in roots.sources)]


def _stamped(places: Iterable[Path]) -> _RawFiles:
    digest = hashlib.sha256()
    count = 0
    for place in places:
        for relative, status in _files_below(Path(place)):
            digest.update(f"{relative}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(errors="surrogateescape"))
            count += 1
    return _RawFiles(count, digest.hexdigest() if count else "")


def _files_below(place: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the status of each file of a folder, or of a single file, with its path relative to the place."""
    status = _status(place)
    if status is not None:
        yield place.name, status
    for folder, folders, names in os.walk(place):
        folders.sort()
        # Texts, not paths: with thousands of files, a path takes longer than asking for its status.
        inside = os.path.relpath(folder, place).replace(os.sep, "/")
        for name in sorted(names):
            status = _status(os.path.join(folder, name))
            if status is not None:
                yield (name if inside == "." else f"{inside}/{name}"), status


def _status(path: str | Path) -> os.stat_result | None:
    """Return the status of a regular file; None of anything else, e.g. of a link that leads nowhere."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status if stat.S_ISREG(status.st_mode) else None


def _guarded(name: str, method: str, call: Callable[[], _T]) -> _T:
    """Call a method of a plugin's dataset; turn its exceptions into `InvalidData`."""
    try:
        return call()
    except MetabenchError:
        raise
    except Exception as error:
        path = _file_read_by(error)
        where = f" (when it read {path})" if path and path not in str(error) else ""
        raise InvalidData(f"the dataset '{name}' failed in {method}: {in_one_line(error)}{where}") from error


def _file_read_by(error: BaseException) -> str | None:
    """Return the file that a failed call had open or in a variable, such as an image that cannot be decoded."""
    frames = []
    trace = error.__traceback__
    while trace:
        frames.append(trace.tb_frame)
        trace = trace.tb_next
    for frame in reversed(frames):
        for value in frame.f_locals.values():
            place = value if isinstance(value, (str, Path)) else getattr(value, "filename", None)
            if isinstance(place, (str, Path)) and Path(place).suffix != ".py" and os.path.isfile(place):
                return str(place)
    return None


@contextmanager
def _alone(path: Path, other: str, progress: Progress) -> Iterator[None]:
    """Hold the lock of a pack, in a folder that can be written to.

    Args:
        path: the pack.
        other: the process that may hold the lock, for the progress display.
        progress: told that another process holds it.

    Raises:
        DataError: the cache is not writable.
    """
    with ExitStack() as stack:
        # Packing may take a minute and a download: report a full or read-only disk before that.
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path.parent) as probe:
                probe.write(b"0")
            stack.enter_context(alone(path, lambda: progress(0, 0, f"waiting for {other}")))
        except OSError as error:
            raise DataError(
                f"cannot write to the cache {path.parent}: {error.strerror}. "
                "Make it writable, or set METABENCH_CACHE to another directory."
            ) from error
        yield
