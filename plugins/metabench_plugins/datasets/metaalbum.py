"""Any set of Meta-Album: 40 datasets of images of 128 pixels in one format.

Ullah et al., "Meta-Album: multi-domain meta-dataset for few-shot image classification", 2022.
https://meta-album.github.io
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import NonNegativeInt, PositiveFloat

from metabench import api
from metabench.api import DataError, Progress
from metabench_plugins.images.classes import PhotoClass
from metabench_plugins.images.config import ImageConfig
from metabench_plugins.images.lists import Row
from metabench_plugins.raw.class_lists import SPLITS
from metabench_plugins.raw.dataset import PublishedDataset
from metabench_plugins.raw.folders import listed_classes
from metabench_plugins.raw.forms import Form, Found, Search
from metabench_plugins.raw.tables import read_table


def _read(found: Found, cache: Path, progress: Progress) -> Sequence[PhotoClass]:
    """Return the classes of ``labels.csv``, in the columns that ``info.json`` names."""
    path = found.parts["info"]
    try:
        info: Any = json.loads(path.read_text(encoding="utf-8-sig", errors="replace"))
        image, category = (str(info[f"{kind}_column_name"]) for kind in ("image", "category"))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} must be JSON with image_column_name and category_column_name ({error}): correct it"
        ) from error
    rows = [Row(line[image], line[category]) for line in read_table(found.parts["labels"], (image, category))]
    return list(listed_classes(found.place, rows, ("images", ".")))


class MetaAlbumConfig(ImageConfig):
    """Parameters of `MetaAlbum`, beside those of `ImageConfig`.

    Attributes:
        root: the folder of a set, in METABENCH_DATA/metaalbum or METABENCH_DATA, or an absolute path.
        ratios: shares of the classes in train, val and test.
        seed: seed of the assignment of classes to splits.
    """

    root: str
    ratios: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.6, 0.2, 0.2)
    seed: NonNegativeInt = 0


class MetaAlbum(PublishedDataset):
    """A set of Meta-Album as [3, S, S] images; its categories are the classes.

    Categories are assigned to train, val and test by `ratios`, in the order of a hash of `seed` and name.
    """

    Config: ClassVar[type[api.Config]] = MetaAlbumConfig
    config: MetaAlbumConfig
    split_parameters: ClassVar[Sequence[str]] = ("ratios", "seed")

    def __init__(self, config: MetaAlbumConfig) -> None:
        super().__init__(config)
        form = Form({"labels": ["labels.csv"], "info": ["info.json"]}, "a set of Meta-Album", _read, beside=("images",))
        folders = (config.root, f"metaalbum/{config.root}", f"meta-album/{config.root}")
        self.search = Search(f"the set {config.root} of Meta-Album", f"metaalbum/{config.root}", folders, (form,))

    @classmethod
    def at(cls, path: Path) -> MetaAlbum | None:
        """Return the set in a folder."""
        return cls(MetaAlbumConfig(root=str(path)))

    def members(self, names: Sequence[str]) -> Mapping[str, Sequence[int]]:
        """Return the classes of each split.

        Raises:
            DataError: there are fewer than three classes.
        """
        order = sorted(range(len(names)), key=lambda c: _hash(self.config.seed, names[c]))
        if len(order) < len(SPLITS):
            raise DataError(f"{self.config.root} has {len(order)} classes: train, val and test need one each")
        _, val, test = (len(order) * ratio / sum(self.config.ratios) for ratio in self.config.ratios)
        last = min(max(1, round(test)), len(order) - 2)
        first = min(last + max(1, round(val)), len(order) - 1)
        return {"train": sorted(order[first:]), "val": sorted(order[last:first]), "test": sorted(order[:last])}


def _hash(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}|{name}".encode()).digest()
