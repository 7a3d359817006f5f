"""CUB-200-2011: 11 788 photographs of 200 species of birds.

Wah et al., "The Caltech-UCSD Birds-200-2011 Dataset", 2011. https://www.vision.caltech.edu/datasets/cub_200_2011/
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

from metabench import api
from metabench.api import DataError, Progress
from metabench_plugins.images.classes import PhotoClass
from metabench_plugins.images.config import ImageConfig
from metabench_plugins.raw.class_lists import SPLITS, class_list
from metabench_plugins.raw.dataset import BIRDS_OF_IMAGENET, PublishedDataset
from metabench_plugins.raw.folders import class_folders
from metabench_plugins.raw.forms import Form, Found, Search


def _read(found: Found, cache: Path, progress: Progress) -> Iterator[PhotoClass]:
    """Yield the classes of a folder of class folders."""
    return class_folders(found.parts["images"])


def _cropped(place: Path, species: Iterable[PhotoClass]) -> Iterator[PhotoClass]:
    """Yield the species, each photograph with its bounding box.

    Raises:
        DataError: a file of bounding boxes is missing, or does not fit the photographs.
    """
    names = dict(_lines(place / "images.txt", 2))
    boxes = {names.get(number): box for number, *box in _lines(place / "bounding_boxes.txt", 5)}
    for one in species:
        photos = []
        for photo in one.photos:
            if f"{one.name}/{photo.name}" not in boxes:
                raise DataError(f"{place / 'bounding_boxes.txt'} has no box for {photo.place}: get the original files")
            left, upper, width, height = map(float, boxes[f"{one.name}/{photo.name}"])
            photos.append(replace(photo, box=(left, upper, left + width, upper + height)))
        yield replace(one, photos=photos)


def _lines(path: Path, count: int) -> list[list[str]]:
    """Return the words of each line of a file.

    Raises:
        DataError: the file is missing, or a line has another number of words.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing, which bounding_boxes needs: put it there, or set bounding_boxes to false")
    lines = [line.split() for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    wrong = next((number for number, words in enumerate(lines, 1) if len(words) != count), None)
    if wrong is not None:
        raise DataError(f"{path}, line {wrong}: it must have {count} words: get the original file")
    return lines


def _has_species(path: Path) -> bool:
    return (path / "001.Black_footed_Albatross").is_dir()


class CubConfig(ImageConfig):
    """Parameters of `Cub`, beside those of `ImageConfig`.

    Attributes:
        split: ``chen``, 100/50/50 classes in turns (Hilliard et al. 2018, Chen et al. 2019), or ``meta-dataset``,
            140/30/30 (Triantafillou et al. 2020, learn2learn, easyfsl).
        bounding_boxes: whether images are cropped to the bird, as in FEAT and DeepEMD.
    """

    split: Literal["chen", "meta-dataset"] = "chen"
    bounding_boxes: bool = False


class Cub(PublishedDataset):
    """CUB-200-2011 as [3, S, S] images, in one of two splits of its 200 species."""

    Config: ClassVar[type[api.Config]] = CubConfig
    config: CubConfig
    split_parameters: ClassVar[Sequence[str]] = ("split",)
    images: ClassVar[int | None] = 11788
    suites: ClassVar[Sequence[str]] = ("cub", "cross-domain")
    found_in: Mapping[str, str] = BIRDS_OF_IMAGENET
    search: Search = Search(
        "CUB-200-2011",
        "cub",
        ("cub", "CUB", "CUB_200_2011", "CUB_200_2011/CUB_200_2011", "cub/CUB_200_2011", "CUB/CUB_200_2011"),
        (
            Form(
                {"images": ["images/"]},
                "a folder for each species; bounding_boxes needs images.txt and bounding_boxes.txt beside it",
                _read,
                _has_species,
                ("images.txt", "bounding_boxes.txt"),
            ),
        ),
        ("CUB_200_2011.tgz", "CUB_200_2011.tar.gz"),
    )

    def read(self, form: Form, found: Found, cache: Path, progress: Progress) -> Iterable[PhotoClass]:
        """Return the species, each photograph with its bounding box where these are asked for."""
        species = form.read(found, cache, progress)
        return _cropped(found.place, species) if self.config.bounding_boxes else species

    def members(self, names: Sequence[str]) -> Mapping[str, Sequence[int]]:
        """Return the classes of each split.

        The sorted species alternate between train and the others in the split of Chen et al.; in that of Meta-Dataset,
        a list of their numbers tells.
        """
        if self.config.split == "chen":
            species = sorted(range(len(names)), key=names.__getitem__)
            return {"train": species[0::2], "val": species[1::4], "test": species[3::4]}
        numbers = class_list("cub")
        return {split: [c for c, name in enumerate(names) if name[:3] in numbers[split]] for split in SPLITS}
