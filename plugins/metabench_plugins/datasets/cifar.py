"""CIFAR-FS and FC100: the 100 classes of CIFAR-100 as few-shot datasets, 600 images of 32 pixels each.

Bertinetto et al., "Meta-learning with differentiable closed-form solvers", 2019. https://arxiv.org/abs/1805.08136
Oreshkin et al., "TADAM", 2018. https://arxiv.org/abs/1805.10123
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from metabench import api
from metabench.api import DataError, Progress
from metabench_plugins.images.classes import PhotoClass
from metabench_plugins.images.config import ImageConfig
from metabench_plugins.raw.arrays import array_class, checked_images, rows_by_label
from metabench_plugins.raw.class_lists import SPLITS, class_list
from metabench_plugins.raw.dataset import PublishedDataset
from metabench_plugins.raw.folders import class_folders
from metabench_plugins.raw.forms import Form, Found, Search
from metabench_plugins.raw.pickles import as_text, item, read_pickle

#: Mean and standard deviation of MetaOptNet (Lee et al. 2019).
_SCALE = (
    tuple(mean / 255 for mean in (129.37731888, 124.10583864, 112.47758569)),
    tuple(std / 255 for std in (68.20947949, 65.43124043, 70.45866994)),
)
#: Numbers of classes of train, val and test.
_Counts = tuple[int, int, int]
_FOLDER = "cifar-100-python"
_FILES = ("train", "test", "meta")
_SIDE = 32


def _read_python(found: Found, cache: Path, progress: Progress, superclasses: bool) -> Iterator[PhotoClass]:
    """Yield the classes of the pickles of CIFAR-100: train and test together."""
    return _cifar100({name: (path, None) for name, path in found.parts.items()}, superclasses)


def _read_archive(found: Found, cache: Path, progress: Progress, superclasses: bool) -> Iterator[PhotoClass]:
    """Yield the classes of the archive of CIFAR-100."""
    path = found.parts["archive"]
    try:
        with tarfile.open(path) as archive:
            files = {name: (path, archive.extractfile(f"{_FOLDER}/{name}")) for name in _FILES}
            yield from _cifar100(files, superclasses)
    except (tarfile.TarError, KeyError, OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read ({type(error).__name__}: {error}): get the file again") from error


def _cifar100(files: Mapping[str, tuple[Path, IO[bytes] | None]], superclasses: bool) -> Iterator[PhotoClass]:
    """Yield the classes of CIFAR-100.

    Args:
        files: path and open file of ``train``, ``test`` and ``meta``.
        superclasses: whether classes are called SUPERCLASS/CLASS.
    """
    content = {name: (path, read_pickle(path, file)) for name, (path, file) in files.items()}
    place, meta = content["meta"]
    names, titles = (list(map(as_text, item(place, meta, f"{kind}_label_names"))) for kind in ("fine", "coarse"))
    parts = [content[name] for name in _FILES[:2]]
    images = np.concatenate([_planes(path, item(path, part, "data")) for path, part in parts])
    fine, coarse = (
        np.concatenate([item(path, part, f"{kind}_labels") for path, part in parts]) for kind in ("fine", "coarse")
    )
    if len(coarse) != len(fine) or max(fine) >= len(names) or max(coarse) >= len(titles):
        raise DataError(f"the labels of {place.parent} do not fit the names of {place}: get the original files")
    for label, rows in rows_by_label(place, fine, len(images)).items():
        name = f"{titles[coarse[rows[0]]]}/{names[label]}" if superclasses else names[label]
        yield array_class(place.parent, name, images, rows)


def _planes(path: Path, data: Any) -> npt.NDArray[np.uint8]:
    """Return the [n, 32, 32, 3] images of rows of 3072 bytes, which are the planes of red, green and blue."""
    if not (isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.shape[1:] == (3 * _SIDE * _SIDE,)):
        raise DataError(f"data of {path} must be uint8 [n, {3 * _SIDE * _SIDE}]: get the original file")
    return data.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)


def _read_pickles(found: Found, cache: Path, progress: Progress, counts: _Counts) -> Iterator[PhotoClass]:
    """Yield the classes of a pickle for each split, called SPLIT/NUMBER; the number of classes tells the split.

    Args:
        found: see `Form.read`.
        cache: see `Form.read`.
        progress: see `Form.read`.
        counts: numbers of classes of train, val and test; where two are equal, the names of the files tell.
    """
    files = {}
    for name, path in found.parts.items():
        content = read_pickle(path)
        images = checked_images(path, item(path, content, "data"))
        files[name] = path, images, rows_by_label(path, item(path, content, "labels"), len(images))
    classes = {name: len(rows) for name, (_, _, rows) in files.items()}
    # A file that fits its name is not taken for another one.
    free = [name for name, count in zip(SPLITS, counts, strict=True) if classes[name] != count]
    for split, count in zip(SPLITS, counts, strict=True):
        fitting = [name for name in (free if split in free else [split]) if classes[name] == count]
        if not fitting:
            raise DataError(
                f"{found} has no file of the {count} classes of {split}; numbers of classes: "
                f"{', '.join(f'{found.parts[name].name} {number}' for name, number in classes.items())}. Get the "
                "original files"
            )
        path, images, rows = files[fitting[0]]
        for number, of_class in enumerate(rows.values()):
            yield array_class(path, f"{split}/{number:02d}", images, of_class)


def _read_folder(found: Found, cache: Path, progress: Progress) -> Iterator[PhotoClass]:
    """Yield the classes of a folder of class folders."""
    return class_folders(found.parts["data"])


def _has_apples(path: Path) -> bool:
    return (path / "apple").is_dir()


def _is_named(name: str, path: Path) -> bool:
    """Return whether the folder of a file has a name, however it is written."""
    return re.sub(r"\W|_", "", path.parent.name).lower() == name


def _forms(name: str, prefix: str, counts: _Counts, superclasses: bool) -> tuple[Form, ...]:
    """Return the forms of a dataset made from CIFAR-100.

    Args:
        name: the name of its folder; files called ``train.pickle`` are looked for there only.
        prefix: the prefix of a pickle for each split.
        counts: numbers of classes of train, val and test.
        superclasses: whether superclasses tell the splits.
    """
    pickles = "a pickle for each split: MetaOptNet, RFS, learn2learn"
    read_pickles = partial(_read_pickles, counts=counts)
    return (
        Form(
            {name: [f"{_FOLDER}/{name}"] for name in _FILES},
            "CIFAR-100 for Python, as torchvision keeps it",
            partial(_read_python, superclasses=superclasses),
        ),
        Form(
            {"archive": [f"{_FOLDER}.tar.gz"]},
            "CIFAR-100 for Python",
            partial(_read_archive, superclasses=superclasses),
        ),
        Form({split: [f"{prefix}_{split}.pickle"] for split in SPLITS}, pickles, read_pickles),
        Form(
            {split: [f"{split}.pickle"] for split in SPLITS},
            f"{pickles}, in {name}/",
            read_pickles,
            partial(_is_named, name),
        ),
    )


class CifarConfig(ImageConfig):
    """Parameters of `CifarFS` and `FC100`: those of `ImageConfig`.

    Attributes:
        image_size: height and width in pixels; the original images have 32.
    """

    image_size: int = Field(default=_SIDE, ge=1, le=4096)


class _Cifar100(PublishedDataset):
    """Classes of CIFAR-100 in the splits of a class list."""

    Config: ClassVar[type[api.Config]] = CifarConfig
    config: CifarConfig
    images: ClassVar[int | None] = 60000
    images_per_class: ClassVar[int | None] = 600
    fetched: ClassVar[bool] = True
    #: Numbers of classes of train, val and test.
    counts: ClassVar[_Counts]

    @property
    def scale(self) -> tuple[Sequence[float], Sequence[float]]:
        """See `PublishedDataset.scale`."""
        return _SCALE

    def fetch(self, folder: Path) -> None:
        """Download CIFAR-100 by torchvision, which checks its MD5."""
        from torchvision import datasets

        datasets.CIFAR100(str(folder), download=True)

    def check_class(self, found: Found, name: str, count: int) -> None:
        """See `PublishedDataset.check_class`."""
        if not any(self.members([name]).values()):
            raise DataError(f"{found} has the class '{name}', which is not one of the 100 of CIFAR-100")
        super().check_class(found, name, count)

    def members(self, names: Sequence[str]) -> Mapping[str, Sequence[int]]:
        """Return the classes of each split, by class or superclass, or by the split in their name."""
        lists = {split: frozenset(listed) for split, listed in class_list(self.search.name).items()}
        return {
            split: [
                c
                for c, name in enumerate(names)
                if name in lists[split] or name.split("/")[0] in lists[split] or name.startswith(f"{split}/")
            ]
            for split in SPLITS
        }

    def sizes(self) -> Mapping[str, api.SplitSize] | None:
        """Return the sizes of the splits."""
        assert self.images_per_class is not None
        return {
            split: api.SplitSize(count, self.images_per_class) for split, count in zip(SPLITS, self.counts, strict=True)
        }


class CifarFS(_Cifar100):
    """CIFAR-FS as [3, S, S] images: 64 classes to train, 16 to validate, 20 to test (Bertinetto et al. 2019)."""

    counts: ClassVar[_Counts] = (64, 16, 20)
    suites: ClassVar[Sequence[str]] = ("cifarfs",)
    search: Search = Search(
        "CIFAR-FS",
        "cifarfs",
        ("cifarfs", "CIFAR-FS", "cifar-fs", "CIFAR_FS", "cifar100", "cifar-100"),
        (
            *_forms("cifarfs", "CIFAR_FS", counts, superclasses=False),
            Form(
                {"data": ["cifar100/data/", "data/"]},
                "a folder for each class: Bertinetto et al.",
                _read_folder,
                _has_apples,
            ),
        ),
        ("cifar100.zip",),
    )


class FC100(_Cifar100):
    """FC100 as [3, S, S] images: 60 classes to train, 20 to validate, 20 to test, of other superclasses each."""

    counts: ClassVar[_Counts] = (60, 20, 20)
    suites: ClassVar[Sequence[str]] = ("fc100",)
    search: Search = Search(
        "FC100",
        "fc100",
        ("fc100", "FC100", "cifar100", "cifar-100"),
        _forms("fc100", "FC100", counts, superclasses=True),
    )
