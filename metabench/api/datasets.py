"""Classes of images, and where they come from."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from torch import Tensor

from metabench.api.config import Config
from metabench.packs import Pack

#: Called with (done, total, what) while something long goes on.
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class SplitSize:
    """How large a split is: its classes, and the images of its smallest class."""

    classes: int
    images_per_class: int


@dataclass(frozen=True)
class Split:
    """The images of one split.

    Attributes:
        images: [n, C, H, W] uint8, class by class.
        offsets: [classes + 1] where each class begins.
        class_names: one name a class.
        mean: per channel, of images scaled to 0 … 1; what the network sees is (image/255 - mean) / std.
        std: per channel.
        groups: [classes] the same number for classes that are not independent of each other, such as rotations of
            one character; statistics about the data resample groups. None where every class stands for itself.
    """

    images: Tensor
    offsets: Tensor
    class_names: Sequence[str]
    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)
    groups: Sequence[int] | None = None

    @property
    def size(self) -> SplitSize:
        """Return the number of classes, and of images in the smallest."""
        return SplitSize(len(self.offsets) - 1, int(self.offsets.diff().min()))


class DatasetFiles(Protocol):
    """Where a dataset may look for files, and where it may put them."""

    #: Directories with raw data, in the order to search them; they are only ever read.
    sources: Sequence[Path]
    #: The dataset's own directory for packed copies and downloads.
    cache: Path
    #: Whether raw data may be fetched from the network.
    download: bool


class Dataset(abc.ABC):
    """Classes of images, split into train, val and test.

    A dataset is packed once (`pack`); the harness keeps the packed copy in the cache and hands it to `split`.
    """

    Config: ClassVar[type[Config]] = Config
    #: Changes when the content of the pack changes; part of the packed file's name.
    version: ClassVar[str] = "1"

    def __init__(self, config: Any) -> None:
        self.config = config

    @property
    def pack_name(self) -> str:
        """Return the name of the packed copy; different for configurations that pack different images."""
        return f"v{self.version}"

    @abc.abstractmethod
    def pack(self, files: DatasetFiles, progress: Progress) -> Pack:
        """Read or make all images.

        Raises:
            DataError: they are missing or damaged; the message says where they were looked for.
        """

    @abc.abstractmethod
    def split(self, pack: Pack) -> Mapping[str, Split]:
        """Return the splits ``train``, ``val`` and ``test`` of the packed images; no class is in two."""

    def sizes(self) -> Mapping[str, SplitSize] | None:
        """Return how large each split will be, where that is known before the data is there."""
        return None
