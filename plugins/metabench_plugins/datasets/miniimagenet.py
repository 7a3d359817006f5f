"""miniImageNet: 100 classes of ImageNet, 600 images each.

Vinyals et al. 2016; classes of train, val and test: Ravi & Larochelle, "Optimization as a model for few-shot learning",
2017. https://openreview.net/forum?id=rJY0-Kcll
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Literal

from metabench import api
from metabench.api import DataError, Progress
from metabench_plugins.images.classes import PhotoClass
from metabench_plugins.images.config import ImageConfig
from metabench_plugins.images.lists import read_csv
from metabench_plugins.raw.arrays import array_class, checked_images, rows_by_label
from metabench_plugins.raw.class_lists import SPLITS, class_list
from metabench_plugins.raw.dataset import IMAGENET, MINIIMAGENET, OF_IMAGENET, PublishedDataset
from metabench_plugins.raw.folders import class_folders, has_wnids, listed_classes, names_wnids
from metabench_plugins.raw.forms import Form, Found, Search
from metabench_plugins.raw.pickles import as_text, item, read_pickle


class MiniImageNetConfig(ImageConfig):
    """Parameters of `MiniImageNet`, beside those of `ImageConfig`.

    Attributes:
        train_on: ``train``, the 64 training classes, or ``all`` 100, for tests on other datasets (Chen et al. 2019):
            val and test are then as they were.
        normalise: mean and standard deviation of ``miniimagenet`` (MetaOptNet), or of ``imagenet``, which suites of
            several datasets share.
    """

    train_on: Literal["train", "all"] = "train"
    normalise: Literal["miniimagenet", "imagenet"] = "miniimagenet"


def _read_caches(found: Found, cache: Path, progress: Progress) -> Iterator[PhotoClass]:
    """Yield the classes of pickled dictionaries of an array and the rows of each class."""
    for path in found.parts.values():
        content = read_pickle(path)
        images = checked_images(path, item(path, content, "image_data"))
        for name, rows in _class_rows(path, item(path, content, "class_dict"), len(images)).items():
            yield array_class(path, name, images, rows)


def _class_rows(path: Path, content: Any, count: int) -> dict[str, list[int]]:
    try:
        rows = {as_text(name): [int(row) for row in rows] for name, rows in content.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise DataError(f"class_dict of {path} must give the rows of each class: get another file") from error
    if any(not 0 <= row < count for row in chain.from_iterable(rows.values())):
        raise DataError(f"class_dict of {path} names rows beyond its {count} images: get another file")
    return rows


def _read_pickles(found: Found, cache: Path, progress: Progress) -> Iterator[PhotoClass]:
    """Yield the classes of pickled dictionaries of an array, labels, and the label of each wnid."""
    for path in found.parts.values():
        content = read_pickle(path)
        images = checked_images(path, item(path, content, "data"))
        rows = rows_by_label(path, item(path, content, "labels"), len(images))
        names = {int(label): as_text(name) for name, label in dict(item(path, content, "catname2label")).items()}
        for label, of_class in rows.items():
            yield array_class(path, names.get(label, f"label {label}"), images, of_class)


def _read_lists(found: Found, cache: Path, progress: Progress) -> Iterator[PhotoClass]:
    """Yield the classes of three CSV files and a folder of photographs."""
    for path in found.parts.values():
        rows = read_csv(path.read_text(encoding="utf-8-sig", errors="replace"), str(path))
        yield from listed_classes(found.place, rows, ("images", "images/{label}", "train/{label}", "."))


def _read_folders(found: Found, cache: Path, progress: Progress) -> Iterator[PhotoClass]:
    """Yield the classes of three folders of class folders."""
    for path in found.parts.values():
        yield from class_folders(path)


_FORMS = (
    Form(
        {
            "train": ["mini-imagenet-cache-train.pkl"],
            "val": ["mini-imagenet-cache-val.pkl", "mini-imagenet-cache-validation.pkl"],
            "test": ["mini-imagenet-cache-test.pkl"],
        },
        "Ren et al. 2018, learn2learn, torchmeta",
        _read_caches,
    ),
    Form(
        {
            "train": ["miniImageNet_category_split_train_phase_train.pickle"],
            "val": ["miniImageNet_category_split_val.pickle"],
            "test": ["miniImageNet_category_split_test.pickle"],
        },
        "Gidaris & Komodakis 2018, MetaOptNet, RFS, Meta-Baseline",
        _read_pickles,
    ),
    Form(
        {split: [f"{split}.csv"] for split in SPLITS},
        "lists of photographs in images/, images/WNID/ or train/WNID/: Ravi & Larochelle 2017, LibFewShot, easyfsl",
        _read_lists,
        names_wnids,
        ("images", "train"),
    ),
    Form({split: [f"{split}/"] for split in SPLITS}, "photographs in a folder for each wnid", _read_folders, has_wnids),
)


class MiniImageNet(PublishedDataset):
    """miniImageNet as [3, S, S] images: 64 classes to train, 16 to validate, 20 to test.

    A class belongs to the split that its wnid has in the list of Ravi & Larochelle, whatever its file is called.
    """

    Config: ClassVar[type[api.Config]] = MiniImageNetConfig
    config: MiniImageNetConfig
    split_parameters: ClassVar[Sequence[str]] = ("train_on", "normalise")
    found_in: Mapping[str, str] = OF_IMAGENET
    search: Search = Search(
        "miniImageNet",
        "miniimagenet",
        ("miniimagenet", "mini-imagenet", "mini_imagenet", "miniImageNet", "MiniImagenet", "miniImageNet--ravi"),
        _FORMS,
        ("mini-imagenet.tar.gz", "mini-imagenet.tar", "miniImageNet--ravi.tar.gz"),
    )
    images: ClassVar[int | None] = 60000
    images_per_class: ClassVar[int | None] = 600
    suites: ClassVar[Sequence[str]] = ("miniimagenet", "cross-domain")

    @property
    def known(self) -> Collection[str]:
        """Return the 100 wnids."""
        return frozenset(chain.from_iterable(class_list("miniimagenet").values()))

    @property
    def scale(self) -> tuple[Sequence[float], Sequence[float]]:
        """See `PublishedDataset.scale`."""
        return MINIIMAGENET if self.config.normalise == "miniimagenet" else IMAGENET

    def members(self, names: Sequence[str]) -> Mapping[str, Sequence[int]]:
        """Return the classes of each split, by wnid."""
        members = {split: [names.index(wnid) for wnid in wnids] for split, wnids in class_list("miniimagenet").items()}
        return members if self.config.train_on == "train" else {**members, "train": range(len(names))}

    def sizes(self) -> Mapping[str, api.SplitSize] | None:
        """Return the sizes of the splits."""
        counts = {split: len(wnids) for split, wnids in class_list("miniimagenet").items()}
        if self.config.train_on == "all":
            counts["train"] = sum(counts.values())
        assert self.images_per_class is not None
        return {split: api.SplitSize(count, self.images_per_class) for split, count in counts.items()}
