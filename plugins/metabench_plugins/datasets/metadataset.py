"""Sources of Meta-Dataset, from their TFRecord files.

Triantafillou et al., "Meta-Dataset: a dataset of datasets for learning to learn from few examples", 2020.
https://arxiv.org/abs/1903.03096; https://github.com/google-research/meta-dataset
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal

from pydantic import Field

from metabench import api
from metabench.api import ClassImages, DataError, Pack
from metabench_plugins.datasets.metadataset_graph import nodes_above
from metabench_plugins.images.classes import Photo, PhotoClass, packed
from metabench_plugins.images.config import ImageConfig
from metabench_plugins.images.decoding import Pixels
from metabench_plugins.images.places import existing_place, places, root_of
from metabench_plugins.images.reading import image_in
from metabench_plugins.images.tfrecords import Record, features, records_of
from metabench_plugins.raw.dataset import BIRDS_OF_IMAGENET, OF_IMAGENET

_SPEC = "dataset_spec.json"
#: What is known of the sources that are, or have, images of ImageNet (`metabench.api.Dataset.found_in`).
_FOUND_IN = {"ilsvrc_2012": OF_IMAGENET, "cu_birds": BIRDS_OF_IMAGENET}
#: The names of the splits, and those of Meta-Dataset, in the order of the numbers of their classes.
_SPLITS = {"train": "TRAIN", "val": "VALID", "test": "TEST"}


class MetaDatasetConfig(ImageConfig):
    """Parameters of `MetaDataset`, beside those of `ImageConfig`.

    Attributes:
        records: the folder of a source, with `dataset_spec.json` and the files of its classes; a relative path is
            looked for in METABENCH_DATA, then in the current folder.
        interpolation: filter of the resizing, ``bilinear`` as in the authors' code.
        only_tests: whether nothing is trained on the source, and a split without classes has those of the tests: for
            ``traffic_sign`` and ``mscoco``.
    """

    records: str = Field(min_length=1)
    only_tests: bool = False
    interpolation: Literal["lanczos", "bicubic", "bilinear"] = "bilinear"


class MetaDataset(api.Dataset):
    """A source of Meta-Dataset as [C, S, S] images, 84×84 by default.

    Images are stretched to a square, as by the authors, unless `resize` says otherwise. The splits are those of
    ``dataset_spec.json``. The alphabets of Omniglot are families, of which an episode of varying ways has one. An
    episode of ImageNet has the classes below one node of the graph of its classes, WordNet's.
    """

    Config: ClassVar[type[api.Config]] = MetaDatasetConfig
    config: MetaDatasetConfig
    split_parameters: ClassVar[Sequence[str]] = ("only_tests",)

    def __init__(self, config: MetaDatasetConfig) -> None:
        super().__init__(config)
        self.overlapping = config.only_tests
        self.found_in = _FOUND_IN.get(Path(config.records).name, {})

    @classmethod
    def inspect(cls, path: Path, files: api.DatasetFiles, progress: api.Progress) -> api.Inspection | None:
        """Describe the folder of a source; see `metabench.api.Dataset.inspect`."""
        if not (path / _SPEC).is_file():
            return None
        spec = _read_spec(path)
        names = _names(path, spec)
        counts: dict[str, int] = {}
        for number, name in enumerate(names):
            progress(number, len(names), "counting the records of the classes")
            counts[name] = len(_photos(path, spec, number, name).photos)
        records = root_of(path, files.sources)
        members = _members(names)
        only_tests = not all(members.values())
        return api.Inspection(
            form="a source of Meta-Dataset: TFRecord files, one of each class",
            params={"records": records, **({"only_tests": True} if only_tests else {})},
            splits={split: {names[c]: counts[names[c]] for c in chosen} for split, chosen in members.items() if chosen},
            classes=counts,
            remarks=["a split has no classes: for tests of what is trained on other data"] if only_tests else [],
        )

    def raw_files(self, files: api.DatasetFiles) -> Iterable[Path]:
        """Return the folder, where it is there."""
        return [place for place in places(self.config.records, files.sources) if place.is_dir()][:1]

    def pack(self, files: api.DatasetFiles, progress: api.Progress) -> Iterator[ClassImages]:
        """Yield the [n, C, S, S] images of each class, in the order of the splits; image names are places in the file.

        Raises:
            DataError: the folder or a file is missing or damaged.
        """
        folder = existing_place(self.config.records, files.sources, "records", Path.is_dir)
        spec = _read_spec(folder)
        config = self._square
        names = _names(folder, spec)
        above = _above(folder, spec)
        for number, name in enumerate(names):  # one at a time: ImageNet has more than a million records
            progress(number, len(names), f"reading the classes of {folder.name}")
            photos = [_photos(folder, spec, number, name)]
            for images in packed(photos, config, folder.name, lambda done, total, what: None):
                yield replace(images, above=above.get(name, ()))

    def read_image(self, path: Path) -> Pixels:
        """Return the [C, S, S] pixels of an image file; see `metabench.api.Dataset.read_image`."""
        return image_in(path, self._square)

    @property
    def _square(self) -> ImageConfig:
        """Return how images are made: stretched to a square unless `resize` is given."""
        size = self.config.image_size
        return self.config if self.config.resize else self.config.model_copy(update={"resize": (size, size)})

    def split(self, pack: Pack) -> Mapping[str, api.Split]:
        """Return the splits of ``dataset_spec.json``, without a copy of the images; alphabets are families.

        Raises:
            DataError: a split has no classes, and `only_tests` does not say so.
        """
        members = _members(pack.class_names)
        empty = next((split for split, chosen in members.items() if not chosen), None)
        if empty is not None and not self.config.only_tests:
            raise DataError(
                f"{self.config.records} has no classes of {empty}: train on another source, and give this one the "
                "parameter `only_tests: true` and `test_on: []`"
            )
        members = {split: chosen or members["test"] for split, chosen in members.items()}
        splits = {split: api.Split.of(pack, chosen) for split, chosen in members.items()}
        prefixes = [name.partition("/")[0] for name in pack.class_names]
        if not any(" " in prefix for prefix in prefixes):
            return splits
        numbers = {prefix: number for number, prefix in enumerate(dict.fromkeys(prefixes))}
        return {
            split: replace(found, families=[numbers[name.partition("/")[0]] for name in found.class_names])
            for split, found in splits.items()
        }


def _above(folder: Path, spec: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the inner nodes above each class, by its `_names`; empty for sources without a graph.

    Raises:
        DataError: the graph is damaged, or lacks classes.
    """
    graphs = spec.get("split_subgraphs")
    if graphs is None:
        return {}
    try:
        leaves = {split: nodes_above(graphs[name]) for split, name in _SPLITS.items()}
        above = {}
        for number, prefix in enumerate(_prefixes(folder, spec)):
            wnid = str(spec["class_names"][str(number)])
            above[f"{prefix}/{wnid}"] = leaves[prefix][wnid]
        return above
    except (KeyError, TypeError, ValueError) as error:
        problem = f"it has no node {error}" if isinstance(error, KeyError) else error
        raise DataError(f"the graph of classes in {folder / _SPEC} is damaged: {problem}; get it again") from error


def _members(names: Sequence[str]) -> dict[str, Sequence[int]]:
    """Return the classes of each split, by their names."""
    of_class = [name.partition("/")[0].split(" ")[0] for name in names]
    return {split: [c for c, other in enumerate(of_class) if other == split] for split in _SPLITS}


def _photos(folder: Path, spec: Mapping[str, Any], number: int, name: str) -> PhotoClass:
    """Return the image files of a class.

    Raises:
        DataError: its file is missing or damaged.
    """
    path = folder / str(spec["file_pattern"]).format(number)
    photos = [
        Photo(f"{i:05d}", f"record {i + 1} of {path}", partial(_opened, record, number))
        for i, record in enumerate(records_of(path))
    ]
    if not photos:
        raise DataError(f"{path} has no images: get the file again")
    return PhotoClass(name, photos)


def _opened(record: Record, number: int) -> BinaryIO:
    """Return the image file of a record.

    Raises:
        ValueError: the record has no image, or is of another class than its file.
    """
    found = features(record.read())
    images, labels = found.get("image", []), found.get("label", [])
    if len(images) != 1 or not isinstance(images[0], bytes):
        raise ValueError("the record has no image")
    if labels != [number]:
        raise ValueError(
            f"the record has the label {', '.join(map(str, labels)) or 'none'}, and its file is of {number}"
        )
    return io.BytesIO(images[0])


def _read_spec(folder: Path) -> dict[str, Any]:
    """Return the content of ``dataset_spec.json``.

    Raises:
        DataError: it is missing or damaged.
    """
    path = folder / _SPEC
    try:
        spec = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(spec, dict) or not isinstance(spec["class_names"], dict):
            raise ValueError("it has no class_names")
        if spec["file_pattern"] != "{}.tfrecords":
            raise ValueError(f"file_pattern is {spec['file_pattern']!r}, and only '{{}}.tfrecords' is read")
        return spec
    except FileNotFoundError as error:
        raise DataError(
            f"{folder} has no {_SPEC}: give `records` the folder of one source, as the authors' conversion writes it"
        ) from error
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} is not as the authors' conversion writes it: {error}") from error


def _names(folder: Path, spec: Mapping[str, Any]) -> list[str]:
    """Return a name for each class, by number: ``test/NAME``, or ``test ALPHABET/NAME`` where classes have families.

    It has its number, where several have the name.

    Raises:
        DataError: numbers of classes are missing.
    """
    names = {int(number): str(name) for number, name in spec["class_names"].items()}
    prefixes = _prefixes(folder, spec)
    if sorted(names) != list(range(len(prefixes))):
        raise DataError(
            f"{folder / _SPEC} has {len(names)} class_names, and its splits {len(prefixes)} classes: get it again"
        )
    full = [f"{prefix}/{names[number]}" for number, prefix in enumerate(prefixes)]
    counts = Counter(full)
    return [f"{name} ({number})" if counts[name] > 1 else name for number, name in enumerate(full)]


def _prefixes(folder: Path, spec: Mapping[str, Any]) -> list[str]:
    """Return the split of each class, by number, with its alphabet where there are superclasses (Omniglot).

    A source gives numbers of classes, of superclasses, or of images by name (ImageNet).

    Raises:
        DataError: it gives none.
    """
    try:
        if "classes_per_split" in spec:
            sizes = {split: int(spec["classes_per_split"][name]) for split, name in _SPLITS.items()}
            return [split for split, size in sizes.items() for _ in range(size)]
        if "superclasses_per_split" in spec:
            splits = [split for split, name in _SPLITS.items() for _ in range(spec["superclasses_per_split"][name])]
            return [
                f"{split} {str(spec['superclass_names'][str(i)]).replace('/', '-')}"
                for i, split in enumerate(splits)
                for _ in range(int(spec["classes_per_superclass"][str(i)]))
            ]
        leaves = set(spec["class_names"].values())
        counts = {split: len(leaves & spec["images_per_class"][name].keys()) for split, name in _SPLITS.items()}
        return [split for split, size in counts.items() for _ in range(size)]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{folder / _SPEC} does not say how many classes a split has: get it again") from error
