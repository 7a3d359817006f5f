"""Omniglot: 1623 handwritten characters of 50 alphabets, 20 drawings each.

Lake, Salakhutdinov & Tenenbaum, "Human-level concept learning through probabilistic program induction",
Science 350 (2015). https://github.com/brendenlake/omniglot
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import os
import struct
import sys
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from metabench import api
from metabench.api import DataError, Pack
from metabench_plugins.images.config import ImageConfig
from metabench_plugins.images.reading import image_in

_BACKGROUND = "images_background"
_EVALUATION = "images_evaluation"
#: Numbers of alphabets and characters of each part.
_PARTS: Mapping[str, tuple[int, int]] = {_BACKGROUND: (30, 964), _EVALUATION: (20, 659)}
_DRAWINGS = 20
#: Height and width of the original images in pixels.
_SIDE = 105

#: Index of the first test character of each split in the pack, which holds the sorted background characters, then the
#: sorted evaluation characters.
_FIRST_TEST: Mapping[str, int] = {"vinyals": 1200, "lake": 964}
_VAL_ALPHABETS = ("Armenian", "Bengali", "Early_Aramaic", "Hebrew", "Mkhedruli_(Georgian)")
_VAL_CHARACTERS = 172
#: Validation and test characters of the random split: Finn et al. 2017 and their code (``data_generator.py``).
_RANDOM_VAL, _RANDOM_TEST = 100, 423
#: The alphabet of which EMNIST has the letters, and its number of characters.
_LATIN = ("Latin", 26)

#: Exceptions that zipfile and Pillow raise for damaged files.
_DAMAGED = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    RuntimeError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    Image.DecompressionBombError,
)


class OmniglotConfig(api.Config):
    """Parameters of `Omniglot`.

    Attributes:
        split: ``vinyals``, ``lake``, ``random`` or ``cross-char``; see `Omniglot`.
        split_seed: seed of the split ``random``; the others have none.
        rotations: splits in which a character makes four classes, rotated by 0, 90, 180 and 270 degrees: ``all``
            (ProtoNet), ``train`` (Reptile), or ``none``.
        invert: whether strokes are 255 on 0 (MAML, ProtoNet), or 0 on 255, as in the files (Reptile).
        image_size: height and width of the images in pixels; images smaller than the original 105 are resized with
            LANCZOS.
    """

    split: Literal["vinyals", "lake", "random", "cross-char"] = "vinyals"
    split_seed: int = Field(default=0, ge=0)
    rotations: Literal["all", "train", "none"] = "all"
    invert: bool = True
    image_size: int = Field(default=28, ge=8, le=_SIDE)


class Omniglot(api.Dataset):
    """Omniglot as [1, S, S] uint8 images, 20 per class.

    The splits, in characters (rotated copies of a character are classes of the same split):

    * ``vinyals`` (Vinyals et al. 2016, with the lists of Snell et al. 2017): 1028 train, 172 val, 423 test.
    * ``lake`` (Lake et al. 2015): 792 train, 172 val, 659 test. Train and val are the 964 background characters, test
      the evaluation characters. Checkpoints must be chosen on classes of neither train nor test, so val is the five
      alphabets that ``vinyals`` validates on.
    * ``random`` (Finn et al. 2017, and their code): 1100 train, 100 val, 423 test, drawn by `split_seed` from all
      characters, so that those of one alphabet are in all three.
    * ``cross-char`` (Chen et al. 2019), to be tested on EMNIST: 1597 train, all but Latin; 13 Latin characters each in
      val and test, which that protocol takes from EMNIST.
    """

    Config: ClassVar[type[api.Config]] = OmniglotConfig
    #: Expected numbers of alphabets and characters in each part, and of drawings of each character.
    parts: ClassVar[Mapping[str, tuple[int, int]]] = _PARTS
    drawings: ClassVar[int] = _DRAWINGS
    #: sha256 of the original Omniglot, over the name and decoded images of each character in turn.
    sha256: ClassVar[str] = "6ac62611f761a3eb26001f52dda7fa7d75ea2b9bf0af8e2e2b8857a08a7d4e2c"

    config: OmniglotConfig
    #: All configurations of one `image_size` share a pack.
    split_parameters: ClassVar[Sequence[str]] = ("split", "split_seed", "rotations", "invert")

    def raw_files(self, files: api.DatasetFiles) -> Sequence[Path]:
        """Return the folder or zip of each part, where both are there."""
        with contextlib.suppress(DataError):  # `pack` says what is missing
            return list(_find(files.sources).values())
        return ()

    def pack(self, files: api.DatasetFiles, progress: api.Progress) -> Pack:
        """Read all [32460, 1, S, S] images, black on white.

        The background characters come first, then the evaluation characters.

        Raises:
            DataError: a part is missing, damaged or not the original, or its download failed.
        """
        with contextlib.ExitStack() as stack:
            paths = stack.enter_context(_located(files))
            parts = [stack.enter_context(_opened(name, path)) for name, path in paths.items()]
            for part in parts:
                self._check(part)
            return self._read(parts, progress)

    def read_image(self, path: Path) -> npt.NDArray[np.uint8]:
        """Return the [1, S, S] pixels of a file with dark strokes on white; see `metabench.api.Dataset.read_image`."""
        pixels = image_in(path, ImageConfig(image_size=self.config.image_size, channels=1))
        return 255 - pixels if self.config.invert else pixels

    def split(self, pack: Pack) -> Mapping[str, api.Split]:
        """Return splits of [classes · 20, 1, S, S] images.

        In a split of n characters, class ``turn * n + c`` is character c rotated anticlockwise by 90° · turn.
        """
        characters = self._characters([name.split("/")[1] for name in pack.class_names])
        return {name: self._split(pack, chosen, self._turns(name)) for name, chosen in characters.items()}

    def sizes(self) -> Mapping[str, api.SplitSize]:
        """Return the sizes of the splits."""
        total = sum(count for _, count in _PARTS.values())
        if self.config.split == "cross-char":
            half = _LATIN[1] // 2
            characters = {"train": total - 2 * half, "val": half, "test": half}
        elif self.config.split == "random":
            characters = {"train": total - _RANDOM_VAL - _RANDOM_TEST, "val": _RANDOM_VAL, "test": _RANDOM_TEST}
        else:
            first_test = _FIRST_TEST[self.config.split]
            train = first_test - _VAL_CHARACTERS
            characters = {"train": train, "val": _VAL_CHARACTERS, "test": total - first_test}
        return {name: api.SplitSize(count * self._turns(name), _DRAWINGS) for name, count in characters.items()}

    def _characters(self, alphabets: Sequence[str]) -> Mapping[str, Sequence[int]]:
        """Return the characters of each split.

        Args:
            alphabets: the alphabet of each character.
        """
        if self.config.split == "cross-char":
            latin = [c for c, alphabet in enumerate(alphabets) if alphabet == _LATIN[0]]
            others = [c for c, alphabet in enumerate(alphabets) if alphabet != _LATIN[0]]
            return {"train": others, "val": latin[0::2], "test": latin[1::2]}
        if self.config.split == "random":
            drawn = np.random.default_rng(self.config.split_seed).permutation(len(alphabets)).tolist()
            val_from, test_from = len(drawn) - _RANDOM_VAL - _RANDOM_TEST, len(drawn) - _RANDOM_TEST
            parts = {"train": drawn[:val_from], "val": drawn[val_from:test_from], "test": drawn[test_from:]}
            return {name: sorted(part) for name, part in parts.items()}
        first_test = _FIRST_TEST[self.config.split]
        return {
            "train": [c for c in range(first_test) if alphabets[c] not in _VAL_ALPHABETS],
            "val": [c for c in range(first_test) if alphabets[c] in _VAL_ALPHABETS],
            "test": list(range(first_test, len(alphabets))),
        }

    def _turns(self, split: str) -> int:
        """Return the number of rotations in the split."""
        return 4 if self.config.rotations in ("all", split) else 1

    def _split(self, pack: Pack, characters: Sequence[int], turns: int) -> api.Split:
        by_character = pack.images.reshape(-1, _DRAWINGS, *pack.images.shape[1:])
        upright: Tensor = torch.from_numpy(by_character[characters]).flatten(0, 1)
        if self.config.invert:
            upright = 255 - upright
        names = [pack.class_names[c] for c in characters]
        alphabets = [name.rpartition("/")[0] for name in names]
        numbers = {alphabet: number for number, alphabet in enumerate(dict.fromkeys(alphabets))}
        return api.Split(
            images=torch.cat([upright.rot90(turn, dims=(2, 3)) for turn in range(turns)]).contiguous(),
            offsets=torch.arange(len(names) * turns + 1) * _DRAWINGS,
            class_names=[name + (f"@{90 * turn}" if turn else "") for turn in range(turns) for name in names],
            groups=list(range(len(names))) * turns,  # rotations of a character show the same drawings
            families=[numbers[alphabet] for alphabet in alphabets] * turns,
        )

    def _check(self, part: _Part) -> None:
        """Check the numbers of alphabets, characters and drawings.

        Raises:
            DataError: a number differs from the original's.
        """
        alphabets = Counter(character.split("/")[1] for character in part.characters)
        numbered = [f"{part.name}/{a}/character{i + 1:02d}" for a, n in alphabets.items() for i in range(n)]
        missing = [character for character in numbered if character not in part.characters]
        hint = f"; missing: {', '.join(missing[:3])}" if missing else ""
        expected_alphabets, expected_characters = self.parts[part.name]
        if (len(alphabets), len(part.characters)) != (expected_alphabets, expected_characters):
            raise DataError(
                f"{part.path} has {len(part.characters)} characters of {len(alphabets)} alphabets, expected "
                f"{expected_characters} of {expected_alphabets}{hint}. Get the original file again."
            )
        for character, members in part.characters.items():
            if len(members) != self.drawings:
                raise DataError(
                    f"{part.path} has {len(members)} drawings of {character}, expected {self.drawings}. "
                    "Get the original file again."
                )

    def _read(self, parts: Iterable[_Part], progress: api.Progress) -> Pack:
        """Decode, check and resize all drawings.

        Raises:
            DataError: the drawings are not the original ones.
        """
        characters = [(part, character) for part in parts for character in part.characters]
        size = self.config.image_size
        images = np.empty((len(characters), self.drawings, 1, size, size), np.uint8)
        digest = hashlib.sha256()
        for index, (part, character) in enumerate(characters):
            digest.update(character.encode())
            for drawing, member in enumerate(part.characters[character]):
                original = _decode(part, member)
                digest.update(original.tobytes())
                images[index, drawing, 0] = _shrink(original, size)
            progress(index + 1, len(characters), "reading Omniglot")
        if digest.hexdigest() != self.sha256:
            files = " and ".join(str(path) for path in dict.fromkeys(part.path for part, _ in characters))
            raise DataError(
                f"{files}: the drawings are not those of the original Omniglot: their sha256 is "
                f"{digest.hexdigest()}, expected {self.sha256}. Get the original files again."
            )
        return Pack(
            images=images.reshape(-1, 1, size, size),
            offsets=np.arange(len(characters) + 1, dtype=np.int64) * self.drawings,
            class_names=tuple(character for _, character in characters),
        )


# -------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True)
class _Part:
    """The files of one part of Omniglot.

    Attributes:
        name: ``images_background`` or ``images_evaluation``.
        path: the folder or zip.
        characters: PNG files of each ``PART/ALPHABET/characterNN``, sorted by alphabet, character and drawing.
        read: returns the bytes of a PNG file.
    """

    name: str
    path: Path
    characters: Mapping[str, Sequence[str]]
    read: Callable[[str], bytes]


@contextlib.contextmanager
def _opened(name: str, path: Path) -> Iterator[_Part]:
    """Open a part from its folder or zip."""
    if os.path.isdir(path):
        members = [file.relative_to(path.parent).as_posix() for file in path.glob("*/*/*.png")]
        characters = _by_character(name, members)
        yield _Part(name, path, characters, lambda member: (path.parent / member).read_bytes())
        return
    try:
        archive = zipfile.ZipFile(path)
    except _DAMAGED as error:
        raise DataError(f"{path} cannot be read ({error}): get the original file again") from error
    with archive:
        yield _Part(name, path, _by_character(name, archive.namelist()), archive.read)


def _by_character(part: str, members: Iterable[str]) -> dict[str, list[str]]:
    """Return the drawings of each ``PART/ALPHABET/characterNN``; an archive may hold them in a further folder."""
    characters: dict[str, list[str]] = {}
    for member in sorted(members):
        folders = member.split("/")[-4:]
        # Archives made on macOS also hold "._0709_01.png" and "__MACOSX".
        is_drawing = len(folders) == 4 and folders[0] == part and folders[3].endswith(".png")
        if is_drawing and not folders[3].startswith("."):
            characters.setdefault("/".join(folders[:3]), []).append(member)
    return {character: characters[character] for character in sorted(characters, key=lambda name: name.split("/"))}


def _decode(part: _Part, member: str) -> Image.Image:
    """Decode a drawing: 105×105 pixels of 0 or 255."""
    try:
        image = Image.open(io.BytesIO(part.read(member)))
        if image.size != (_SIDE, _SIDE):
            width, height = image.size
            raise DataError(
                f"{member} in {part.path} has {width} x {height} pixels, expected {_SIDE} x {_SIDE}. "
                "Get the original file again."
            )
        return image.convert("L")
    except _DAMAGED as error:
        raise DataError(
            f"{member} in {part.path} is damaged ({type(error).__name__}): get the original file again"
        ) from error


def _shrink(image: Image.Image, size: int) -> npt.NDArray[np.uint8]:
    return np.asarray(image.resize((size, size), Image.Resampling.LANCZOS))


# -------------------------------------------------------------------------------------------- finding


@contextlib.contextmanager
def _located(files: api.DatasetFiles) -> Iterator[Mapping[str, Path]]:
    """Yield the paths of both parts; download them if needed.

    Downloaded files are deleted when the block ends.
    """
    paths = _find(files.sources)
    if paths:
        yield paths
    elif not files.download:
        raise _missing(files.sources, "downloading is switched off")
    else:
        with tempfile.TemporaryDirectory(dir=files.cache, prefix=".download-") as folder:
            _fetch(Path(folder), files.sources)
            yield _find([Path(folder)])


def _find(sources: Sequence[Path]) -> Mapping[str, Path]:
    """Return the paths of both parts.

    Returns:
        The folder or zip of each part, from the first source with both; empty where no source has either part.

    Raises:
        DataError: a source has one part only, and no source has both.
    """
    incomplete = []
    for source in sources:
        paths = {part: path for part in _PARTS if (path := _find_part(source, part))}
        if len(paths) == len(_PARTS):
            return paths
        incomplete += [(source, part) for part in paths]
    for source, part in incomplete:
        (other,) = set(_PARTS) - {part}
        raise DataError(f"{source} has {part} but not {other}: put {other}.zip (or the folder {other}) beside it")
    return {}


def _find_part(source: Path, part: str) -> Path | None:
    """Return the folder or zip of a part, in a folder or one folder deeper."""
    for folder in (source, *_folders(source)):
        # Prefer the zip: torchvision keeps both, and the folder may be incomplete after an interrupted unpacking.
        for candidate in (folder / f"{part}.zip", folder / part / part, folder / part):
            if candidate.is_file() or _holds_characters(candidate):
                return candidate
    return None


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _holds_characters(folder: Path) -> bool:
    return any(path.name.startswith("character") for alphabet in _folders(folder) for path in _folders(alphabet))


def _fetch(folder: Path, sources: Sequence[Path]) -> None:
    """Download both parts into `folder` with torchvision, which checks MD5."""
    try:
        from torchvision import datasets

        # Some releases of torchvision print to standard output, which is for results.
        with contextlib.redirect_stdout(sys.stderr):
            for background in (True, False):
                datasets.Omniglot(str(folder), background=background, download=True)
    except (ImportError, OSError, RuntimeError, http.client.HTTPException) as error:
        raise _missing(sources, f"downloading it failed: {error}") from error


def _missing(sources: Sequence[Path], reason: str) -> DataError:
    searched = f"it is not in {' or '.join(map(str, sources))}" if sources else "METABENCH_DATA is not set"
    return DataError(
        f"Omniglot is missing: {searched}, and {reason}.\n"
        f"Get {_BACKGROUND}.zip and {_EVALUATION}.zip from "
        "https://github.com/brendenlake/omniglot/tree/master/python, put them into a folder called omniglot, "
        "and set METABENCH_DATA to the folder that holds it "
        f"(METABENCH_DATA/omniglot/{_BACKGROUND}.zip, METABENCH_DATA/omniglot/{_EVALUATION}.zip).\n"
        "`metabench run quickstart` needs no data."
    )
