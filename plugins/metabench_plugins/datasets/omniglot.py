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

_BACKGROUND = "images_background"
_EVALUATION = "images_evaluation"
#: Each part's alphabets and characters.
_PARTS: Mapping[str, tuple[int, int]] = {_BACKGROUND: (30, 964), _EVALUATION: (20, 659)}
_DRAWINGS = 20
#: Side of the original images in pixels.
_SIDE = 105

#: The characters that are tested begin here in the pack: background first, then evaluation, each sorted.
_FIRST_TEST: Mapping[str, int] = {"vinyals": 1200, "lake": 964}
_VAL_ALPHABETS = ("Armenian", "Bengali", "Early_Aramaic", "Hebrew", "Mkhedruli_(Georgian)")
_VAL_CHARACTERS = 172

#: What zipfile and Pillow raise for damaged files.
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
    """How Omniglot is split and shown.

    Attributes:
        split: ``vinyals`` or ``lake``; see `Omniglot`.
        rotations: whether a character makes four classes, turned by 0, 90, 180 and 270 degrees: in ``all``
            splits (ProtoNet), in ``train`` only (Reptile), or in ``none``.
        invert: strokes are 255 on 0 (MAML, ProtoNet); else 0 on 255, as in the files (Reptile).
        image_size: side of the images in pixels; 105 are the originals, smaller ones are made with LANCZOS.
    """

    split: Literal["vinyals", "lake"] = "vinyals"
    rotations: Literal["all", "train", "none"] = "all"
    invert: bool = True
    image_size: int = Field(default=28, ge=8, le=_SIDE)


class Omniglot(api.Dataset):
    """Omniglot as [1, S, S] uint8 images, 20 a class.

    Splits, in characters; a character's rotated copies are classes of the same split:

    * ``vinyals`` (Vinyals et al. 2016, with the lists of Snell et al. 2017): 1028 train, 172 val, 423 test.
    * ``lake`` (Lake et al. 2015): the 964 background characters are for training, the 659 evaluation
      characters for the test. A checkpoint must be chosen on classes that are neither trained on nor tested
      on, so the 172 characters of the five alphabets that ``vinyals`` validates on are val here too, and
      792 are left to train on.
    """

    Config: ClassVar[type[api.Config]] = OmniglotConfig
    #: What the files must hold: the alphabets and characters of each part, and the drawings of a character.
    parts: ClassVar[Mapping[str, tuple[int, int]]] = _PARTS
    drawings: ClassVar[int] = _DRAWINGS
    #: Of the original Omniglot: sha256 over the name and the decoded images of one character after the other.
    sha256: ClassVar[str] = "6ac62611f761a3eb26001f52dda7fa7d75ea2b9bf0af8e2e2b8857a08a7d4e2c"

    config: OmniglotConfig

    @property
    def pack_name(self) -> str:
        """Return the name of the packed copy; splits, rotations and inversion are all made from the same."""
        return f"v{self.version}-{self.config.image_size}px"

    def pack(self, files: api.DatasetFiles, progress: api.Progress) -> Pack:
        """Read the [32460, 1, S, S] images of all characters, black on white: background, then evaluation.

        Raises:
            DataError: a part is missing, damaged or not the original, or cannot be fetched.
        """
        with contextlib.ExitStack() as stack:
            paths = stack.enter_context(_located(files))
            parts = [stack.enter_context(_opened(name, path)) for name, path in paths.items()]
            for part in parts:
                self._check(part)
            return self._read(parts, progress)

    def split(self, pack: Pack) -> Mapping[str, api.Split]:
        """Return the splits, of [classes · 20, 1, S, S] images.

        Of n characters in a split, class ``turn * n + c`` is character c turned by 90° · turn, anticlockwise.
        """
        alphabets = [name.split("/")[1] for name in pack.class_names]
        first_test = _FIRST_TEST[self.config.split]
        characters = {
            "train": [c for c in range(first_test) if alphabets[c] not in _VAL_ALPHABETS],
            "val": [c for c in range(first_test) if alphabets[c] in _VAL_ALPHABETS],
            "test": list(range(first_test, len(alphabets))),
        }
        return {name: self._split(pack, chosen, self._turns(name)) for name, chosen in characters.items()}

    def sizes(self) -> Mapping[str, api.SplitSize]:
        """Return the sizes of the splits."""
        first_test = _FIRST_TEST[self.config.split]
        characters = {
            "train": first_test - _VAL_CHARACTERS,
            "val": _VAL_CHARACTERS,
            "test": sum(count for _, count in _PARTS.values()) - first_test,
        }
        return {name: api.SplitSize(count * self._turns(name), _DRAWINGS) for name, count in characters.items()}

    def _turns(self, split: str) -> int:
        """Return how many rotations of a character are classes of the split."""
        return 4 if self.config.rotations in ("all", split) else 1

    def _split(self, pack: Pack, characters: Sequence[int], turns: int) -> api.Split:
        by_character = pack.images.reshape(-1, _DRAWINGS, *pack.images.shape[1:])
        upright: Tensor = torch.from_numpy(by_character[characters]).flatten(0, 1)
        if self.config.invert:
            upright = 255 - upright
        names = [pack.class_names[c] for c in characters]
        return api.Split(
            images=torch.cat([upright.rot90(turn, dims=(2, 3)) for turn in range(turns)]).contiguous(),
            offsets=torch.arange(len(names) * turns + 1) * _DRAWINGS,
            class_names=[name + (f"@{90 * turn}" if turn else "") for turn in range(turns) for name in names],
            groups=list(range(len(names))) * turns,  # the rotations of one character are drawn by the same people
        )

    def _check(self, part: _Part) -> None:
        """Raise a DataError unless `part` has all alphabets, characters and drawings."""
        alphabets = Counter(character.split("/")[1] for character in part.characters)
        numbered = [f"{part.name}/{a}/character{i + 1:02d}" for a, n in alphabets.items() for i in range(n)]
        missing = [character for character in numbered if character not in part.characters]
        hint = f"; not there: {', '.join(missing[:3])}" if missing else ""
        wanted_alphabets, wanted_characters = self.parts[part.name]
        if (len(alphabets), len(part.characters)) != (wanted_alphabets, wanted_characters):
            raise DataError(
                f"{part.path} has {len(part.characters)} characters of {len(alphabets)} alphabets, expected "
                f"{wanted_characters} of {wanted_alphabets}{hint}. Get the original file again."
            )
        for character, members in part.characters.items():
            if len(members) != self.drawings:
                raise DataError(
                    f"{part.path} has {len(members)} drawings of {character}, expected {self.drawings}. "
                    "Get the original file again."
                )

    def _read(self, parts: Iterable[_Part], progress: api.Progress) -> Pack:
        """Decode and shrink all drawings, and make sure that they are the original ones."""
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
            where = " and ".join(str(path) for path in dict.fromkeys(part.path for part, _ in characters))
            raise DataError(
                f"{where}: the drawings are not those of the original Omniglot: their sha256 is "
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
    """The files of one part.

    Attributes:
        name: ``images_background`` or ``images_evaluation``.
        path: the folder or zip.
        characters: PNG files of ``PART/ALPHABET/characterNN``; sorted by alphabet, character and drawing.
        read: returns the bytes of such a file.
    """

    name: str
    path: Path
    characters: Mapping[str, Sequence[str]]
    read: Callable[[str], bytes]


@contextlib.contextmanager
def _opened(name: str, path: Path) -> Iterator[_Part]:
    """Open the part called `name`, a folder or a zip, which is read without being unpacked."""
    if os.path.isdir(path):
        members = [file.relative_to(path.parent).as_posix() for file in path.glob("*/*/*.png")]
        yield _Part(name, path, _by_character(name, members), lambda member: (path.parent / member).read_bytes())
        return
    try:
        archive = zipfile.ZipFile(path)
    except _DAMAGED as error:
        raise DataError(f"{path} cannot be read ({error}): get the original file again") from error
    with archive:
        yield _Part(name, path, _by_character(name, archive.namelist()), archive.read)


def _by_character(part: str, members: Iterable[str]) -> dict[str, list[str]]:
    characters: dict[str, list[str]] = {}
    for folders in sorted(member.split("/") for member in members):
        # Archives made on a Mac hold "._0709_01.png" and "__MACOSX" besides.
        wanted = len(folders) == 4 and folders[0] == part and folders[3].endswith(".png")
        if wanted and not folders[3].startswith("."):
            characters.setdefault("/".join(folders[:3]), []).append("/".join(folders))
    return characters


def _decode(part: _Part, member: str) -> Image.Image:
    """Return the original drawing, 105×105 pixels of 0 or 255."""
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
    """Find both parts, or fetch them into a folder that is gone when the block ends, however it ends."""
    found = _find(files.sources)
    if found:
        yield found
    elif not files.download:
        raise _missing(files.sources, "downloading is switched off")
    else:
        with tempfile.TemporaryDirectory(dir=files.cache, prefix=".download-") as folder:
            _fetch(Path(folder), files.sources)
            yield _find([Path(folder)])


def _find(sources: Sequence[Path]) -> Mapping[str, Path]:
    """Return the folder or zip of each part, from the first place that has both; empty where none has any."""
    halves = []
    for folder in (place for source in sources for place in (source, source / "omniglot-py")):
        found = {part: path for part in _PARTS if (path := _find_part(folder, part))}
        if len(found) == len(_PARTS):
            return found
        halves += [(folder, part) for part in found]
    for folder, part in halves:
        (other,) = set(_PARTS) - {part}
        raise DataError(f"{folder} has {part} but not {other}: put {other}.zip (or the folder {other}) beside it")
    return {}


def _find_part(folder: Path, part: str) -> Path | None:
    # The zip first: torchvision leaves both, and a folder may be what an interrupted unpacking left.
    candidates = (folder / f"{part}.zip", folder / part)
    return next((path for path in candidates if os.path.exists(path)), None)


def _fetch(folder: Path, sources: Sequence[Path]) -> None:
    """Let torchvision download both parts into `folder`; it shows its progress, and checks their MD5."""
    try:
        from torchvision import datasets

        # Standard output is for results; some releases of torchvision print there.
        with contextlib.redirect_stdout(sys.stderr):
            for background in (True, False):
                datasets.Omniglot(str(folder), background=background, download=True)
    except (ImportError, OSError, RuntimeError, http.client.HTTPException) as error:
        raise _missing(sources, f"downloading it failed: {error}") from error


def _missing(sources: Sequence[Path], reason: str) -> DataError:
    looked = f"it is not in {' or '.join(map(str, sources))}" if sources else "METABENCH_DATA is not set"
    return DataError(
        f"there is no Omniglot: {looked}, and {reason}.\n"
        f"Get {_BACKGROUND}.zip and {_EVALUATION}.zip from "
        "https://github.com/brendenlake/omniglot/tree/master/python, put them into a folder called omniglot, "
        "and set METABENCH_DATA to the folder that holds it "
        f"(METABENCH_DATA/omniglot/{_BACKGROUND}.zip, METABENCH_DATA/omniglot/{_EVALUATION}.zip).\n"
        "`metabench run quickstart` works with no data at all."
    )
