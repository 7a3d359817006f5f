"""Omniglot's one-shot classification task: 20 runs that its authors drew (Lake et al. 2015)."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from metabench import api
from metabench.api import DataError, Pack
from metabench_plugins.datasets.omniglot import Omniglot, OmniglotConfig

#: The archive of the runs, and the file of each run that pairs its images.
_RUNS, _LABELS = "all_runs", "class_labels.txt"
_DAMAGED = (OSError, EOFError, SyntaxError, ValueError, zipfile.BadZipFile, Image.DecompressionBombError)


class OmniglotRunsConfig(OmniglotConfig):
    """Parameters of `OmniglotRuns`; those that are left out are as of `Omniglot`.

    Attributes:
        split: ``lake``, the authors' split: methods learn from the background characters only.
        rotations: ``train``: a training character makes four classes, rotated by 0, 90, 180 and 270 degrees; or
            ``none``.
    """

    split: Literal["lake"] = "lake"
    rotations: Literal["train", "none"] = "train"


class OmniglotRuns(Omniglot):
    """Omniglot with the images of the authors' 20 runs as its test split.

    Train and val are those of `Omniglot`, split ``lake``. A test class is a character of a run, named by its training
    image, ``run01/training/class01``. It has two images: that one, and the test image ``run01/test/itemNN.png`` that
    ``class_labels.txt`` pairs with it. ``eval.episodes_file: PATH/all_runs.zip`` makes each run an episode.
    """

    Config: ClassVar[type[api.Config]] = OmniglotRunsConfig
    #: Expected numbers of runs, and of classes in each.
    runs: ClassVar[tuple[int, int]] = (20, 20)

    config: OmniglotRunsConfig

    def raw_files(self, files: api.DatasetFiles) -> Sequence[Path]:
        """Return the folder or zip of each part and of the runs, where all are there."""
        characters = super().raw_files(files)
        with suppress(DataError):  # `pack` says what is missing
            return [*characters, _find(files.sources)] if characters else ()
        return ()

    def pack(self, files: api.DatasetFiles, progress: api.Progress) -> Pack:
        """Read the characters of `Omniglot`, then the two images of each class of the runs.

        Raises:
            DataError: as `Omniglot.pack`; or the runs are missing or damaged, or not 20 of 20 classes.
        """
        path = _find(files.sources)
        characters = super().pack(files, progress)
        with _opened(path) as runs:
            pairs = self._pairs(runs)
            names = [name for pair in pairs.values() for name in pair]
            images = [self._decoded(runs, name) for name in names]
        drawings = [f"{number:02d}" for number in range(1, self.drawings + 1)] * len(characters.class_names)
        return Pack(
            images=np.concatenate([characters.images, np.stack(images)]),
            offsets=np.concatenate([characters.offsets, characters.offsets[-1] + 2 * np.arange(1, len(pairs) + 1)]),
            class_names=(*characters.class_names, *pairs),
            image_names=(*drawings, *names),
        )

    def split(self, pack: Pack) -> Mapping[str, api.Split]:
        """Return train and val of `Omniglot`, and the classes of the runs as test."""
        first = _first_run(pack)
        begin = int(pack.offsets[first])
        characters = Pack(pack.images[:begin], pack.offsets[: first + 1], pack.class_names[:first])
        return {**super().split(characters), "test": self.test_split(pack)}

    def test_split(self, pack: Pack) -> api.Split:
        """Return the classes of the runs."""
        first = _first_run(pack)
        begin = int(pack.offsets[first])
        assert pack.image_names is not None, "the pack names its images"
        images = torch.tensor(pack.images[begin:])
        return api.Split(
            images=255 - images if self.config.invert else images,
            offsets=torch.from_numpy(pack.offsets[first:] - begin),
            class_names=pack.class_names[first:],
            image_names=pack.image_names[begin:],
        )

    def sizes(self) -> Mapping[str, api.SplitSize]:
        """Return the sizes of the splits."""
        runs, classes = self.runs
        return {**super().sizes(), "test": api.SplitSize(runs * classes, 2)}

    def _pairs(self, runs: _Runs) -> dict[str, tuple[str, str]]:
        """Return the names of the support image and the query of each class, by name of the class.

        Raises:
            DataError: they are not as the authors' runs.
        """
        pairs: dict[str, tuple[str, str]] = {}
        expected_runs, classes = self.runs
        labels = [name for name in runs.members if PurePosixPath(name).name == _LABELS]
        if len(labels) != expected_runs:
            raise DataError(f"{runs.path} has {len(labels)} runs with {_LABELS}, expected {expected_runs}")
        for name in labels:
            lines = [line.split() for line in runs.read(name).decode(errors="replace").splitlines() if line.strip()]
            found = {str(PurePosixPath(line[-1]).with_suffix("")): (line[-1], line[0]) for line in lines}
            if len(lines) != classes or len(found) != classes or any(len(line) != 2 for line in lines):
                raise DataError(
                    f"{name} in {runs.path} pairs {len(found)} training images with test images in {len(lines)} lines, "
                    f"expected {classes} of each: get the original file again"
                )
            pairs |= dict(sorted(found.items()))
        return pairs

    def _decoded(self, runs: _Runs, name: str) -> npt.NDArray[np.uint8]:
        """Return a [1, S, S] image, as the drawings of `Omniglot`.

        Raises:
            DataError: it is missing or damaged.
        """
        if name not in runs.members:
            raise DataError(f"{runs.path} has no {name}, which a {_LABELS} names: get the original file again")
        size = self.config.image_size
        try:
            image = Image.open(io.BytesIO(runs.read(name))).convert("L")
        except _DAMAGED as error:
            raise DataError(
                f"{name} in {runs.path} is damaged ({type(error).__name__}): get the original file again"
            ) from error
        return np.asarray(image.resize((size, size), Image.Resampling.LANCZOS))[None]


def _first_run(pack: Pack) -> int:
    """Return the number of the first class of the runs, which come after the characters."""
    return next(c for c, name in enumerate(pack.class_names) if name.startswith("run"))


@dataclass(frozen=True)
class _Runs:
    """The files of the runs.

    Attributes:
        path: their folder or zip.
        members: path of each file in it, by ``RUN/…`` name, sorted.
        archive: the opened zip; None of a folder.
    """

    path: Path
    members: Mapping[str, str]
    archive: zipfile.ZipFile | None

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        member = self.members[name]
        return (self.path / member).read_bytes() if self.archive is None else self.archive.read(member)


@contextmanager
def _opened(path: Path) -> Iterator[_Runs]:
    """Open the folder or zip of the runs.

    Raises:
        DataError: it cannot be read.
    """
    if path.is_dir():
        yield _Runs(path, _by_name(file.relative_to(path).as_posix() for file in path.rglob("*.*")), None)
        return
    try:
        archive = zipfile.ZipFile(path)
    except _DAMAGED as error:
        raise DataError(f"{path} cannot be read ({error}): get the original file again") from error
    with archive:
        yield _Runs(path, _by_name(archive.namelist()), archive)


def _by_name(members: Iterable[str]) -> dict[str, str]:
    """Return the files below ``run01`` … by name, whatever folder holds the runs; macOS's own files are left out."""
    found: dict[str, str] = {}
    for member in sorted(members):
        parts = member.split("/")
        begin = next((i for i, part in enumerate(parts[:-1]) if re.fullmatch(r"run\d+", part)), None)
        if begin is not None and "__MACOSX" not in parts and not parts[-1].startswith("."):
            found["/".join(parts[begin:])] = member
    return found


def _find(sources: Sequence[Path]) -> Path:
    """Return the folder or zip of the runs, in a folder or one folder deeper.

    Raises:
        DataError: there is none.
    """
    for source in sources:
        for folder in (source, *sorted(path for path in source.iterdir() if path.is_dir())):
            for candidate in (folder / f"{_RUNS}.zip", folder / _RUNS):
                if candidate.exists():
                    return candidate
    searched = f"it is not in {' or '.join(map(str, sources))}" if sources else "METABENCH_DATA is not set"
    raise DataError(
        f"the one-shot runs of Omniglot are missing: {searched}.\n"
        f"Get {_RUNS}.zip from https://github.com/brendenlake/omniglot/tree/master/python/one-shot-classification, and "
        f"put it beside Omniglot, METABENCH_DATA/omniglot/{_RUNS}.zip."
    )
