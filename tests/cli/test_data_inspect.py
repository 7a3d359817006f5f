"""`metabench data inspect` says what a place holds; `data new-suite` writes a suite that runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from command_line import Command, Distributions, assert_refused, everything_below
from metabench.api import Inspection
from metabench.reporting.inspection import inspection_text
from picture_files import bomb, class_files, encoded, noise, picture, write_files
from vector_files import KINDS, write_vectors

pytestmark = pytest.mark.usefixtures("one_thread", "few_latencies")

SPLITS = {**class_files("abcdef", 8, "train/"), **class_files("gh", 8, "val/"), **class_files("ij", 8, "test/")}


def written(files: Mapping[str, bytes | str]) -> None:
    """Write a folder `photos` into the current one."""
    write_files(Path("photos"), files)


def plan_of(suite: str) -> Any:
    return yaml.safe_load(Path(suite).read_text(encoding="utf-8"))


# ------------------------------------------------------------------------------------------------- inspect


def test_form_classes_sizes_and_modes_are_said(metabench: Command) -> None:
    written({**class_files("abcdefghij", 6), "a/more.jpg": encoded(noise(40, 50).convert("L"), "JPEG")})
    before = everything_below(Path())
    ended = metabench("data", "inspect", "photos")
    assert (ended.code, ended.err) == (0, "")
    # The path is long where the temporary folder is: its line then goes on in the next one.
    lines = ended.out.replace("\n            ", " ").splitlines()
    assert lines[:9] == [
        "read by     folder: a folder for each class",
        f"params      {{root: {Path('photos').absolute()}}}",
        "classes     10, 6 … 7 images each, median 6",
        "images      61",
        "sizes       16×12 … 50×40 pixels, most often 16×12 (60)",
        "modes       RGB 60, L 1",
        *[line for line in lines[6:9] if line.split()[0] in ("train", "val", "test")],
    ]
    assert "  6 9 ████" in ended.out
    assert ended.out.endswith("next: metabench data new-suite photos\n")
    assert everything_below(Path()) == before


TEN = class_files("abcdefghij", 6)
GREY = {f"{c}/{i}.png": encoded(noise(9, 9, 100 * ord(c) + i).convert("L")) for c in "abcdefghij" for i in range(6)}
ODDITIES: dict[str, tuple[Mapping[str, bytes | str], list[str]]] = {
    "splits": (
        SPLITS,
        ["folder: folders of splits, with a folder for each class", "train 6 classes, 8 images each"],
    ),
    "a list of missing files": ({**TEN, "list.csv": "x.png,y\n"}, ["a list was not read", "listed file (x.png"]),
    "three classes": (
        class_files("abc", 6),
        ["`split: {by: image}` is proposed, because train has one class", "train 3 classes, 2 images each"],
    ),
    "damage": (
        {**TEN, "a/2.png": b"", "b/x.png": bomb(60_000, 60_000)},
        ["damaged files: 2", "photos/a/2.png (UnidentifiedImageError", "damaged: skip"],
    ),
    "nothing but damage": (
        {"a/1.png": b"", "b/1.png": b"text"},
        ["classes 2, 0 images each", "damaged files: 2", "all images of 'a' are damaged"],
    ),
    "copies": ({**TEN, "a/x.png": TEN["a/0.png"]}, ["equal images: 1", "a/0.png = a/x.png"]),
    "copies in other splits": (
        {**TEN, **{f"{c}/x.png": picture(5) for c in "abcdefghij"}},
        ["1 of the images that occur twice cross a split", "remove the copies"],
    ),
    "groups": (
        {**class_files("abcde", 6, "one/"), **class_files("abcde", 6, "second/")},
        ["depth: 2", "classes 10, 6 images each", "each of these is a class"],
    ),
    "grey": (GREY, ["modes L 60", "channels: 1"]),
    "one class": (class_files("a", 6), ["photos has one class: a method needs two to tell apart"]),
    "one image a class": (
        class_files("abcdefghij", 1),
        ["most classes of a split have one image", "in the way of a run: 1"],
    ),
}


@pytest.mark.parametrize("oddity", ODDITIES)
def test_oddities_are_said(oddity: str, metabench: Command) -> None:
    files, expected = ODDITIES[oddity]
    written(files)
    ended = metabench("data", "inspect", "photos")
    assert (ended.code, ended.err) == (0, "")
    text = " ".join(ended.out.split())
    assert [words for words in expected if words not in text] == []


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, ["there is no file or folder photos"]),
        ({"readme.txt": ""}, ["photos has no class folders"]),
        ({"a/x.txt": ""}, ["has no images"]),
    ],
    ids=["nothing", "no images", "no images in a class"],
)
def test_a_place_without_images_is_refused(files: dict[str, bytes | str], words: list[str], metabench: Command) -> None:
    written(files)
    for command in ("inspect", "new-suite"):
        assert_refused(metabench("data", command, "photos"), words)


def described(counts: Mapping[str, int], width: int = 60, encoding: str = "utf-8") -> list[str]:
    found = Inspection("a folder for each class", {"root": "x"}, {}, counts, {(30, 20): 4}, {"RGB": 4})
    return inspection_text("folder", found, width, encoding).splitlines()


@pytest.mark.parametrize("width", [40, 60, 200])
@pytest.mark.parametrize("classes", [1, 2, 10_000])
def test_the_description_fits_any_terminal(classes: int, width: int) -> None:
    lines = described({f"class {c}": 1 + c % 700 for c in range(classes)}, width)
    assert max(map(len, lines)) <= max(width, 40)
    assert len(lines) < 30


def test_the_histogram_counts_every_class_once() -> None:
    counts = {f"class {c}": count for c, count in enumerate([1, 2, 3, 4, 5, 8, 9, 100, 1000, 1023, 1024])}
    lines = described(counts)
    bars = lines[lines.index("images of a class") + 1 :]
    assert [line.split()[:2] for line in bars] == [
        ["1", "1"], ["2-3", "2"], ["4-7", "2"], ["8-15", "2"], ["16-31", "0"], ["32-63", "0"], ["64-127", "1"],
        ["128-255", "0"], ["256-511", "0"], ["512-1023", "2"], ["1024-2047", "1"],
    ]  # fmt: skip
    assert "images of a class" not in described(dict.fromkeys("abc", 600))


def test_the_description_needs_no_more_than_ascii() -> None:
    text = "\n".join(described({"a": 2, "b": 5}, encoding="ascii"))
    assert text.isascii()
    assert "2 .. 5 images each" in text
    assert "###" in text


MINE = """\
    from metabench import api
    from metabench.specs import DatasetSpec, hookimpl


    class Mine(api.Dataset):
        @classmethod
        def inspect(cls, path, files, progress):
            if path.name == "photos":
                ANSWER

        def pack(self, files, progress):
            raise AssertionError

        split = pack


    @hookimpl
    def metabench_datasets():
        return [DatasetSpec("mine", f"{__name__}:Mine", "my images")]
"""


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (
            "return api.Inspection('my form', {'x': 1}, {}, {'a': 3}, suites=['omniglot'])",
            0,
            ["read by     mine: my form", "params      {x: 1}", "fitting suites: omniglot"],
        ),
        ("return None", 0, ["read by     folder: a folder for each class"]),
        ("raise api.DataError('photos: train.pkl is missing')", 2, ["metabench: photos: train.pkl is missing"]),
        ("raise RuntimeError('oh')", 2, ["the dataset 'mine' failed in inspect(): RuntimeError: oh"]),
        ("return 7", 2, ["the dataset 'mine', inspect(): the result must be an Inspection or None"]),
    ],
    ids=["recognised", "not recognised", "damaged", "broken", "no inspection"],
)
def test_datasets_of_plugins_are_asked_first(
    answer: str, code: int, words: list[str], metabench: Command, distributions: Distributions
) -> None:
    distributions.add("mine", MINE.replace("ANSWER", answer))
    written(TEN)
    ended = metabench("data", "inspect", "photos")
    assert ended.code == code
    assert [part for part in words if part not in ended.out + ended.err] == []
    if "omniglot" in answer:
        expected = ["no suite is written: these suites read photos: metabench run omniglot"]
        assert_refused(metabench("data", "new-suite", "photos"), expected)


# ------------------------------------------------------------------------------------------------- new-suite


@pytest.mark.parametrize(
    ("files", "way", "shots", "queries"),
    [
        (class_files("abcdefghijklmnopqrstuvwxyz", 20), 5, [1, 5], 15),
        (class_files("abcdefghij", 9), 2, [1, 5], 4),
        (class_files("abcdefghij", 6), 2, [1], 5),
        (class_files("abc", 10), 3, [1], 1),
        (SPLITS, 2, [1, 5], 3),
    ],
    ids=["many classes", "ten classes", "few images", "three classes", "splits"],
)
def test_the_shape_of_episodes_fits_the_images(
    files: dict[str, bytes | str], way: int, shots: list[int], queries: int, metabench: Command
) -> None:
    written(files)
    ended = metabench("data", "new-suite", "photos")
    assert (ended.code, ended.out) == (0, "wrote photos.yaml\nnext:  metabench run photos.yaml --profile smoke\n")
    suite = plan_of("photos.yaml")
    assert (suite["ways"], suite["shots"], suite["queries"]) == ([way], shots, queries)
    assert list(suite["algorithms"]) == ["protonet", "matchingnet", "maml", "classifier", "simpleshot"]
    ended = metabench("validate", "photos.yaml")
    assert (ended.code, ended.out.count("valid")) == (0, 4), ended.err


@pytest.mark.parametrize("name", ["photos", "2024", "Käfer & Co: 'alle' {x}.zip", "#"])
def test_the_written_suite_runs(name: str, metabench: Command) -> None:
    write_files(Path(name), class_files("abc", 10))
    assert metabench("data", "new-suite", name, "--output", "new.yaml").code == 0
    ended = metabench("run", "new.yaml", "--profile", "smoke", "--output", "out")
    assert ended.code == 0, ended.err
    assert all(algorithm in ended.out for algorithm in ("protonet", "matchingnet", "maml", "classifier", "simpleshot"))
    assert "the dataset allows that its splits overlap: 3 classes and 0 images in more than one" in ended.out


def test_the_root_is_relative_to_the_data_folders(metabench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    written(class_files("abcdefghij", 6, "mine/"))
    monkeypatch.setenv("METABENCH_DATA", str(Path("photos").absolute()))
    assert metabench("data", "new-suite", "photos/mine").code == 0
    assert plan_of("mine.yaml")["datasets"]["mine"]["params"]["root"] == "mine"
    assert metabench("run", "mine.yaml", "--profile", "smoke", "--only", "algorithm=protonet").code == 0


def test_no_file_is_overwritten(metabench: Command) -> None:
    written(class_files("abcdefghij", 6))
    Path("photos.yaml").write_text("mine", encoding="utf-8")
    assert_refused(metabench("data", "new-suite", "photos"), ["photos.yaml exists already", "--output"])
    assert Path("photos.yaml").read_text(encoding="utf-8") == "mine"


def test_images_that_cannot_run_give_no_suite(metabench: Command) -> None:
    written({**class_files("abcdefghij", 6), **{f"{c}/x.png": picture(5) for c in "abcdefghij"}})
    before = everything_below(Path())
    assert_refused(metabench("data", "new-suite", "photos"), ["no suite is written", "remove the copies"])
    assert everything_below(Path()) == before


# ------------------------------------------------------------------------------------------------- vectors


def written_vectors(name: str, labels: Sequence[str], **parts: Any) -> None:
    vectors = np.random.default_rng(0).normal(size=(len(labels), 6)).astype(np.float32)
    write_vectors(Path(name), vectors=vectors, labels=np.array(labels), **parts)


@pytest.mark.parametrize("kind", KINDS)
def test_a_suite_of_vectors_runs_as_it_is_written(metabench: Command, kind: str) -> None:
    written_vectors(f"topics{kind}", list("abcdefghijklmno") * 8)
    said = metabench("data", "inspect", f"topics{kind}").out
    assert "features: vectors of 6 numbers, with labels" in said
    assert [line for line in said.splitlines() if line.startswith(("classes", "vectors "))] == [
        "classes     15, 8 vectors each",
        "vectors     120",
    ]
    assert metabench("data", "new-suite", f"topics{kind}").code == 0
    ended = metabench("run", "topics.yaml", "--profile", "smoke", "--in-process", "--only", "shot=1")
    assert ended.code == 0, ended.err
    assert all(label in ended.out for label in ("nearest-mean", "protonet", "classifier", "simpleshot"))


def test_the_splits_of_files_of_vectors_are_said(metabench: Command) -> None:
    for split, letters in {"train": "abcde", "val": "fg", "test": "hi"}.items():
        written_vectors(f"topics/{split}.npz", list(letters) * 8)
    said = metabench("data", "inspect", "topics").out.splitlines()
    assert [line.split()[1] for line in said if line.startswith(("train ", "val ", "test "))] == ["5", "2", "2"]


def test_vectors_of_too_few_classes_get_no_suite_and_a_reason(metabench: Command) -> None:
    written_vectors("two.npz", list("ab") * 8)
    said = metabench("data", "inspect", "two.npz").out
    assert "in the way of a run: 1" in said
    assert_refused(metabench("data", "new-suite", "two.npz"), "no suite is written")
    assert not Path("two.yaml").exists()


def test_damaged_vectors_are_named_by_inspect(metabench: Command) -> None:
    Path("topics.npz").write_text("no vectors", encoding="utf-8")
    assert_refused(metabench("data", "inspect", "topics.npz"), "topics.npz")
