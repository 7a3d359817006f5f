"""Published datasets that expect as few images as `published_files` writes."""

from __future__ import annotations

from typing import ClassVar

from metabench_plugins.datasets.bscd import ChestX, CropDisease, EuroSat, Isic
from metabench_plugins.datasets.cifar import FC100, CifarFS
from metabench_plugins.datasets.cub import Cub
from metabench_plugins.datasets.emnist import Emnist
from metabench_plugins.datasets.metaalbum import MetaAlbum
from metabench_plugins.datasets.miniimagenet import MiniImageNet
from metabench_plugins.datasets.tieredimagenet import TieredImageNet

__all__ = ["ChestX", "MetaAlbum"]


class SmallMini(MiniImageNet):
    """Three images a class."""

    images: ClassVar[int | None] = 300
    images_per_class: ClassVar[int | None] = 3


class SmallTiered(TieredImageNet):
    """Two images a class."""

    images: ClassVar[int | None] = 1216


class SmallCifarFS(CifarFS):
    """Three images a class."""

    images: ClassVar[int | None] = 300
    images_per_class: ClassVar[int | None] = 3


class SmallFC100(FC100):
    """Three images a class."""

    images: ClassVar[int | None] = 300
    images_per_class: ClassVar[int | None] = 3


class SmallCub(Cub):
    """Three images a class."""

    images: ClassVar[int | None] = 600


class SmallEmnist(Emnist):
    """Three images a class."""

    images: ClassVar[int | None] = 186


class SmallEuroSat(EuroSat):
    """Three images a class."""

    images: ClassVar[int | None] = 30


class SmallCropDisease(CropDisease):
    """Three images a class."""

    images: ClassVar[int | None] = 114


class SmallIsic(Isic):
    """Three images a class."""

    images: ClassVar[int | None] = 21
