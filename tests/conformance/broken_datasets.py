"""Datasets that each break one rule of the contract."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import ConfigDict

from metabench.api import Config, DataError, Dataset, DatasetFiles, Pack, Progress, Split, SplitSize

IMAGES = 3
CLASSES = {"train": 4, "val": 2, "test": 2}


class SoundConfig(Config):
    """Parameters that only `split` reads."""

    inverted: bool = False
    order: Literal["names", "reversed"] = "names"
    first: int = 0
    title: str = "class"


class Sound(Dataset):
    """8 classes of 3 noisy 8×8 images; breaks no rule."""

    Config: ClassVar[type[Config]] = SoundConfig
    split_parameters: ClassVar[Collection[str]] = ("inverted", "order", "first", "title")
    sizes_of_splits: ClassVar[Mapping[str, int]] = CLASSES
    config: Any

    def pack(self, files: DatasetFiles, progress: Progress) -> Pack:
        return self.drawn(np.random.Generator(np.random.PCG64(0)))

    def drawn(self, generator: np.random.Generator) -> Pack:
        classes = sum(CLASSES.values())
        images = generator.integers(0, 256, (classes * IMAGES, 1, 8, 8), dtype=np.uint8)
        return Pack(images, np.arange(classes + 1) * IMAGES, tuple(f"class {c}" for c in range(classes)))

    def split(self, pack: Pack) -> Mapping[str, Split]:
        splits, first = {}, 0
        for name, count in self.sizes_of_splits.items():
            images = torch.tensor(pack.images[first * IMAGES : (first + count) * IMAGES])
            names = pack.class_names[first : first + count]
            splits[name] = Split(255 - images if self.config.inverted else images, torch.arange(count + 1) * 3, names)
            first += count
        return splits

    def sizes(self) -> Mapping[str, SplitSize] | None:
        return {name: SplitSize(count, IMAGES) for name, count in self.sizes_of_splits.items()}


class Silent(Sound):
    """Has no parameters, and announces no sizes."""

    Config = Config
    split_parameters = ()

    def split(self, pack: Pack) -> Mapping[str, Split]:
        return Sound(SoundConfig()).split(pack)

    def sizes(self) -> None:
        return None


class Missing(Sound):
    """Has no raw data."""

    def pack(self, files: DatasetFiles, progress: Progress) -> Pack:
        raise DataError("the images are missing: put them into METABENCH_DATA/missing")


# ------------------------------------------------------------------------------------------- one broken rule each


class LooseConfig(SoundConfig):
    model_config = ConfigDict(extra="ignore")


class Loose(Sound):
    Config = LooseConfig


class Floating(Sound):
    def pack(self, files: DatasetFiles, progress: Progress) -> Pack:
        pack = super().pack(files, progress)
        return replace(pack, images=pack.images / 255)  # type: ignore[arg-type]


class Crashing(Sound):
    def pack(self, files: DatasetFiles, progress: Progress) -> Pack:
        raise KeyError("alphabet")


class Random(Sound):
    split_parameters = ()
    entropy: ClassVar[np.random.Generator] = np.random.Generator(np.random.PCG64(0))

    def pack(self, files: DatasetFiles, progress: Progress) -> Pack:
        return self.drawn(self.entropy)


class WithoutVal(Sound):
    def split(self, pack: Pack) -> Mapping[str, Split]:
        splits = dict(super().split(pack))
        del splits["val"]
        return splits


class PercentMean(Sound):
    def split(self, pack: Pack) -> Mapping[str, Split]:
        return {name: replace(split, mean=(127.0,)) for name, split in super().split(pack).items()}


class ShortGroups(Sound):
    def split(self, pack: Pack) -> Mapping[str, Split]:
        return {name: replace(split, groups=(0,)) for name, split in super().split(pack).items()}


class Boasting(Sound):
    def sizes(self) -> Mapping[str, SplitSize]:
        return {name: SplitSize(count, IMAGES + 1) for name, count in self.sizes_of_splits.items()}


class SharedClass(Sound):
    def split(self, pack: Pack) -> Mapping[str, Split]:
        splits = dict(super().split(pack))
        splits["test"] = replace(splits["test"], class_names=splits["val"].class_names)
        return splits


class SharedImage(Sound):
    def split(self, pack: Pack) -> Mapping[str, Split]:
        splits = dict(super().split(pack))
        splits["test"].images[0] = splits["train"].images[0]
        return splits


class SharedOnPurpose(SharedImage):
    """Says that its splits overlap; breaks no rule."""

    overlapping = True


class Shuffling(Sound):
    entropy: ClassVar[np.random.Generator] = np.random.Generator(np.random.PCG64(0))

    def split(self, pack: Pack) -> Mapping[str, Split]:
        splits = dict(super().split(pack))
        order = torch.from_numpy(self.entropy.permutation(6))
        splits["val"] = replace(splits["val"], images=splits["val"].images[order])
        return splits


class Growing(Sound):
    calls: ClassVar[list[int]] = []

    def split(self, pack: Pack) -> Mapping[str, Split]:
        self.calls.append(1)
        mean = (len(self.calls) / 1000,)
        return {name: replace(split, mean=mean) for name, split in super().split(pack).items()}


class Scribbling(Sound):
    def split(self, pack: Pack) -> Mapping[str, Split]:
        splits = super().split(pack)
        pack.images.setflags(write=True)
        pack.images[0] = 7
        return splits


class InvertedInPack(Sound):
    def pack(self, files: DatasetFiles, progress: Progress) -> Pack:
        pack = super().pack(files, progress)
        return replace(pack, images=255 - pack.images) if self.config.inverted else pack


class OrderedInPack(Sound):
    def pack(self, files: DatasetFiles, progress: Progress) -> Pack:
        if self.config.order == "reversed":
            raise DataError("there are no reversed images")
        return super().pack(files, progress)


class TitledInPack(Sound):
    def pack(self, files: DatasetFiles, progress: Progress) -> Pack:
        pack = super().pack(files, progress)
        return replace(pack, class_names=tuple(f"{self.config.title} {name}" for name in pack.class_names))


class CountedInPack(Sound):
    def pack(self, files: DatasetFiles, progress: Progress) -> Pack:
        return self.drawn(np.random.Generator(np.random.PCG64(self.config.first)))


class Misspelt(Sound):
    split_parameters = ("invertd",)


class OneClass(Sound):
    sizes_of_splits: ClassVar[Mapping[str, int]] = {"train": 4, "val": 1, "test": 2}


class OneImage(Sound):
    def split(self, pack: Pack) -> Mapping[str, Split]:
        splits = dict(super().split(pack))
        splits["test"] = replace(splits["test"], offsets=torch.tensor([0, 1, 6]))
        return splits

    def sizes(self) -> None:
        return None
