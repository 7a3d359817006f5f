from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from metabench.data.packing import DataRoots, LoadedDataset, load_splits
from metabench.errors import DataError
from metabench.packs import Pack
from metabench_plugins.datasets.folder import Folder, FolderConfig

CLASSES = "abcdefghij"


def silent(done: int, total: int, what: str) -> None:
    pass


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return ten class folders of three noisy images each, of several sizes and modes."""
    rng = np.random.default_rng(0)
    for name in CLASSES:
        folder = tmp_path / "images" / name
        folder.mkdir(parents=True)
        for index, (height, width, mode) in enumerate([(20, 30, "RGB"), (30, 20, "L"), (9, 9, "RGBA")]):
            shape = (height, width, len(mode))[: 3 if len(mode) > 1 else 2]
            pixels = rng.integers(0, 256, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{index}.png")
    return tmp_path / "images"


def loaded(root: Path, tmp_path: Path, *sources: Path, **params: Any) -> LoadedDataset:
    dataset = Folder(FolderConfig(**{"root": str(root), "image_size": 10, **params}))
    return load_splits("folder", dataset, DataRoots(sources, tmp_path / "cache"), silent)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_have_the_size_and_the_channels_asked_for(root: Path, tmp_path: Path, channels: int) -> None:
    splits = loaded(root, tmp_path, channels=channels).splits
    assert {split.rows.shape for split in splits.values()} == {(channels, 10, 10)}
    assert {split.rows.dtype for split in splits.values()} == {torch.uint8}


def test_the_shorter_side_is_kept_and_the_centre_is_cropped(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / "images" / name).mkdir(parents=True)
        pixels = np.zeros((10, 30, 3), np.uint8)
        pixels[:, 10:20] = 10 * ord(name) % 256
        Image.fromarray(pixels).save(tmp_path / "images" / name / "wide.png")
    for split in loaded(tmp_path / "images", tmp_path).splits.values():
        (name,) = split.class_names
        assert (split.rows.take(torch.tensor([0])) == 10 * ord(name) % 256).all()


def test_classes_are_split_by_ratio_and_seed(root: Path, tmp_path: Path) -> None:
    def names(**params: Any) -> dict[str, list[str]]:
        return {name: list(split.class_names) for name, split in loaded(root, tmp_path, **params).splits.items()}

    plain = names()
    assert {name: len(classes) for name, classes in plain.items()} == {"train": 6, "val": 2, "test": 2}
    assert sorted(chain.from_iterable(plain.values())) == list(CLASSES)
    assert names() == plain != names(seed=1)
    assert {name: len(classes) for name, classes in names(ratios=(1, 1, 3)).items()} == {
        "train": 2,
        "val": 2,
        "test": 6,
    }
    without = names(exclude=("c", "j"))
    assert sorted(chain.from_iterable(without.values())) == sorted(set(CLASSES) - {"c", "j"})
    assert len(list((tmp_path / "cache" / "folder").glob("*.safetensors"))) == 1, "they share a pack"


@given(st.integers(3, 40), st.tuples(*[st.floats(0.01, 100)] * 3), st.integers(0, 5))
def test_every_split_has_a_class_and_every_class_a_split(
    count: int, ratios: tuple[float, float, float], seed: int
) -> None:
    names = tuple(f"class {c}" for c in range(count))
    pack = Pack(np.zeros((count, 1, 2, 2), np.uint8), np.arange(count + 1), names)
    splits = Folder(FolderConfig(root="x", ratios=ratios, seed=seed)).split(pack)
    assert all(len(split.class_names) >= 1 for split in splits.values())
    assert sorted(name for split in splits.values() for name in split.class_names) == sorted(names)


def test_a_relative_root_is_found_in_the_data_folders(root: Path, tmp_path: Path) -> None:
    found = loaded(Path("images"), tmp_path, tmp_path / "elsewhere", tmp_path)
    assert found.fingerprint == loaded(root, tmp_path).fingerprint
    assert found.raw_files == 30


def test_files_that_are_no_images_are_counted_and_named(root: Path, tmp_path: Path) -> None:
    before = loaded(root, tmp_path)
    (root / "a" / "deeper").mkdir()
    for name in ("notes.txt", "deeper/more.txt", ".hidden"):
        (root / "a" / name).write_text("no image")
    (root / "b" / "list.csv").write_text("no image")
    (root / "README.md").write_text("no class")
    after = loaded(root, tmp_path)
    assert after.fingerprint == before.fingerprint
    assert after.remarks == (
        "2 files that are no images were left out of class 'a': a/deeper/more.txt, a/notes.txt",
        "1 file that is no image was left out of class 'b': b/list.csv",
    )


def test_memory_holds_the_images_of_one_class(root: Path, tmp_path: Path) -> None:
    files = type("Files", (), {"sources": [], "cache": tmp_path, "download": False})()
    packed = Folder(FolderConfig(root=str(root), image_size=4)).pack(files, silent)
    assert isinstance(packed, Iterator)
    assert [(part.name, len(part.images)) for part in packed] == [(name, 3) for name in CLASSES]


@pytest.mark.parametrize("broken", ["missing", "empty", "no images", "unreadable", "cut", "two classes", "excluded"])
def test_what_is_wrong_is_named(broken: str, root: Path, tmp_path: Path) -> None:
    params: dict[str, Any] = {}
    if broken == "missing":
        root, message = root / "nowhere", r"there is no folder \S*nowhere: correct the parameter `root`"
    elif broken == "empty":
        root = tmp_path / "empty"
        root.mkdir()
        message = r"\S*empty has no class folders: put the images of each class into a folder"
    elif broken == "no images":
        (root / "z").mkdir()
        (root / "z" / "a.txt").write_text("")
        message = r"the class folder \S*z has no images \(.*\), but 1 other files, e\.g\. z/a\.txt"
    elif broken in ("unreadable", "cut"):
        content = (root / "d" / "1.png").read_bytes()
        (root / "d" / "1.png").write_bytes(b"no image" if broken == "unreadable" else content[: len(content) // 2])
        message = rf"(?s)1 image cannot be read; replace it.*\n  {re.escape(str(root / 'd' / '1.png'))} \(\w+: "
    elif broken == "two classes":
        params["exclude"] = tuple("abcdefgh")
        message = r"images has 2 classes: train, val and test need one each"
    else:
        params["exclude"] = ("unknown",)
        message = r"exclude names 'unknown', which is no class of"
    with pytest.raises(DataError, match=message):
        loaded(root, tmp_path, **params)
    if broken not in ("two classes", "excluded"):
        assert not list((tmp_path / "cache").rglob("*.safetensors")), "nothing is half-written"
