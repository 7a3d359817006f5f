from __future__ import annotations

import builtins
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kit import failures
from metabench.conformance.datasets import CHECKS, Subject
from metabench.data.packing import DataRoots, LoadedDataset, load_splits
from metabench.errors import DataError, InvalidData
from metabench_plugins.datasets.features import Features, FeaturesConfig
from vector_files import KINDS, write_vectors

CLASSES = [f"topic {letter}" for letter in "abcdefghij"]


def silent(done: int, total: int, what: str) -> None:
    pass


def loaded(root: Path | str, cache: Path, *sources: Path, **params: Any) -> LoadedDataset:
    dataset = Features(FeaturesConfig(**{"root": str(root), **params}))
    return load_splits("features", dataset, DataRoots(sources, cache), silent)


def content(**changes: Any) -> dict[str, Any]:
    """Return ten classes of three vectors of four numbers, in mixed order."""
    order = np.random.default_rng(1).permutation(30)
    labels = np.array(sorted(CLASSES * 3))[order]
    vectors = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    return {"vectors": vectors, "labels": labels, **changes}


def rows_by_class(found: LoadedDataset) -> dict[str, npt.NDArray[np.float32]]:
    """Return the vectors of each class of all splits."""
    rows = {}
    for split in found.splits.values():
        bounds = split.offsets.tolist()  # type: ignore[union-attr]
        for name, first, last in zip(split.class_names, bounds, bounds[1:], strict=False):  # type: ignore[union-attr]
            rows[name] = split.rows.take(torch.arange(first, last)).numpy()  # type: ignore[union-attr]
    return rows


def names_by_split(found: LoadedDataset) -> dict[str, list[str]]:
    return {name: list(split.class_names) for name, split in found.splits.items()}  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_vector_is_in_its_class_as_it_was_saved(kind: str, data: st.DataObject, tmp_path: Path) -> None:
    names = data.draw(st.lists(st.text("aé字 /'\".,0", min_size=1).filter(str.strip), min_size=3, unique=True))
    names = [f"{number} {name}" for number, name in enumerate(names)]
    counts = data.draw(st.lists(st.integers(1, 4), min_size=len(names), max_size=len(names)))
    labels = np.repeat(names, counts)
    number = st.floats(-(2.0**126), 2.0**126, width=32)
    vectors = data.draw(arrays(np.float32, (len(labels), 3), elements=number, unique=True))
    order = data.draw(st.permutations(range(len(labels))))
    path = write_vectors(tmp_path / f"any{kind}", vectors=vectors[order], labels=labels[order])
    rows = rows_by_class(loaded(path, tmp_path / "cache"))
    assert sorted(rows) == sorted(names)
    for name in names:
        expected = vectors[order][labels[order] == name]
        np.testing.assert_array_equal(rows[name], expected)


@pytest.mark.parametrize("kind", KINDS)
def test_splits_are_those_of_the_file(kind: str, tmp_path: Path) -> None:
    arrays = content()
    splits = np.array(
        [{"a": "val", "b": "val", "c": "test", "d": "test"}.get(n[-1], "train") for n in arrays["labels"]]
    )
    found = loaded(write_vectors(tmp_path / f"one{kind}", **arrays, splits=splits), tmp_path / "cache")
    assert names_by_split(found) == {"train": CLASSES[4:], "val": CLASSES[:2], "test": CLASSES[2:4]}
    assert {split.rows.shape for split in found.splits.values()} == {(4,)}  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", KINDS)
def test_splits_are_files_of_a_folder(kind: str, tmp_path: Path) -> None:
    arrays = content()
    for split, names in (("train", CLASSES[:6]), ("val", CLASSES[6:8]), ("test", CLASSES[8:])):
        rows = np.isin(arrays["labels"], names)
        write_vectors(tmp_path / "data" / f"{split}{kind}", **{key: value[rows] for key, value in arrays.items()})
    found = loaded("data", tmp_path / "cache", tmp_path)
    assert names_by_split(found) == {"train": CLASSES[:6], "val": CLASSES[6:8], "test": CLASSES[8:]}
    assert found.raw_files == 3


def test_without_splits_classes_are_divided_by_ratio_and_seed(tmp_path: Path) -> None:
    path = write_vectors(tmp_path / "test.npz", **content())  # the name of a single file is no split
    plain = names_by_split(loaded(path, tmp_path / "cache"))
    assert {name: len(classes) for name, classes in plain.items()} == {"train": 6, "val": 2, "test": 2}
    assert plain != names_by_split(loaded(path, tmp_path / "cache", seed=1))
    listed = {"by": "classes", "train": tuple(CLASSES[:2]), "val": (CLASSES[2],), "test": (CLASSES[3],)}
    assert names_by_split(loaded(path, tmp_path / "cache", split=listed))["test"] == [CLASSES[3]]


def test_numbers_become_names(tmp_path: Path) -> None:
    arrays = content()
    numbers = np.array([CLASSES.index(name) for name in arrays["labels"]])
    plain = write_vectors(tmp_path / "plain.npz", vectors=arrays["vectors"], labels=numbers)
    named = write_vectors(tmp_path / "named.npz", vectors=arrays["vectors"], labels=numbers, class_names=CLASSES)
    assert sorted(rows_by_class(loaded(plain, tmp_path / "cache"))) == list("0123456789")
    assert sorted(rows_by_class(loaded(named, tmp_path / "cache"))) == CLASSES


def test_the_arrays_may_have_other_names_and_number_types(tmp_path: Path) -> None:
    arrays = content()
    tensors = torch.from_numpy(arrays["vectors"]).to(torch.bfloat16)
    from safetensors.torch import save_file

    numbers = torch.tensor([CLASSES.index(name) for name in arrays["labels"]], dtype=torch.int32)
    save_file({"embeddings": tensors, "y": numbers}, tmp_path / "half.safetensors")
    found = loaded(tmp_path / "half.safetensors", tmp_path / "cache", vectors="embeddings", labels="y")
    rows = rows_by_class(found)
    np.testing.assert_array_equal(rows["3"], tensors.float().numpy()[numbers.numpy() == 3])


def test_names_of_vectors_keep_episodes_when_rows_move(tmp_path: Path) -> None:
    arrays, order = content(names=[f"text {row}" for row in range(30)]), np.random.default_rng(2).permutation(30)
    one = write_vectors(tmp_path / "one.npz", **arrays)
    moved = write_vectors(tmp_path / "moved.npz", **{key: np.asarray(value)[order] for key, value in arrays.items()})
    drawn = []
    for path in (one, moved):
        from metabench.data.sampler import EpisodeShape
        from metabench.engine.streams import EpisodeStream

        split = loaded(path, tmp_path / "cache").splits["train"]
        stream = EpisodeStream(split, EpisodeShape(3, 1, 1), "train", 0, torch.device("cpu"))  # type: ignore[arg-type]
        drawn.append(stream.batch(0, 4).support_x)
    assert torch.equal(*drawn)


@pytest.mark.parametrize("kind", KINDS)
def test_it_keeps_all_rules(kind: str, tmp_path: Path) -> None:
    path = write_vectors(tmp_path / f"one{kind}", **content())
    params = {"root": str(path)}
    assert failures(CHECKS, Subject("features", DataRoots((), tmp_path / "cache", download=False), params)) == {}


# ------------------------------------------------------------------------------------------------ wrong inputs


def nan() -> dict[str, Any]:
    arrays = content()
    arrays["vectors"][17, 2] = np.nan
    return arrays


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a number is not finite": (
        nan(),
        r"one\S+: 1 of the 30 vectors of 'vectors' have numbers that are not finite .*row 17",
    ),
    "a number is beyond float32": (content(vectors=np.full((30, 2), 1e300)), r"30 of the 30 vectors .* beyond float32"),
    "vectors are one row": (content(vectors=np.zeros(30)), r"'vectors' must be numbers \[n, D\], .* float64 \[30\]"),
    "vectors are texts": (content(vectors=np.full((30, 2), "x")), r"'vectors' must be numbers .* texts \[30, 2\]"),
    "there are no vectors": (
        {"vectors": np.zeros((0, 3)), "labels": np.zeros(0, int)},
        r"'vectors' must be numbers \[n, D\], a row for each vector",
    ),
    "labels are too few": (
        content(labels=np.arange(29)),
        r"'labels' must be 30 texts or whole numbers, and is int64 \[29\]",
    ),
    "labels are no classes": (
        content(labels=np.linspace(0, 1, 30)),
        r"'labels' must be 30 texts or whole numbers, .*float64",
    ),
    "a label is empty": (content(labels=["a", "b", " "] * 10), r"row 2 of 'labels' is empty"),
    "vectors are missing": (
        {"x": np.zeros((3, 2)), "labels": [1, 2, 3]},
        r"has no 'vectors', but x, labels: .*`vectors`",
    ),
    "labels are missing": (
        {"vectors": np.zeros((3, 2)), "y": [1, 2, 3]},
        r"has no 'labels', but vectors, y: .*`labels`",
    ),
    "a split is unknown": (
        content(splits=["train", "dev", "test"] * 10),
        r"row 1 of 'splits' is 'dev', and must be train, val",
    ),
    "a split is missing": (content(splits=["train", "val"] * 15), r"has only train and val, and test would be empty"),
    "splits are too many": (content(splits=["train"] * 31), r"'splits' must be 30 texts or whole numbers"),
    "a name occurs twice": (content(names=["one"] * 30), r"'names' has 'one' more than once: make all different"),
    "a class is empty": (
        content(labels=np.arange(30) % 3, class_names=["a", "b", "c", "d"]),
        r"names 1 class without vectors, 'd': add the vectors, or remove the names",
    ),
    "a label has no name": (
        content(labels=np.arange(30) % 3, class_names=["a", "b"]),
        r"row 2 of 'labels' is 2, and 'class_names' has names for 0 … 1",
    ),
    "two classes have one name": (
        content(labels=np.arange(30) % 2, class_names=["a", "a"]),
        r"'class_names' has 'a' more than once",
    ),
    "classes are named twice": (
        content(class_names=["a"]),
        r"'labels' has names of classes already: remove 'class_names'",
    ),
    "classes are too few": (content(labels=["a", "b"] * 15), r"has 2 classes: train, val and test need one each"),
    "texts are objects": (content(labels=np.array(["a", 1, 2] * 10, dtype=object)), r"'labels' holds Python objects"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_an_array_that_is_wrong_is_named(wrong: str, tmp_path: Path) -> None:
    arrays, message = WRONG[wrong]
    path = write_vectors(tmp_path / "one.npz", **arrays)
    with pytest.raises(DataError, match=message) as raised:
        loaded(path, tmp_path / "cache")
    assert "\n" not in str(raised.value)
    if "split" not in wrong and wrong != "classes are too few":
        assert not list((tmp_path / "cache").rglob("*.safetensors")), "nothing is half-written"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", ["empty", "text", "cut"])
def test_a_damaged_file_is_named(kind: str, damage: str, tmp_path: Path) -> None:
    path = write_vectors(tmp_path / f"one{kind}", **content())
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "text": b"no vectors", "cut": whole[: len(whole) // 2]}[damage])
    with pytest.raises(DataError, match=rf"{re.escape(str(path))} cannot be read \(\w+\): save the file anew"):
        loaded(path, tmp_path / "cache")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", ["class_names", "splits", "names"])
def test_a_part_that_a_parameter_names_must_be_there(kind: str, part: str, tmp_path: Path) -> None:
    path = write_vectors(tmp_path / f"one{kind}", **content())
    with pytest.raises(DataError, match=rf"has no 'mine', but .*the parameter `{part}`"):
        loaded(path, tmp_path / "cache", **{part: "mine"})


def test_parquet_with_gaps_and_uneven_rows_is_refused(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    whole = {"vectors": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], "labels": ["a", "b", "c"]}
    for changed, message in (
        ({"vectors": [[1.0], [2.0, 3.0], [4.0]]}, r"the lists of 'vectors' have 1 to 2 numbers: give all rows as many"),
        ({"vectors": [[1.0], None, [4.0]]}, r"'vectors' has 1 empty values, e\.g\. in row 1: fill or remove them"),
        ({"labels": ["a", "b", None]}, r"'labels' has 1 empty values, e\.g\. in row 2"),
        ({"vectors": [[1.0], [None], [4.0]]}, r"1 of the 3 vectors of 'vectors' have numbers that are not finite"),
    ):
        parquet.write_table(pa.table({**whole, **changed}), tmp_path / "one.parquet")
        with pytest.raises(DataError, match=message):
            loaded(tmp_path / "one.parquet", tmp_path / "cache")


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_vectors(tmp_path / "one.parquet", **content())
    installed = builtins.__import__

    def without_pyarrow(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".", maxsplit=1)[0] == "pyarrow":
            raise ImportError("no pyarrow")
        return installed(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_pyarrow)
    monkeypatch.delitem(sys.modules, "pyarrow", raising=False)
    with pytest.raises(DataError, match=r"pip install 'metabench\[parquet\]', or save the vectors as \.npz"):
        loaded(path, tmp_path / "cache")


def test_files_of_splits_that_do_not_fit_each_other_are_refused(tmp_path: Path) -> None:
    def written(folder: str, **changes: dict[str, Any]) -> Path:
        for number, split in enumerate(("train", "val", "test")):
            arrays = {"vectors": np.eye(4) + number, "labels": [f"{split} {row % 2}" for row in range(4)]}
            write_vectors(tmp_path / folder / f"{split}.npz", **{**arrays, **changes.get(split, {})})
        return tmp_path / folder

    cache = tmp_path / "cache"
    assert len(names_by_split(loaded(written("sound"), cache))["test"]) == 2
    with pytest.raises(DataError, match=r"test\.npz has vectors of 5 numbers, and \S+train\.npz of 4: make all files"):
        loaded(written("sizes", test={"vectors": np.ones((4, 5)) * np.arange(4)[:, None]}), cache)
    with pytest.raises(DataError, match=r"val\.npz has 'splits', and its own name is a split: remove one of the two"):
        loaded(written("twice", val={"splits": ["val"] * 4}), cache)
    with pytest.raises(
        DataError, match=r"the class 0 is in more than one split, and a number is the same class in all"
    ):
        loaded(written("numbers", train={"labels": [0, 0, 1, 1]}, test={"labels": [0, 0, 1, 1]}), cache)
    with pytest.raises(InvalidData, match=r"has 4 images in more than one split"):
        loaded(written("copies", test={"vectors": np.eye(4)}), cache)


def test_a_root_that_holds_no_vectors_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no vectors")
    cache = tmp_path / "cache"
    with pytest.raises(
        DataError, match=r"there is no file or folder at \S*nowhere and at \S*nowhere: correct .* `root`"
    ):
        loaded("nowhere", cache, tmp_path)
    with pytest.raises(DataError, match=r"empty has no files train, val and test \(\.npz, \.safetensors, \.parquet\)"):
        loaded(tmp_path / "empty", cache)
    with pytest.raises(DataError, match=r"notes\.txt is no file of vectors"):
        loaded(tmp_path / "notes.txt", cache)


def test_the_page_names_every_parameter() -> None:
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    section = page.partition("## features")[2].partition("\n## ")[0]
    assert [name for name in FeaturesConfig.model_fields if f"`{name}`" not in section] == []
