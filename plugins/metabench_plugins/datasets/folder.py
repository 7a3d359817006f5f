"""Images in class folders: a folder of images for each class."""

from __future__ import annotations

import hashlib
import os
import struct
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps
from pydantic import Field, NonNegativeInt, PositiveFloat

from metabench import api
from metabench.api import ClassImages, DataError, Pack

#: Endings of image files.
_IMAGES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_SPLITS = ("train", "val", "test")
#: Exceptions that Pillow raises for damaged files.
_DAMAGED = (OSError, EOFError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)
#: Number of files that a remark names.
_NAMED = 3


class FolderConfig(api.Config):
    """Parameters of `Folder`.

    Attributes:
        root: the folder of class folders; a relative path is looked for in METABENCH_DATA, then in the current folder.
        image_size: height and width of the images in pixels.
        channels: 3 for colour, 1 for grey.
        ratios: shares of the classes in train, val and test.
        seed: seed of the assignment of classes to splits.
        exclude: class folders that are left out of all splits.
    """

    root: str
    image_size: int = Field(default=84, ge=1)
    channels: Literal[1, 3] = 3
    ratios: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.6, 0.2, 0.2)
    seed: NonNegativeInt = 0
    exclude: tuple[str, ...] = ()


class Folder(api.Dataset):
    """Your own images: `root` has a folder for each class, with its images at any depth.

    Images are resized by Lanczos so that their shorter side is `image_size`, and cropped at the centre. Classes are
    assigned to train, val and test by `ratios`, in the order of a hash of `seed` and name.
    """

    Config: ClassVar[type[api.Config]] = FolderConfig
    config: FolderConfig
    split_parameters: ClassVar[Sequence[str]] = ("ratios", "seed", "exclude")

    def raw_files(self, files: api.DatasetFiles) -> Iterable[Path]:
        """Return the root, where it is there."""
        return [place for place in _places(self.config.root, files.sources) if place.is_dir()][:1]

    def pack(self, files: api.DatasetFiles, progress: api.Progress) -> Iterator[ClassImages]:
        """Yield the [n, C, S, S] images of each class folder, by name.

        Raises:
            DataError: the root is missing or has no class folders, a class folder has no images, or an image cannot be
                read.
        """
        root = self._root(files.sources)
        members = {folder.name: _files_below(folder) for folder in _folders(root)}
        if not members:
            raise DataError(f"{root} has no class folders: put the images of each class into a folder of its name")
        images = {name: [path for path in paths if _is_image(path)] for name, paths in members.items()}
        total, done = sum(map(len, images.values())), 0
        for name, paths in images.items():
            others = [path.relative_to(root).as_posix() for path in members[name] if path not in set(paths)]
            if not paths:
                found = f"{len(others)} other files, e.g. {others[0]}" if others else "no files"
                raise DataError(
                    f"the class folder {root / name} has no images ({', '.join(_IMAGES)}), but {found}: "
                    "move it elsewhere, or put images into it"
                )
            pixels = np.empty((len(paths), self.config.channels, *[self.config.image_size] * 2), np.uint8)
            for index, path in enumerate(paths):
                pixels[index] = self._decoded(path)
                done += 1
                progress(done, total, f"reading {root.name}")
            names = tuple(unicodedata.normalize("NFC", path.relative_to(root / name).as_posix()) for path in paths)
            yield ClassImages(unicodedata.normalize("NFC", name), pixels, names, _remarks(name, others))

    def split(self, pack: Pack) -> Mapping[str, api.Split]:
        """Return the splits of the classes, by `ratios` and `seed`.

        Raises:
            DataError: there are fewer than three classes, or `exclude` names a folder that is not there.
        """
        unknown = [name for name in self.config.exclude if name not in pack.class_names]
        if unknown:
            raise DataError(f"exclude names '{unknown[0]}', which is no class folder of {self.config.root}: correct it")
        chosen = [c for c, name in enumerate(pack.class_names) if name not in self.config.exclude]
        chosen.sort(key=lambda c: hashlib.sha256(f"{self.config.seed}|{pack.class_names[c]}".encode()).digest())
        if len(chosen) < len(_SPLITS):
            raise DataError(
                f"{self.config.root} has {len(chosen)} classes: train, val and test need one each. Add class folders"
            )
        _, val, test = (len(chosen) * ratio / sum(self.config.ratios) for ratio in self.config.ratios)
        last = min(max(1, round(test)), len(chosen) - 2)
        first = min(last + max(1, round(val)), len(chosen) - 1)
        members = {"train": chosen[first:], "val": chosen[last:first], "test": chosen[:last]}
        return {name: api.Split.of(pack, sorted(members[name])) for name in _SPLITS}

    def _root(self, sources: Sequence[Path]) -> Path:
        places = _places(self.config.root, sources)
        root = next((place for place in places if place.is_dir()), None)
        if root is None:
            raise DataError(
                f"there is no folder {' and no folder '.join(map(str, places))}: correct the parameter `root`, or set "
                "METABENCH_DATA to the folder that holds it"
            )
        return root

    def _decoded(self, path: Path) -> npt.NDArray[np.uint8]:
        """Return the [C, S, S] pixels of a file."""
        size, grey = self.config.image_size, self.config.channels == 1
        try:
            with Image.open(path) as image:
                upright = ImageOps.exif_transpose(image).convert("L" if grey else "RGB")
            pixels = np.asarray(ImageOps.fit(upright, (size, size), Image.Resampling.LANCZOS))
        except _DAMAGED as error:
            raise DataError(
                f"the image {path} cannot be read ({type(error).__name__}): replace it, or move it elsewhere"
            ) from error
        return pixels[None] if grey else pixels.transpose(2, 0, 1)


def _places(root: str, sources: Sequence[Path]) -> list[Path]:
    """Return the folders that a root may mean, in the order of the search."""
    path = Path(root).expanduser()
    return [path] if path.is_absolute() else [*(source / path for source in sources), path.absolute()]


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")


def _files_below(folder: Path) -> list[Path]:
    """Return the files of a class folder at any depth, sorted; hidden ones are left out."""
    found = [Path(place, name) for place, _, names in os.walk(folder) for name in names if name[0] != "."]
    return sorted(found)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in _IMAGES


def _remarks(name: str, others: Sequence[str]) -> tuple[str, ...]:
    """Return a remark that counts and names the files of a class folder that are no images."""
    if not others:
        return ()
    more = ", …" if len(others) > _NAMED else ""
    verb = "file that is no image was" if len(others) == 1 else "files that are no images were"
    return (f"{len(others)} {verb} left out of class '{name}': {', '.join(others[:_NAMED])}{more}",)
