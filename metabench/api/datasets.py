"""Datasets: classes of images in three splits."""

from __future__ import annotations

import abc
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from metabench.api.config import Config
from metabench.api.inspections import Inspection
from metabench.api.rows import Rows, TensorRows
from metabench.api.sources import SourceSplit
from metabench.packs import ClassImages, Pack

#: Called during long work with (done, total, name of the work).
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class SplitSize:
    """The size of a split.

    Attributes:
        classes: number of classes.
        images_per_class: number of images of the smallest class.
        largest: number of images of the largest class; None if all classes have as many.
    """

    classes: int
    images_per_class: int
    largest: int | None = None

    @property
    def most_images(self) -> int:
        """Return the number of images of the largest class."""
        return self.images_per_class if self.largest is None else self.largest


@dataclass(frozen=True)
class Split:
    """The images of one split.

    Attributes:
        images: [n, C, H, W] uint8 images or [n, D] float32 vectors, sorted by class: a tensor, or `Rows` that read them
            elsewhere.
        offsets: [classes + 1] index of the first image of each class, and n.
        class_names: [classes] names.
        mean: mean of each channel, of images scaled to 0 … 1; the network's input is (image/255 - mean) / std.
        std: standard deviation of each channel, of images scaled to 0 … 1.
        groups: [classes] group numbers. Classes that are not independent, such as rotations of one character, have the
            same number; intervals about the data count them as one, and ``sampling: one-of-a-group`` draws one of them.
            None if all classes are independent.
        image_names: [n] names, see `metabench.api.Pack`.
        families: [classes] family numbers, e.g. of the alphabets of characters. An episode of ``sampling: one-family``,
            or one that draws its way (``meta-dataset``), has classes of one family. None makes all one family.
        nodes: the classes below each inner node of a hierarchy, e.g. of WordNet. An episode that draws its way has
            those of one node, at most 50 of them, and `families` are then of no use. None without a hierarchy.
    """

    images: Tensor | Rows
    offsets: Tensor
    class_names: Sequence[str]
    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)
    groups: Sequence[int] | None = None
    image_names: Sequence[str] | None = None
    families: Sequence[int] | None = None
    nodes: Sequence[Sequence[int]] | None = None

    @classmethod
    def of(
        cls,
        pack: Pack,
        classes: Sequence[int],
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        images: npt.NDArray[np.bool_] | None = None,
    ) -> Split:
        """Return the split of some classes of a pack, without a copy of its images.

        Args:
            pack: the pack.
            classes: indices of the classes.
            mean: see `Split`.
            std: see `Split`.
            images: [n] whether the split has an image of the pack; None takes all images of the classes.
        """
        members = [np.arange(pack.offsets[c], pack.offsets[c + 1]) for c in classes]
        if images is not None:
            members = [indices[images[indices]] for indices in members]
        order = np.concatenate(members) if members else np.empty(0, np.int64)
        names = pack.image_names
        numbers = {class_: number for number, class_ in enumerate(classes)}
        nodes = [[numbers[c] for c in below if c in numbers] for below in pack.nodes.values()]
        return cls(
            images=TensorRows(torch.from_numpy(pack.images), torch.from_numpy(order)),
            offsets=torch.tensor([0, *(len(images) for images in members)]).cumsum(0),
            class_names=[pack.class_names[c] for c in classes],
            mean=mean,
            std=std,
            image_names=None if names is None else [names[i] for i in order],
            nodes=[node for node in nodes if node] or None,
        )

    @cached_property
    def rows(self) -> Rows:
        """Return the images as `Rows`."""
        return self.images if isinstance(self.images, Rows) else TensorRows(self.images)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return (C, H, W) of the images, or (D,) of vectors."""
        return self.rows.shape

    @property
    def size(self) -> SplitSize:
        """Return the size of the split."""
        counts = self.offsets.diff()
        least, most = int(counts.min()), int(counts.max())
        return SplitSize(len(counts), least, None if least == most else most)


class DatasetFiles(Protocol):
    """The directories that a dataset may read and write."""

    #: Directories with raw data, in the order of the search; they are never written.
    sources: Sequence[Path]
    #: The dataset's directory for packs and downloads.
    cache: Path
    #: Whether the dataset may download raw data.
    download: bool


class Dataset(abc.ABC):
    """Classes of images, split into train, val and test.

    `pack` runs once for its code, its parameters and its raw files; its pack is kept in the cache, and `split` reads it
    in every run.
    """

    Config: ClassVar[type[Config]] = Config
    #: Whether `split` returns a source of episodes, made of the pack: the task is then that of the source.
    makes_episodes: ClassVar[bool] = False
    #: Version of the pack's content, part of its file name. Change it when the content changes for a reason other than
    #: the code, the parameters and the raw files.
    version: ClassVar[str] = "1"
    #: Parameters that only `split` reads: configurations that differ in nothing else share a pack.
    split_parameters: ClassVar[Collection[str]] = ()
    #: Whether splits share classes or images on purpose, or "classes" only; the class says so, or a dataset by its
    #: parameters. Records repeat it; otherwise such data are refused.
    overlapping: bool | Literal["classes"] = False
    #: What is known of its test split in the images that backbones are pretrained on: a clause for remarks by the name
    #: of the images, or a part of it, e.g. ``{"ImageNet": "the test classes and their images are in it"}``.
    found_in: Mapping[str, str] = {}
    #: Whether `inspect` is asked only about places that no other dataset recognises.
    reads_any_images: ClassVar[bool] = False

    def __init__(self, config: Any) -> None:
        self.config = config

    @classmethod
    def inspect(cls, path: Path, files: DatasetFiles, progress: Progress) -> Inspection | None:
        """Describe a file or folder for `metabench data inspect`; None if the dataset does not recognise it.

        Args:
            path: the absolute path of an existing file or folder.
            files: the directories of raw data.
            progress: called now and then with the progress.

        Raises:
            DataError: the files are recognised, and cannot be read.
        """
        return None

    def raw_files(self, files: DatasetFiles) -> Iterable[Path] | None:
        """Return the files and folders that `pack` reads; it runs again when they change.

        None means the files that a parameter names, and the dataset's own folders ``METABENCH_DATA/NAME``.
        Without any of them, a pack is used as it is, and records say that it was compared with no raw files.
        """
        return None

    @abc.abstractmethod
    def pack(self, files: DatasetFiles, progress: Progress) -> Pack | Iterable[ClassImages]:
        """Read or generate all images.

        Data that are larger than the memory are yielded class by class; each is on disk before the next one is asked
        for.

        Args:
            files: the directories to read and write.
            progress: called now and then with the progress.

        Raises:
            DataError: images are missing or damaged; the message names the directories searched.
        """

    def read_image(self, path: Path) -> npt.NDArray[np.uint8]:
        """Return the [C, H, W] pixels of an image file, as the images of its splits, for `metabench predict`.

        The parameters give size, colours and inversion. Several threads call it at once. A dataset that does not
        override it takes no image files, and `metabench predict` refuses its cells.

        Raises:
            DataError: the file is no image that can be decoded; the message is the reason alone.
        """
        raise NotImplementedError(f"{type(self).__name__} takes no image files: define read_image(path)")

    @abc.abstractmethod
    def split(self, pack: Pack) -> Mapping[str, Split] | Mapping[str, SourceSplit]:
        """Return the splits ``train``, ``val`` and ``test``; no class is in two.

        A dataset that makes episodes returns those of a source, which reads the pack (`SourceSplit.each`).
        """

    def sizes(self) -> Mapping[str, SplitSize] | None:
        """Return the size of each split; None if it is unknown before loading."""
        return None
