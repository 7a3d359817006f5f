"""tieredImageNet: 608 classes of ImageNet in 34 categories, of which a split has whole ones.

Ren et al., "Meta-learning for semi-supervised few-shot classification", 2018. https://arxiv.org/abs/1803.00676
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import BinaryIO, ClassVar

import numpy as np
import numpy.typing as npt

from metabench import api
from metabench.api import DataError, Progress
from metabench_plugins.images.classes import Photo, PhotoClass
from metabench_plugins.images.config import ImageConfig
from metabench_plugins.images.lists import read_json
from metabench_plugins.raw.arrays import array_class, checked_images, rows_by_label, unpacked_array
from metabench_plugins.raw.class_lists import SPLITS, class_list
from metabench_plugins.raw.dataset import MINIIMAGENET, OF_IMAGENET, PublishedDataset
from metabench_plugins.raw.folders import class_folders, has_wnids, names_wnids, photos_below
from metabench_plugins.raw.forms import Form, Found, Search
from metabench_plugins.raw.pickles import item, png_at, png_positions, read_pickle


def _read_png_pickles(found: Found, cache: Path, progress: Progress) -> Iterator[PhotoClass]:
    """Yield the classes of pickled lists of PNG images, which are read one by one."""
    for split, file, labels in _splits(found):
        path = found.parts[f"{file}_images"]
        positions = png_positions(path, progress)
        if len(positions) != len(labels):
            raise DataError(
                f"{path} has {len(positions)} PNG images, and {found.parts[f'{file}_labels']} {len(labels)} labels: "
                "get both files again"
            )
        for number, rows in enumerate(rows_by_label(path, labels, len(labels)).values()):
            photos = [
                Photo(f"{row:06d}", f"image {row} of {path}", partial(_png, path, int(positions[row]))) for row in rows
            ]
            yield PhotoClass(f"{split}/{number:03d}", photos)


def _png(path: Path, position: int) -> BinaryIO:
    with open(path, "rb") as file:
        return io.BytesIO(png_at(file, position))


def _read_arrays(found: Found, cache: Path, progress: Progress) -> Iterator[PhotoClass]:
    """Yield the classes of arrays that OpenCV has decoded: their channels are blue, green and red."""
    for split, file, labels in _splits(found):
        path = found.parts[f"{file}_images"]
        with unpacked_array(path, "images", cache, progress) as array:
            images = checked_images(path, array)
            rows = rows_by_label(found.parts[f"{file}_labels"], labels, len(images))
            for number, of_class in enumerate(rows.values()):
                yield array_class(path, f"{split}/{number:03d}", images, of_class, _reversed)


def _count(found: Found) -> dict[str, int]:
    """Return the number of images of each class, by the labels."""
    return {
        f"{split}/{number:03d}": int(count)
        for split, _, labels in _splits(found)
        for number, count in enumerate(np.unique(labels, return_counts=True)[1])
    }


def _reversed(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return pixels[..., ::-1]


def _splits(found: Found) -> list[tuple[str, str, npt.NDArray[np.int64]]]:
    """Return each split, the name of its file, and its labels; the number of classes tells the split.

    Raises:
        DataError: a file is not as it must be, or has as many classes as no split.
    """
    split_of = {len(wnids): split for split, wnids in class_list("tieredimagenet").items()}
    splits = {}
    for file in SPLITS:
        path = found.parts[f"{file}_labels"]
        content = read_pickle(path)
        has_labels = isinstance(content, dict) and ("labels" in content or b"labels" in content)
        labels = np.asarray(item(path, content, "labels" if has_labels else "label_specific"))
        count = len(np.unique(labels))
        split = split_of.get(count)
        if split is None or split in splits:
            raise DataError(
                f"{path} has {count} classes{' as another file has' if split else ''}: the splits of tieredImageNet "
                f"have {', '.join(f'{number} ({name})' for number, name in split_of.items())}. Get the original files"
            )
        splits[split] = (split, file, labels)
    return [splits[split] for split in SPLITS]


def _read_folders(found: Found, cache: Path, progress: Progress) -> Iterator[PhotoClass]:
    """Yield the classes of three folders of class folders."""
    for path in found.parts.values():
        yield from class_folders(path)


def _read_lists(found: Found, cache: Path, progress: Progress) -> Iterator[PhotoClass]:
    """Yield the classes of three lists of class folders."""
    for path in found.parts.values():
        for row in read_json(path.read_text(encoding="utf-8", errors="replace"), str(path)):
            folder = found.place / row.path
            if not folder.is_dir():
                raise DataError(f"{path} names the folder {folder} of class '{row.label}', which is missing")
            yield PhotoClass(folder.name, photos_below(folder))


_LABELS = {f"{split}_labels": [f"{split}_labels.pkl"] for split in SPLITS}
_FORMS = (
    Form(
        {**{f"{split}_images": [f"{split}_images_png.pkl"] for split in SPLITS}, **_LABELS},
        "Ren et al. 2018, learn2learn, torchmeta, SimpleShot",
        _read_png_pickles,
        count=_count,
    ),
    Form(
        {**{f"{split}_images": [f"{split}_images.npz"] for split in SPLITS}, **_LABELS},
        "MetaOptNet, RFS, Meta-Baseline, FEAT",
        _read_arrays,
        count=_count,
    ),
    Form(
        {split: [f"{split}.json"] for split in SPLITS},
        "lists of class_names and class_roots: easyfsl",
        _read_lists,
        names_wnids,
    ),
    Form(
        {split: [f"{split}/"] for split in SPLITS},
        "photographs in a folder for each wnid: DeepEMD, FRN",
        _read_folders,
        has_wnids,
    ),
)


class TieredImageNetConfig(ImageConfig):
    """Parameters of `TieredImageNet`: those of `ImageConfig`."""


class TieredImageNet(PublishedDataset):
    """tieredImageNet as [3, S, S] images: 351 classes to train, 97 to validate, 160 to test.

    Classes of files without wnids are called by split and label, ``train/000``.
    """

    Config: ClassVar[type[api.Config]] = TieredImageNetConfig
    config: TieredImageNetConfig
    found_in: Mapping[str, str] = OF_IMAGENET
    search: Search = Search(
        "tieredImageNet",
        "tieredimagenet",
        ("tieredimagenet", "tiered-imagenet", "tiered_imagenet", "tieredImageNet", "TieredImagenet"),
        _FORMS,
        ("tiered-imagenet.tar", "tiered-imagenet.tar.gz"),
    )
    images: ClassVar[int | None] = 779165
    suites: ClassVar[Sequence[str]] = ("tieredimagenet",)

    @property
    def scale(self) -> tuple[Sequence[float], Sequence[float]]:
        """Return those of miniImageNet, as MetaOptNet."""
        return MINIIMAGENET

    def check_class(self, found: Found, name: str, count: int) -> None:
        """See `PublishedDataset.check_class`; classes without wnids are counted when they are read."""
        if "/" not in name and name not in chain.from_iterable(class_list("tieredimagenet").values()):
            raise DataError(
                f"{found} has the class '{name}', which is not one of the 608 of tieredImageNet: get the split of "
                "Ren et al."
            )

    def members(self, names: Sequence[str]) -> Mapping[str, Sequence[int]]:
        """Return the classes of each split, by wnid, or by the split in their name."""
        wnids = {split: frozenset(of_split) for split, of_split in class_list("tieredimagenet").items()}
        return {
            split: [c for c, name in enumerate(names) if name in wnids[split] or name.startswith(f"{split}/")]
            for split in SPLITS
        }
