"""One's own images: class folders, folders of splits, lists, or a zip archive of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from metabench import api
from metabench.api import ClassImages, Pack
from metabench_plugins.images.classes import Photo, PhotoClass, packed
from metabench_plugins.images.config import ImageConfig
from metabench_plugins.images.decoding import Pixels
from metabench_plugins.images.forms import Form, Found
from metabench_plugins.images.inspection import inspected
from metabench_plugins.images.opening import found_images, leads_out
from metabench_plugins.images.places import existing_place, places, root_of
from metabench_plugins.images.reading import image_in
from metabench_plugins.images.splits import SplitsConfig, divided
from metabench_plugins.images.trees import Tree


class FolderConfig(ImageConfig, SplitsConfig):
    """Parameters of `Folder`; see also `ImageConfig` and `SplitsConfig`.

    Attributes:
        root: a folder, a zip archive, or a list, ``.csv`` or ``.json``; a relative path is looked for in
            METABENCH_DATA, then in the current folder.
        form: how the data give classes; None looks for lists, then for folders of splits, then for class folders.
        depth: how many folders make a class: 2 for classes in groups, ``group/class/``.
    """

    root: str = Field(min_length=1)
    form: Form | None = None
    depth: Literal[1, 2] = 1


class Folder(api.Dataset):
    """One's own images.

    Classes are divided into train, val and test as the data say, or by `ratios` in the order of a hash of `seed` and
    name.
    """

    Config: ClassVar[type[api.Config]] = FolderConfig
    config: FolderConfig
    split_parameters: ClassVar[Sequence[str]] = ("split", "ratios", "seed", "exclude")

    reads_any_images: ClassVar[bool] = True

    def __init__(self, config: FolderConfig) -> None:
        super().__init__(config)
        if config.split and (config.split.by == "image" or config.split.shared_classes):
            self.overlapping = "classes"

    @classmethod
    def inspect(cls, path: Path, files: api.DatasetFiles, progress: api.Progress) -> api.Inspection:
        """Describe a folder, archive or list; see `metabench.api.Dataset.inspect`."""
        return inspected(path, root_of(path, files.sources), progress)

    def raw_files(self, files: api.DatasetFiles) -> Iterable[Path]:
        """Return the root; of lists that lead out of it, the listed files."""
        place = next((place for place in places(self.config.root, files.sources) if place.exists()), None)
        if place is None:
            return []
        if not leads_out(place):
            return [place]
        with found_images(place, self.config.form, self.config.depth) as (found, tree):
            listed = (path for one in found.classes.values() for path in one.images.values())
            return [place, *(tree.place / path for path in listed)]

    def pack(self, files: api.DatasetFiles, progress: api.Progress) -> Iterator[ClassImages]:
        """Yield the [n, C, S, S] images of each class, by name.

        Raises:
            DataError: the root is missing or has no classes, a class has no images, or images cannot be read.
        """
        with found_images(
            existing_place(self.config.root, files.sources, "root"), self.config.form, self.config.depth
        ) as (found, tree):
            yield from packed(photo_classes(found, tree), self.config, f"reading {tree.place.name}", progress)

    def read_image(self, path: Path) -> Pixels:
        """Return the [C, S, S] pixels of an image file; see `metabench.api.Dataset.read_image`."""
        return image_in(path, self.config)

    def split(self, pack: Pack) -> Mapping[str, api.Split]:
        """Return the splits of the classes.

        Raises:
            DataError: a split would be empty, or a parameter names an unknown class.
        """
        classes = {one.name: one.image_names or [""] * len(one.images) for one in pack.classes()}
        first = dict(zip(pack.class_names, pack.offsets.tolist(), strict=False))
        index = {name: c for c, name in enumerate(pack.class_names)}
        splits = {}
        for split, members in divided(classes, self.config, self.config.root).items():
            kept = np.zeros(len(pack.images), bool)
            for name, images in members.items():
                kept[first[name] + np.array(images)] = True
            splits[split] = api.Split.of(pack, [index[name] for name in members], images=kept)
        return splits


def photo_classes(found: Found, tree: Tree) -> list[PhotoClass]:
    """Return the found classes, ready to pack."""
    return [
        PhotoClass(
            name,
            [Photo(image, tree.shown(path), tree.source(path)) for image, path in one.images.items()],
            one.remarks,
        )
        for name, one in found.classes.items()
    ]
