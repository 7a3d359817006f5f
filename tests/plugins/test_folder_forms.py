"""`folder` reads every form in which people keep their images, and divides it as it is asked to."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metabench.api import DataError
from metabench.data.packing import DataRoots, LoadedDataset, load_splits
from metabench.testing import DatasetChecks
from metabench_plugins.datasets.folder import Folder, FolderConfig
from metabench_plugins.images.splits import SplitConfig, SplitsConfig, divided, with_split
from picture_files import class_files, encoded, noise, picture, write_files

Files = Mapping[str, bytes | str]
IMAGES = class_files()


def loaded(root: Path, cache: Path, **params: Any) -> LoadedDataset:
    dataset = Folder(FolderConfig(**{"root": str(root), "image_size": 8, **params}))
    return load_splits("folder", dataset, DataRoots((), cache), lambda done, total, what: None)


def classes(data: LoadedDataset) -> dict[str, list[str]]:
    return {name: list(split.class_names) for name, split in data.splits.items()}


def counts(data: LoadedDataset) -> dict[str, list[int]]:
    return {name: split.offsets.diff().tolist() for name, split in data.splits.items()}


def zipped(files: Files) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return content.getvalue()


# ------------------------------------------------------------------------------------------------- the forms

RATIO = {"train": 6, "val": 2, "test": 2}
SPLIT = {"abcdef": "train", "gh": "val", "ij": "test"}
SPLIT_OF = {letter: split for letters, split in SPLIT.items() for letter in letters}
GIVEN = {split: list(letters) for letters, split in SPLIT.items()}


def listed(split: str) -> list[tuple[str, str]]:
    return [(path, path[0]) for path in IMAGES if SPLIT_OF[path[0]] == split or not split]


def closerlook(split: str, prefix: str = "") -> str:
    names, labels = zip(*listed(split), strict=True)
    titles = sorted(set(labels))
    content = {
        "label_names": titles,
        "image_names": [f"{prefix}{name}" for name in names],
        "image_labels": [titles.index(label) for label in labels],
    }
    return json.dumps(content)


def easyfsl(split: str) -> str:
    titles = GIVEN[split]
    return json.dumps({"class_names": titles, "class_roots": [f"./data/mine/images/{title}" for title in titles]})


def csv(split: str, header: str = "filename,label", swapped: bool = False) -> str:
    return "\n".join([header, *(f"{b},{a}" if swapped else f"{a},{b}" for a, b in listed(split))])


def below(folder: str) -> dict[str, bytes]:
    return {f"{folder}/{path}": content for path, content in IMAGES.items()}


NAMES = ("train", "val", "test")
WITHOUT_SPLITS: dict[str, Files] = {
    "class folders": IMAGES,
    "class folders in a folder": below("my images"),
    "csv": {**below("images"), "labels.csv": csv("")},
    "csv of easyfsl": {**below("images"), "all.csv": csv("", "class_name,image_name", swapped=True)},
    "csv of Meta-Album": {
        **{f"images/{path.replace('/', '_')}": content for path, content in IMAGES.items()},
        "labels.csv": "FILE_NAME,CATEGORY,SUPER_CATEGORY\n"
        + "\n".join(f"{path.replace('/', '_')},{label},x" for path, label in listed("")),
    },
    "csv without header": {**IMAGES, "list.csv": csv("").partition("\n")[2]},
    "csv without endings": {**IMAGES, "list.csv": csv("").replace(".png", "")},
}
WITH_SPLITS: dict[str, Files] = {
    "split folders": {f"{SPLIT_OF[path[0]]}/{path}": content for path, content in IMAGES.items()},
    "base, val and novel folders": {
        f"data/{ {'train': 'base', 'val': 'val', 'test': 'novel'}[SPLIT_OF[path[0]]] }/{path}": content
        for path, content in IMAGES.items()
    },
    "csv by split": {**below("images"), **{f"{split}.csv": csv(split) for split in NAMES}},
    "csv with a split column": {
        **below("images"),
        "labels.csv": "split,label,file\n"
        + "\n".join(f"{SPLIT_OF[label]},{label},{path}" for path, label in listed("")),
    },
    "json of CloserLook": {
        **below("images"),
        **{f"{name}.json": closerlook(split) for name, split in zip(("base", "val", "novel"), NAMES, strict=True)},
    },
    "json of CloserLook, made elsewhere": {
        **below("CUB/images"),
        **{f"CUB/{split}.json": closerlook(split, "/home/somebody/filelists/CUB/images/") for split in NAMES},
    },
    "json of easyfsl": {**below("images"), **{f"{split}.json": easyfsl(split) for split in NAMES}},
}


def as_folder(files: Files, folder: Path) -> Path:
    return write_files(folder / "data", files)


def as_zip(files: Files, folder: Path) -> Path:
    return write_files(folder, {"data.zip": zipped(files)}) / "data.zip"


KINDS = {"folder": as_folder, "zip": as_zip}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", WITHOUT_SPLITS)
def test_every_form_without_splits_gives_the_same_images(form: str, kind: str, tmp_path: Path) -> None:
    found = loaded(KINDS[kind](WITHOUT_SPLITS[form], tmp_path), tmp_path / "cache")
    plain = loaded(as_folder(IMAGES, tmp_path / "plain"), tmp_path / "cache")
    assert classes(found) == classes(plain)
    assert {split: len(names) for split, names in classes(found).items()} == RATIO
    assert found.test_content == plain.test_content


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", WITH_SPLITS)
def test_every_form_with_splits_is_divided_as_it_says(form: str, kind: str, tmp_path: Path) -> None:
    root = KINDS[kind](WITH_SPLITS[form], tmp_path)
    found = loaded(root, tmp_path / "cache")
    assert classes(found) == GIVEN
    assert counts(found) == {split: [3] * len(names) for split, names in GIVEN.items()}
    assert {
        split: len(names) for split, names in classes(loaded(root, tmp_path / "cache", split=by("ratio"))).items()
    } == RATIO
    assert len(list((tmp_path / "cache" / "folder").glob("*.safetensors"))) == 1, "both divisions share a pack"


def test_a_list_is_a_root_of_its_own(tmp_path: Path) -> None:
    root = as_folder({**below("images"), "a.csv": csv(""), "b.csv": "filename,label\nx,y\n"}, tmp_path)
    assert {split: len(names) for split, names in classes(loaded(root / "a.csv", tmp_path)).items()} == RATIO
    write_files(root, {"c.json": closerlook("")})
    assert {split: len(names) for split, names in classes(loaded(root / "c.json", tmp_path)).items()} == RATIO


def test_classes_may_be_in_groups(tmp_path: Path) -> None:
    root = as_folder({**class_files("abc", start="one/"), **class_files("abc", start="second/")}, tmp_path)
    found = classes(loaded(root, tmp_path, depth=2))
    assert sorted(name for names in found.values() for name in names) == [
        f"{group}/{name}" for group in ("one", "second") for name in "abc"
    ]


def test_a_list_goes_before_class_folders_and_a_form_before_both(tmp_path: Path) -> None:
    root = as_folder({**IMAGES, "labels.csv": csv("").replace(",a", ",first")}, tmp_path)
    assert "first" in str(classes(loaded(root, tmp_path)))
    assert "first" not in str(classes(loaded(root, tmp_path, form="classes")))


def test_a_list_of_something_else_is_remarked(tmp_path: Path) -> None:
    root = as_folder({**IMAGES, "train.csv": "x,y,z\n1,2,3\n", "test.json": "[]"}, tmp_path)
    first, second = loaded(root, tmp_path).remarks
    assert first.startswith("a list was not read: ")
    assert "test.json is no list of images" in first
    assert "train.csv does not tell file names from labels" in second


# ------------------------------------------------------------------------------------------------- divisions


def by(how: str, **others: Any) -> SplitConfig:
    return SplitConfig(by=how, **others)  # type: ignore[arg-type]


def test_classes_are_divided_by_lists(tmp_path: Path) -> None:
    lists = {"train": ("a", "c"), "val": ("b",), "test": ("j", "i")}
    found = loaded(as_folder(IMAGES, tmp_path), tmp_path, split=by("classes", **lists))
    assert classes(found) == {"train": ["a", "c"], "val": ["b"], "test": ["i", "j"]}


def test_images_of_each_class_are_divided_by_ratio_and_seed(tmp_path: Path) -> None:
    root = as_folder(class_files("ab", 10), tmp_path)
    found = loaded(root, tmp_path, split=by("image"))
    assert classes(found) == {split: ["a", "b"] for split in NAMES}
    assert counts(found) == {"train": [6, 6], "val": [2, 2], "test": [2, 2]}
    names = [name for split in found.splits.values() for name in split.image_names[: len(split.image_names) // 2]]
    assert sorted(names) == [f"{i}.png" for i in range(10)], "each image of the first class is in one split"
    assert found.findings.overlapping
    assert found.findings.remarks() == [
        "the dataset allows that its splits overlap: 2 classes and 0 images in more than one"
    ]
    other = loaded(root, tmp_path, split=by("image"), seed=1)
    assert not torch.equal(
        found.splits["test"].rows.take(torch.arange(4)), other.splits["test"].rows.take(torch.arange(4))
    )


def test_given_splits_may_share_classes_if_that_is_said(tmp_path: Path) -> None:
    root = as_folder(
        {path: content for split in NAMES for path, content in class_files("ab", start=f"{split}/").items()}, tmp_path
    )
    with pytest.raises(DataError, match=r"2 of 2 classes in more than one split, e\.g\. 'a'.*shared_classes: true"):
        loaded(root, tmp_path)
    found = loaded(root, tmp_path, split=SplitConfig(by="given", shared_classes=True))
    assert classes(found) == {split: ["a", "b"] for split in NAMES}


def test_an_image_in_two_splits_is_refused_even_where_classes_are_shared(tmp_path: Path) -> None:
    root = as_folder(
        {**class_files("ab", 10), "a/copy.png": IMAGES["a/0.png"], "a/again.png": IMAGES["a/0.png"]}, tmp_path
    )
    with pytest.raises(
        DataError, match=r"has 1 image in more than one split, e\.g\. image '\w+\.png' of \w+ \(class 'a'\)"
    ):
        loaded(root, tmp_path, split=by("image"), ratios=(1, 1, 1))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"split": {"by": "classes", "train": ("a",), "val": ("b",)}},
            "needs the lists train, val and test, and test is empty",
        ),
        ({"split": {"by": "ratio", "train": ("a",)}}, "are for by: classes"),
        ({"split": {"train": ("a",)}}, r"split\.by\n\s+Field required"),
        ({"split": {"by": "image", "shared_classes": True}}, "is for given splits, not for by: image"),
        ({"split": {"by": "given"}, "seed": 3}, "seed divides nothing with split by: given"),
        ({"split": {"by": "given"}, "ratios": (1, 1, 1)}, "ratios divides nothing with split by: given"),
        ({"split": {"by": "chance"}}, "'given', 'ratio', 'classes' or 'image'"),
        ({"root": ""}, "at least 1 character"),
        ({"depth": 3}, "1 or 2"),
        ({"ground": (256, 0, 0)}, r"a colour is needed, \[red, green, blue\], each from 0 to 255"),
        ({"ground": (1, 2)}, "a colour is needed"),
        ({"resize": 7}, "smaller than the crop"),
        ({"resize": (8, 8, 8)}, r"a number of pixels or \[height, width\] is needed, from 1 to 4096"),
        ({"resize": "large"}, "a number of pixels or"),
    ],
)
def test_parameters_that_contradict_each_other_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FolderConfig(**{"root": "x", "image_size": 8, **params})


@given(
    st.dictionaries(st.sampled_from("abcdefghijkl"), st.integers(3, 30), min_size=1),
    st.tuples(*[st.floats(0.01, 100)] * 3),
    st.integers(0, 5),
)
def test_division_by_image_gives_each_image_to_one_split(
    sizes: dict[str, int], ratios: tuple[float, float, float], seed: int
) -> None:
    images = {name: [f"{i}.png" for i in range(count)] for name, count in sizes.items()}
    found = divided(images, SplitsConfig(split=by("image"), ratios=ratios, seed=seed), "x")
    for name, count in sizes.items():
        parts = [found[split][name] for split in NAMES]
        assert all(parts)
        assert sorted(index for part in parts for index in part) == list(range(count))


def test_a_folder_of_a_class_named_as_a_split_is_no_split() -> None:
    images = {name: ["train/1.png", "val/2.png", "test/3.png"] for name in "abc"}
    assert all(len(names) == 3 for of in divided(images, SplitsConfig(), "x").values() for names in of.values())
    marked = {
        name: [with_split("train", "1.png"), with_split("val", "2.png"), with_split("test", "3.png")] for name in "abc"
    }
    given_ = divided(marked, SplitsConfig(split=SplitConfig(by="given", shared_classes=True)), "x")
    assert given_ == {split: {name: [index] for name in "abc"} for index, split in enumerate(NAMES)}


# --------------------------------------------------------------------------------------------------- changes


def test_new_parameters_keep_the_images_of_class_folders(tmp_path: Path) -> None:
    root = as_folder(
        {f"{name}/{i}.png": encoded(noise(9, 20, 10 * ord(name) + i)) for name in "abc" for i in range(2)}, tmp_path
    )
    stretched = loaded(root, tmp_path, resize=(8, 8))
    assert stretched.test_content != loaded(root, tmp_path).test_content
    assert loaded(root, tmp_path, resize=8).splits["test"].rows.shape == (3, 8, 8)


@pytest.mark.parametrize("form", ["class folders", "csv", "zip"])
def test_a_changed_file_is_noticed(form: str, tmp_path: Path) -> None:
    files = WITHOUT_SPLITS["class folders" if form == "zip" else form]
    root = KINDS["zip" if form == "zip" else "folder"](files, tmp_path)
    before = loaded(root, tmp_path / "cache").fingerprint
    changed = {path: picture(99) if path.endswith("a/0.png") else content for path, content in files.items()}
    target = KINDS["zip" if form == "zip" else "folder"](changed, tmp_path)
    place = target if form == "zip" else next(path for path in target.rglob("0.png") if path.parent.name == "a")
    os.utime(place, ns=(1, 1))  # the size may be the same, and the clock of the file system coarse
    assert loaded(root, tmp_path / "cache").fingerprint != before


def test_a_changed_file_outside_the_folder_of_the_list_is_noticed(tmp_path: Path) -> None:
    pictures = write_files(tmp_path / "elsewhere", IMAGES)
    text = "\n".join(f"{pictures / path},{label}" for path, label in listed(""))
    root = as_folder({"list.csv": text}, tmp_path)
    before = loaded(root, tmp_path / "cache")
    assert before.raw_files == 31
    os.utime(pictures / "a/0.png", ns=(1, 1))
    write_files(pictures, {"a/0.png": picture(99)})
    assert loaded(root, tmp_path / "cache").fingerprint != before.fingerprint


def test_the_progress_of_packing_is_told(tmp_path: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    dataset = Folder(FolderConfig(root=str(as_folder(IMAGES, tmp_path)), image_size=8))
    told: Callable[[int, int, str], None] = lambda done, total, what: seen.append((done, total, what))  # noqa: E731
    load_splits("folder", dataset, DataRoots((), tmp_path / "cache"), told)
    assert [step for step in seen if step[2] == "reading data"] == [(i, 30, "reading data") for i in range(1, 31)]


class TestSplitFolders(DatasetChecks):
    dataset = "folder"

    @pytest.fixture(autouse=True)
    def _root(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        root = as_folder(WITH_SPLITS["split folders"], Path(tmp_path_factory.mktemp("checks")))
        self.params = {"root": str(root), "image_size": 8}
