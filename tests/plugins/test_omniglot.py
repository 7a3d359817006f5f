from __future__ import annotations

import hashlib
import io
import os
import shutil
import urllib.error
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from metabench.api import SplitSize
from metabench.data.packing import DataRoots, load_pack
from metabench.errors import DataError
from metabench.packs import Pack
from metabench_plugins.datasets.omniglot import Omniglot, OmniglotConfig

PARTS = ("images_background", "images_evaluation")
CHARACTERS = [
    "images_background/Bengali/character01",
    "images_background/Bengali/character02",
    "images_background/Latin/character01",
    "images_evaluation/Aurek-Besh/character01",
    "images_evaluation/Aurek-Besh/character02",
]
VICTIM = "images_background/Bengali/character02/02_01.png"


def png(seed: int, size: tuple[int, int] = (105, 105)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 2, size[::-1], dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels * 255).convert("1").save(file, "png")
    return file.getvalue()


def small_files() -> dict[str, bytes]:
    return {
        f"{character}/{index:02d}_{drawing:02d}.png": png(seed=10 * index + drawing)
        for index, character in enumerate(CHARACTERS, start=1)
        for drawing in (1, 2)
    }


def small_sha256() -> str:
    digest = hashlib.sha256()
    files = small_files()
    for character in CHARACTERS:
        digest.update(character.encode())
        for name in sorted(name for name in files if name.startswith(character)):
            digest.update(Image.open(io.BytesIO(files[name])).convert("L").tobytes())
    return digest.hexdigest()


class SmallOmniglot(Omniglot):
    """Expects the five characters above, with two drawings each."""

    parts: ClassVar = {"images_background": (2, 3), "images_evaluation": (1, 2)}
    drawings = 2
    sha256 = small_sha256()


def write_folders(root: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def write_zips(root: Path, files: dict[str, bytes]) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        with zipfile.ZipFile(root / f"{part}.zip", "w") as archive:
            archive.writestr(f"{part}/", "")
            archive.writestr(f"__MACOSX/{part}/Bengali/character01/._01_01.png", "not an image")
            for name, content in files.items():
                if name.startswith(part):
                    archive.writestr(name, content)


def load(tmp_path: Path, download: bool = False, **config: Any) -> Pack:
    """Pack the small Omniglot from `tmp_path`/data, where METABENCH_DATA would point to."""
    roots = DataRoots((tmp_path / "data",), tmp_path / "cache", download)
    dataset = SmallOmniglot(OmniglotConfig(**config))
    return load_pack("omniglot", dataset, roots, lambda done, total, what: None)


def names_below(folder: Path) -> list[str]:
    """Return all paths but locks, which stay where packs are made."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix != ".lock")


# ------------------------------------------------------------------------------------- the real one


@pytest.mark.parametrize(
    ("split", "rotations", "sizes"),
    [
        ("vinyals", "all", (4112, 688, 1692)),
        ("vinyals", "train", (4112, 172, 423)),
        ("vinyals", "none", (1028, 172, 423)),
        ("lake", "all", (3168, 688, 2636)),
        ("lake", "none", (792, 172, 659)),
        ("random", "all", (4400, 400, 1692)),
        ("random", "train", (4400, 100, 423)),
        ("cross-char", "none", (1597, 13, 13)),
    ],
)
def test_the_splits_have_the_known_sizes(split: Any, rotations: Any, sizes: tuple[int, int, int]) -> None:
    dataset = Omniglot(OmniglotConfig(split=split, rotations=rotations))
    assert dataset.sizes() == {
        name: SplitSize(classes, 20) for name, classes in zip(("train", "val", "test"), sizes, strict=True)
    }


@pytest.mark.parametrize("split", ["vinyals", "lake", "random", "cross-char"])
@pytest.mark.parametrize("rotations", ["all", "train", "none"])
def test_the_splits_are_as_announced_and_disjoint(omniglot_pack: Pack, split: Any, rotations: Any) -> None:
    dataset = Omniglot(OmniglotConfig(split=split, rotations=rotations))
    splits = dataset.split(omniglot_pack)
    assert {name: found.size for name, found in splits.items()} == dataset.sizes()
    parents = {name: {c.split("@")[0] for c in found.class_names} for name, found in splits.items()}
    assert sum(map(len, parents.values())) == len(set().union(*parents.values())) == 1623
    for found in splits.values():
        assert len(set(found.class_names)) == len(found.class_names)
        assert found.images.shape == (20 * len(found.class_names), 1, 28, 28)
        assert found.images.dtype == torch.uint8
        assert found.images.is_contiguous()


def test_all_but_the_latin_alphabet_trains_for_emnist(omniglot_pack: Pack) -> None:
    splits = Omniglot(OmniglotConfig(split="cross-char", rotations="none")).split(omniglot_pack)
    latin = {name: {c.split("/")[1] == "Latin" for c in found.class_names} for name, found in splits.items()}
    assert latin == {"train": {False}, "val": {True}, "test": {True}}


def test_the_seed_draws_the_random_split(omniglot_pack: Pack) -> None:
    def tested(seed: int) -> list[str]:
        config = OmniglotConfig(split="random", split_seed=seed, rotations="none")
        return list(Omniglot(config).split(omniglot_pack)["test"].class_names)

    assert tested(0) == tested(0)
    assert tested(0) != tested(1)
    alphabets = {name.split("/")[1] for name in tested(0)}
    assert len(alphabets) > 45, "characters of nearly every alphabet"


def test_the_families_are_the_alphabets(omniglot_pack: Pack) -> None:
    for split in Omniglot(OmniglotConfig(rotations="train")).split(omniglot_pack).values():
        alphabets = [name.split("/")[1] for name in split.class_names]
        assert split.families is not None
        assert len(set(split.families)) == len(set(alphabets)) == len(set(zip(split.families, alphabets, strict=True)))


def test_the_pack_is_in_the_order_of_the_published_split(omniglot_pack: Pack) -> None:
    names = omniglot_pack.class_names
    assert names[0] == "images_background/Alphabet_of_the_Magi/character01"
    assert [name.split("/")[0] for name in names] == ["images_background"] * 964 + ["images_evaluation"] * 659
    assert list(names[:964]) == sorted(names[:964])
    assert list(names[964:]) == sorted(names[964:])
    assert omniglot_pack.images.shape == (32460, 1, 28, 28)


def test_vinyals_tests_the_published_characters(omniglot_pack: Pack) -> None:
    splits = Omniglot(OmniglotConfig(rotations="none")).split(omniglot_pack)
    # The list of Snell et al. begins within an alphabet.
    assert splits["test"].class_names[0] == "images_evaluation/Gurmukhi/character42"
    assert splits["test"].class_names[-1] == "images_evaluation/ULOG/character26"


@pytest.mark.parametrize("split", ["vinyals", "lake"])
def test_val_is_five_background_alphabets(omniglot_pack: Pack, split: Any) -> None:
    val = Omniglot(OmniglotConfig(split=split)).split(omniglot_pack)["val"]
    assert {tuple(name.split("/")[:2]) for name in val.class_names} == {
        ("images_background", alphabet)
        for alphabet in ("Armenian", "Bengali", "Early_Aramaic", "Hebrew", "Mkhedruli_(Georgian)")
    }


def test_lake_tests_the_evaluation_part(omniglot_pack: Pack) -> None:
    splits = Omniglot(OmniglotConfig(split="lake")).split(omniglot_pack)
    parts = {name: {c.split("/")[0] for c in split.class_names} for name, split in splits.items()}
    assert parts == {
        "train": {"images_background"},
        "val": {"images_background"},
        "test": {"images_evaluation"},
    }


def test_rotated_classes_are_rotations_of_their_parents(omniglot_pack: Pack) -> None:
    val = Omniglot(OmniglotConfig()).split(omniglot_pack)["val"]
    turns = val.images.reshape(4, 172, 20, 28, 28)
    for turn in range(4):
        assert torch.equal(torch.rot90(turns[0], turn, dims=(-2, -1)), turns[turn])
        suffix = f"@{90 * turn}" if turn else ""
        names = val.class_names[turn * 172 : (turn + 1) * 172]
        assert names == [name + suffix for name in val.class_names[:172]]


def test_inversion_is_exact(omniglot_pack: Pack) -> None:
    inverted = Omniglot(OmniglotConfig(invert=True)).split(omniglot_pack)["val"]
    plain = Omniglot(OmniglotConfig(invert=False)).split(omniglot_pack)["val"]
    assert torch.equal(inverted.images, 255 - plain.images)
    assert inverted.images.float().mean() < 64  # little ink on an empty page
    assert inverted.class_names == plain.class_names


def test_splitting_leaves_the_pack_alone(omniglot_pack: Pack) -> None:
    before = omniglot_pack.fingerprint
    Omniglot(OmniglotConfig(rotations="none")).split(omniglot_pack)["train"].images.fill_(0)
    assert omniglot_pack.fingerprint == before


# ------------------------------------------------------------------------------------ where it lies


@pytest.mark.parametrize("write", [write_folders, write_zips])
@pytest.mark.parametrize(
    "place",
    [
        "data",
        "data/omniglot",
        "data/omniglot/omniglot-py",
        "data/omniglot-py",
        "data/omniglot/python",
        "data/elsewhere",
    ],
)
def test_every_layout_is_found_and_only_read(
    tmp_path: Path, place: str, write: Callable[[Path, dict[str, bytes]], None]
) -> None:
    write(tmp_path / place, small_files())
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*")}
    pack = load(tmp_path)
    assert list(pack.class_names) == CHARACTERS
    assert pack.images.shape == (10, 1, 28, 28)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*")} == before
    (pack_file,) = names_below(tmp_path / "cache" / "omniglot")
    assert pack_file.endswith(".safetensors")


@pytest.mark.parametrize("place", ["", "omniglot/", "omniglot/python/"])
def test_each_part_may_be_extracted_into_a_folder_of_its_own_name(tmp_path: Path, place: str) -> None:
    write_folders(
        tmp_path / "data", {f"{place}{name.split('/')[0]}/{name}": content for name, content in small_files().items()}
    )
    assert list(load(tmp_path).class_names) == CHARACTERS


def test_each_zip_may_lie_in_a_folder_of_its_own(tmp_path: Path) -> None:
    write_zips(tmp_path / "zips", small_files())
    for part in PARTS:
        (tmp_path / "data" / "omniglot" / part).mkdir(parents=True)
        (tmp_path / "zips" / f"{part}.zip").rename(tmp_path / "data" / "omniglot" / part / f"{part}.zip")
    assert list(load(tmp_path).class_names) == CHARACTERS


def test_an_archive_may_hold_its_part_in_a_further_folder(tmp_path: Path) -> None:
    write_zips(tmp_path / "data", {name: content for name, content in small_files().items() if "evaluation" in name})
    with zipfile.ZipFile(tmp_path / "data" / f"{PARTS[0]}.zip", "w") as archive:
        for name, content in small_files().items():
            if name.startswith(PARTS[0]):
                archive.writestr(f"python/{name}", content)
    pack = load(tmp_path)
    assert list(pack.class_names) == CHARACTERS
    write_zips(tmp_path / "flat" / "data", small_files())
    assert load(tmp_path / "flat").fingerprint == pack.fingerprint


def test_changed_raw_files_are_read_anew_and_their_absence_is_not_missed(tmp_path: Path) -> None:
    write_zips(tmp_path / "data", small_files())
    load(tmp_path)
    write_zips(tmp_path / "data", small_files() | {VICTIM: png(seed=999)})
    with pytest.raises(DataError, match="not those of the original Omniglot"):
        load(tmp_path)
    for part in PARTS:
        (tmp_path / "data" / f"{part}.zip").unlink()
    assert list(load(tmp_path).class_names) == CHARACTERS


def test_splits_rotations_and_inversion_share_a_pack(tmp_path: Path) -> None:
    write_zips(tmp_path / "data", small_files())
    for params in ({}, {"split": "lake"}, {"rotations": "none"}, {"invert": False}):
        load(tmp_path, **params)
    assert len(names_below(tmp_path / "cache")) == 2
    load(tmp_path, image_size=20)
    assert len(names_below(tmp_path / "cache")) == 3


def test_the_size_of_the_images_is_a_parameter(tmp_path: Path) -> None:
    write_zips(tmp_path / "data", small_files())
    original = load(tmp_path, image_size=105)
    assert original.images.shape == (10, 1, 105, 105)
    expected = Image.open(io.BytesIO(small_files()[VICTIM])).convert("L")
    np.testing.assert_array_equal(original.images[2, 0], np.asarray(expected))
    shrunk = load(tmp_path, image_size=20)
    np.testing.assert_array_equal(shrunk.images[2, 0], np.asarray(expected.resize((20, 20), Image.Resampling.LANCZOS)))


@pytest.mark.parametrize("size", [7, 106])
def test_other_sizes_are_refused(size: int) -> None:
    with pytest.raises(ValidationError):
        OmniglotConfig(image_size=size)


# --------------------------------------------------------------------------------- what can be wrong


def test_a_part_that_is_missing_is_named(tmp_path: Path) -> None:
    write_zips(tmp_path / "data", small_files())
    (tmp_path / "data" / "images_evaluation.zip").unlink()
    with pytest.raises(DataError, match=r"data has images_background but not images_evaluation: put"):
        load(tmp_path)


def test_a_character_that_is_missing_is_named(tmp_path: Path) -> None:
    files = small_files()
    write_folders(tmp_path / "data", files)
    shutil.rmtree(tmp_path / "data" / CHARACTERS[0])
    with pytest.raises(
        DataError,
        match=r"images_background has 2 characters of 2 alphabets, expected 3 of 2; "
        r"missing: images_background/Bengali/character01\.",
    ):
        load(tmp_path)


def test_a_drawing_that_is_missing_is_noticed(tmp_path: Path) -> None:
    files = small_files()
    del files[VICTIM]
    write_zips(tmp_path / "data", files)
    with pytest.raises(DataError, match=r"\.zip has 1 drawings of \S*Bengali/character02, expected 2"):
        load(tmp_path)


def test_an_image_of_another_size_is_named(tmp_path: Path) -> None:
    write_folders(tmp_path / "data", small_files() | {VICTIM: png(1, size=(28, 30))})
    with pytest.raises(DataError, match=r"Bengali/character02/02_01\.png in .* has 28 x 30 pixels, expected 105 x 105"):
        load(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a picture",
        small_files()[VICTIM][:60],
        small_files()[VICTIM][:-30],
        png(1)[:200] + bytes(900),
    ],
    ids=["empty", "text", "header", "truncated", "overwritten"],
)
@pytest.mark.parametrize("write", [write_folders, write_zips])
def test_a_damaged_image_is_named(
    tmp_path: Path, content: bytes, write: Callable[[Path, dict[str, bytes]], None]
) -> None:
    write(tmp_path / "data", small_files() | {VICTIM: content})
    with pytest.raises(DataError, match=r"Bengali/character02/02_01\.png in .*images_background.* is damaged"):
        load(tmp_path)
    assert names_below(tmp_path / "cache") == ["omniglot"]


def test_a_truncated_zip_is_named(tmp_path: Path) -> None:
    write_zips(tmp_path / "data", small_files())
    victim = tmp_path / "data" / "images_evaluation.zip"
    os.truncate(victim, victim.stat().st_size // 2)
    with pytest.raises(DataError, match=r"images_evaluation\.zip cannot be read"):
        load(tmp_path)


def test_a_zip_with_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    write_zips(tmp_path / "data", small_files())
    victim = tmp_path / "data" / "images_evaluation.zip"
    content = bytearray(victim.read_bytes())
    content[content.index(b"IDAT") + 20] ^= 0xFF
    victim.write_bytes(content)
    with pytest.raises(DataError, match=r"images_evaluation\.zip is damaged"):
        load(tmp_path)


def test_drawings_other_than_the_originals_are_refused(tmp_path: Path) -> None:
    write_zips(tmp_path / "data", small_files() | {VICTIM: png(seed=999)})
    with pytest.raises(DataError, match=rf"sha256 is [0-9a-f]{{64}}, expected {SmallOmniglot.sha256}"):
        load(tmp_path)


def test_names_other_than_the_originals_are_refused(tmp_path: Path) -> None:
    files = {name.replace("Bengali", "Bengal"): content for name, content in small_files().items()}
    write_zips(tmp_path / "data", files)
    with pytest.raises(DataError, match="not those of the original Omniglot"):
        load(tmp_path)


# -------------------------------------------------------------------------------------- downloading


def test_without_data_or_permission_to_download_it_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError) as caught:
        load(tmp_path)
    message = str(caught.value)
    assert f"it is not in {tmp_path / 'data'}, and downloading is switched off" in message
    assert "METABENCH_DATA/omniglot/images_background.zip" in message
    assert "METABENCH_DATA/omniglot/images_evaluation.zip" in message
    assert "metabench run quickstart" in message


@pytest.mark.parametrize(
    "failure",
    [
        urllib.error.URLError("no route to host"),
        ConnectionResetError("connection reset"),
        RuntimeError("File not found or corrupted."),
    ],
)
def test_a_failed_download_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    def fail(root: str, **_: object) -> None:
        (Path(root) / "half.zip").write_text("half")
        raise failure

    monkeypatch.setattr("torchvision.datasets.Omniglot", fail)
    with pytest.raises(DataError, match=r"downloading it failed: (?s:.)*METABENCH_DATA(?s:.)*quickstart"):
        load(tmp_path, download=True)
    assert names_below(tmp_path / "cache") == ["omniglot"]


def test_an_interrupted_download_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(root: str, **_: object) -> None:
        (Path(root) / "half.zip").write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr("torchvision.datasets.Omniglot", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load(tmp_path, download=True)
    assert names_below(tmp_path / "cache") == ["omniglot"]


def test_downloaded_files_are_packed_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(root: str, background: bool, download: bool) -> None:
        assert download
        print("Extracting")
        part = PARTS[0] if background else PARTS[1]
        files = {name: content for name, content in small_files().items() if name.startswith(part)}
        write_folders(Path(root) / "omniglot-py", files)

    monkeypatch.setattr("torchvision.datasets.Omniglot", fetch)
    assert list(load(tmp_path, download=True).class_names) == CHARACTERS
    (pack_file,) = names_below(tmp_path / "cache" / "omniglot")
    assert pack_file.endswith(".safetensors")
