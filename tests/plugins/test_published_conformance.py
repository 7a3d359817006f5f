"""Published datasets keep the contract of datasets, on files that a script makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest

import published_files as written
import small_published
from metabench.testing import DatasetChecks

SMALL = Path(small_published.__file__)


@pytest.fixture(scope="class")
def data(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the files of the class's dataset, for METABENCH_DATA."""
    folder: Path = tmp_path_factory.mktemp("data")
    place, write = request.cls.write
    write(folder / place)
    return folder


class PublishedChecks(DatasetChecks):
    """Checks a dataset on the files that `write` makes in a folder of METABENCH_DATA."""

    write: ClassVar[tuple[str, Callable[[Path], None]]]
    params: ClassVar[Mapping[str, Any]] = {"image_size": 8}

    @pytest.fixture(autouse=True)
    def _data(self, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("METABENCH_DATA", str(data))
        monkeypatch.setenv("METABENCH_OFFLINE", "1")


def of(name: str) -> str:
    return f"{SMALL}:{name}"


class TestMiniImageNet(PublishedChecks):
    dataset = of("SmallMini")
    write = ("miniimagenet", written.mini_caches)


class TestMiniImageNetLists(PublishedChecks):
    dataset = of("SmallMini")
    write = ("miniimagenet", written.mini_lists)


class TestTieredImageNet(PublishedChecks):
    dataset = of("SmallTiered")
    write = ("tieredimagenet", written.tiered_pngs)


class TestTieredImageNetArrays(PublishedChecks):
    dataset = of("SmallTiered")
    write = ("tieredimagenet", written.tiered_arrays)


class TestCifarFS(PublishedChecks):
    dataset = of("SmallCifarFS")
    write = ("cifarfs", written.cifar100)


class TestFC100(PublishedChecks):
    dataset = of("SmallFC100")
    write = ("fc100", partial(written.cifar_pickles, name="FC100_{}.pickle"))


class TestCub(PublishedChecks):
    dataset = of("SmallCub")
    write = ("CUB_200_2011", written.cub)


class TestEmnist(PublishedChecks):
    dataset = of("SmallEmnist")
    write = ("EMNIST", written.emnist)


class TestEuroSat(PublishedChecks):
    dataset = of("SmallEuroSat")
    write = ("EuroSAT", written.eurosat)


class TestCropDisease(PublishedChecks):
    dataset = of("SmallCropDisease")
    write = ("CropDiseases", written.cropdisease)


class TestIsic(PublishedChecks):
    dataset = of("SmallIsic")
    write = ("ISIC", written.isic)


class TestChestX(PublishedChecks):
    dataset = of("ChestX")
    write = ("chestX", written.chestx)


class TestMetaAlbum(PublishedChecks):
    dataset = of("MetaAlbum")
    params: ClassVar[Mapping[str, Any]] = {"root": "BRD", "image_size": 8}
    write = ("BRD", written.metaalbum)
