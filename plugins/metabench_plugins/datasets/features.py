"""Vectors from files, e.g. features of a text or audio model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from metabench import api
from metabench.api import ClassImages, DataError, Pack
from metabench_plugins.images.new_suite import fitting_shape
from metabench_plugins.images.places import places, root_of
from metabench_plugins.images.splits import SPLITS, SplitsConfig, divided, with_split
from metabench_plugins.vectors.keys import KeysConfig
from metabench_plugins.vectors.labelled import LabelledVectors, read_labelled
from metabench_plugins.vectors.new_suite import suite_text
from metabench_plugins.vectors.reading import READERS

#: Number of classes that a message names.
_SHOWN = 5


class FeaturesConfig(KeysConfig, SplitsConfig):
    """Parameters of `Features`; see also `KeysConfig` and `SplitsConfig`.

    Attributes:
        root: a ``.npz``, ``.safetensors`` or ``.parquet`` file, or a folder with the files train, val and test of one
            of these kinds; a relative path is looked for in METABENCH_DATA, then in the current folder.
    """

    root: str = Field(min_length=1)


class Features(api.Dataset):
    """Vectors and labels of files.

    Classes are divided into train, val and test as the files say, or by `ratios` in the order of a hash of `seed` and
    name.
    """

    Config: ClassVar[type[api.Config]] = FeaturesConfig
    config: FeaturesConfig
    split_parameters: ClassVar[Sequence[str]] = ("split", "ratios", "seed", "exclude")

    def __init__(self, config: FeaturesConfig) -> None:
        super().__init__(config)
        if config.split and (config.split.by == "image" or config.split.shared_classes):
            self.overlapping = "classes"

    @classmethod
    def inspect(cls, path: Path, files: api.DatasetFiles, progress: api.Progress) -> api.Inspection | None:
        """Describe a file of vectors, or a folder of train, val and test; see `metabench.api.Dataset.inspect`."""
        recognised = path.suffix.lower() in READERS if path.is_file() else bool(_files_of_splits(path))
        if not recognised:
            return None
        params = {"root": root_of(path, files.sources)}
        dataset = cls(FeaturesConfig.model_validate(params))
        packed = list(dataset.pack(files, progress))
        classes = {one.name: one.image_names or [] for one in packed}
        problems, splits, text = [], {}, ""
        try:
            splits = {
                split: {name: len(rows) for name, rows in members.items()}
                for split, members in dataset._divided(classes).items()
            }
            text = suite_text(path.stem, params, fitting_shape(splits))
        except DataError as error:
            problems.append(str(error))
        return api.Inspection(
            form=f"vectors of {packed[0].images.shape[1]} numbers, with labels",
            params=params,
            splits=splits,
            classes={name: len(images) for name, images in classes.items()},
            problems=problems,
            new_suite=text,
            noun="vector",
        )

    def raw_files(self, files: api.DatasetFiles) -> Iterable[Path]:
        """Return the file, or the files of the folder."""
        place = _place(self.config.root, files.sources)
        return [] if place is None else [place] if place.is_file() else _files_of_splits(place).values()

    def pack(self, files: api.DatasetFiles, progress: api.Progress) -> Iterator[ClassImages]:
        """Yield the [n, D] vectors of each class, by name.

        Raises:
            DataError: a file is missing, or is not as `read_labelled` demands; files or classes do not fit each other.
        """
        parts = list(self._read(files, progress))
        _check_dimensions(parts)
        labels = np.array([label for _, part in parts for label in part.labels])
        names = [name for _, part in parts for name in _image_names(part)]
        _check_used([name for _, part in parts for name in part.unused], set(labels.tolist()), self.config.root)
        vectors = np.concatenate([part.vectors for _, part in parts])
        for name in np.unique(labels):
            rows = np.flatnonzero(labels == name)
            yield ClassImages(str(name), vectors[rows], [names[row] for row in rows])

    def split(self, pack: Pack) -> Mapping[str, api.Split]:
        """Return the splits of the classes.

        Raises:
            DataError: a split would be empty, or a parameter names an unknown class.
        """
        classes = {one.name: one.image_names or [] for one in pack.classes()}
        first = dict(zip(pack.class_names, pack.offsets.tolist(), strict=False))
        index = {name: c for c, name in enumerate(pack.class_names)}
        splits = {}
        for split, members in self._divided(classes).items():
            kept = np.zeros(len(pack.images), bool)
            for name, rows in members.items():
                kept[first[name] + np.array(rows)] = True
            splits[split] = api.Split.of(pack, [index[name] for name in members], images=kept)
        return splits

    def _divided(self, classes: Mapping[str, Sequence[str]]) -> Mapping[str, Mapping[str, Sequence[int]]]:
        """Return the rows of each class, by split.

        Raises:
            DataError: as `split`.
        """
        self._check_numbers(classes)
        return divided(classes, self.config, self.config.root)

    def _read(self, files: api.DatasetFiles, progress: api.Progress) -> Iterator[tuple[Path, LabelledVectors]]:
        place = _place(self.config.root, files.sources)
        if place is None:
            searched = " and at ".join(map(str, places(self.config.root, files.sources)))
            raise DataError(
                f"there is no file or folder at {searched}: correct the parameter `root`, or set METABENCH_DATA to the "
                "folder that holds it"
            )
        found = {"": place} if place.is_file() else _files_of_splits(place)
        kinds = ", ".join(READERS)
        if not found:
            raise DataError(f"{place} has no files train, val and test ({kinds}): add them, or name a file by `root`")
        for done, (split, path) in enumerate(found.items()):
            progress(done, len(found), f"reading {path.name}")
            if path.suffix.lower() not in READERS:
                raise DataError(f"{path} is no file of vectors ({kinds}): save them as one of these")
            part = read_labelled(path, self.config)
            if split and part.splits is not None:
                raise DataError(
                    f"{path} has '{self.config.key('splits')}', and its own name is a split: remove one of the two, "
                    "e.g. name the file by `root`"
                )
            yield path, replace(part, splits=[split] * len(part.names)) if split else part
        progress(len(found), len(found), f"reading {place.name}")

    def _check_numbers(self, classes: Mapping[str, Sequence[str]]) -> None:
        """Refuse given splits that number their classes anew: classes of one number would be one class."""
        split = self.config.split
        if split is not None and (split.by != "given" or split.shared_classes):
            return
        given = {name: {image.rpartition("//")[0] for image in images} for name, images in classes.items()}
        several = [name for name, splits in given.items() if len(splits) > 1]
        if several and several[0].isdecimal():
            raise DataError(
                f"{self.config.root}: the class {several[0]} is in more than one split, and a number is the same class "
                "in all of them. If these are other classes, name them by `class_names`, or number all classes anew; "
                "if not, divide the classes with `split: {by: ratio}`, or say so with `split: {by: given, "
                "shared_classes: true}`"
            )


def _place(root: str, sources: Sequence[Path]) -> Path | None:
    """Return the first place of a path that is there."""
    return next((place for place in places(root, sources) if place.exists()), None)


def _files_of_splits(folder: Path) -> dict[str, Path]:
    """Return the files train, val and test of the first kind of which a folder has one."""
    for suffix in READERS:
        found = {split: folder / f"{split}{suffix}" for split in SPLITS if (folder / f"{split}{suffix}").is_file()}
        if found:
            return found
    return {}


def _image_names(part: LabelledVectors) -> list[str]:
    """Return the names of vectors with their splits, where these are given."""
    splits = part.splits or [""] * len(part.names)
    return [with_split(split, name) for split, name in zip(splits, part.names, strict=True)]


def _check_dimensions(parts: Sequence[tuple[Path, LabelledVectors]]) -> None:
    first, part = parts[0]
    for path, other in parts[1:]:
        if other.vectors.shape[1] != part.vectors.shape[1]:
            raise DataError(
                f"{path} has vectors of {other.vectors.shape[1]} numbers, and {first} of {part.vectors.shape[1]}: make "
                "all files with the same model"
            )


def _check_used(unused: Sequence[str], used: set[str], root: str) -> None:
    """Refuse names of classes that have vectors in no file."""
    empty = sorted(set(unused) - used)
    if empty:
        shown = ", ".join(f"'{name}'" for name in empty[:_SHOWN]) + (", …" if len(empty) > _SHOWN else "")
        raise DataError(
            f"{root} names {len(empty)} class{'' if len(empty) == 1 else 'es'} without vectors, {shown}: add the "
            "vectors, or remove the names"
        )
