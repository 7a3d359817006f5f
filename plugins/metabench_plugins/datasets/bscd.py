"""The targets of BSCD-FSL: four datasets far from ImageNet, on which nothing is trained.

Guo et al., "A broader study of cross-domain few-shot learning", 2020. https://arxiv.org/abs/1912.07200
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from metabench import api
from metabench.api import DataError, Progress
from metabench_plugins.images.classes import PhotoClass
from metabench_plugins.images.config import ImageConfig
from metabench_plugins.images.lists import Row
from metabench_plugins.raw.class_lists import SPLITS
from metabench_plugins.raw.dataset import PublishedDataset
from metabench_plugins.raw.folders import class_folders, listed_classes
from metabench_plugins.raw.forms import Form, Found, Search
from metabench_plugins.raw.tables import read_table

_SKIN = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
_CHEST = ("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumothorax")


def _read_folders(found: Found, cache: Path, progress: Progress) -> Sequence[PhotoClass]:
    """Return the classes of class folders."""
    return list(class_folders(found.parts["images"]))


def _read_isic(found: Found, cache: Path, progress: Progress) -> Sequence[PhotoClass]:
    """Return the classes of a CSV with a column of 0 and 1 for each class."""
    path = found.parts["list"]
    rows = []
    for line in read_table(path, ("image", *_SKIN)):
        labels = [name for name in _SKIN if line[name] in ("1", "1.0")]
        if len(labels) != 1:
            raise DataError(f"{path}: {line['image']} has {len(labels)} classes, expected 1: get the original file")
        rows.append(Row(f"{line['image']}.jpg", labels[0]))
    return list(listed_classes(found.parts["images"], rows, (".",)))


def _read_chest(found: Found, cache: Path, progress: Progress) -> Sequence[PhotoClass]:
    """Return the classes of a CSV of findings: images with one finding, one of seven."""
    lines = read_table(found.parts["list"], ("Image Index", "Finding Labels"))
    rows = [Row(line["Image Index"], line["Finding Labels"]) for line in lines]
    return list(listed_classes(found.parts["images"], [row for row in rows if row.label in _CHEST], (".",)))


class _Target(PublishedDataset):
    """Classes to test on: each split has all of them, and nothing is trained."""

    Config: ClassVar[type[api.Config]] = ImageConfig
    suites: ClassVar[Sequence[str]] = ("cross-domain",)

    def members(self, names: Sequence[str]) -> Mapping[str, Sequence[int]]:
        """Return all classes for each split."""
        return {split: range(len(names)) for split in SPLITS}


class EuroSat(_Target):
    """EuroSAT as [3, S, S] images: ten uses of land, seen by the satellite Sentinel-2 (Helber et al. 2019)."""

    images: ClassVar[int | None] = 27000
    search: Search = Search(
        "EuroSAT",
        "eurosat",
        ("eurosat", "EuroSAT", "EuroSAT/2750", "eurosat/2750"),
        (Form({"images": ["2750/", "EuroSAT_RGB/"]}, "a folder for each class", _read_folders),),
        ("EuroSAT.zip", "EuroSAT_RGB.zip"),
    )


class CropDisease(_Target):
    """CropDisease as [3, S, S] images: 38 kinds of leaves, healthy or ill (Mohanty et al. 2016)."""

    images: ClassVar[int | None] = 43456
    search: Search = Search(
        "CropDisease",
        "cropdisease",
        ("cropdisease", "CropDisease", "CropDiseases", "plant-disease"),
        (Form({"images": ["dataset/train/"]}, "a folder for each class", _read_folders),),
    )


class Isic(_Target):
    """ISIC 2018, task 3, as [3, S, S] images: seven kinds of skin lesions (Tschandl et al. 2018)."""

    images: ClassVar[int | None] = 10015
    search: Search = Search(
        "ISIC 2018",
        "isic",
        ("isic", "ISIC", "ISIC2018"),
        (
            Form(
                {
                    "list": [
                        "ISIC2018_Task3_Training_GroundTruth/ISIC2018_Task3_Training_GroundTruth.csv",
                        "ISIC2018_Task3_Training_GroundTruth.csv",
                    ],
                    "images": ["ISIC2018_Task3_Training_Input/"],
                },
                "task 3: the training images",
                _read_isic,
            ),
        ),
    )


class ChestX(_Target):
    """ChestX as [3, S, S] images: radiographs with one of seven findings, of ChestX-ray8 (Wang et al. 2017)."""

    search: Search = Search(
        "ChestX",
        "chestx",
        ("chestx", "chestX", "ChestX", "ChestX-Ray8"),
        (Form({"list": ["Data_Entry_2017.csv"], "images": ["images/"]}, "ChestX-ray8 of the NIH", _read_chest),),
    )
