"""Sources of Meta-Dataset, and the TFRecord files that hold them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from metabench.api import Split
from metabench.conformance.datasets import CHECKS, Subject
from metabench.data.inspecting import inspect_path
from metabench.data.packing import DataRoots, LoadedDataset, load_splits
from metabench.errors import DataError
from metabench_plugins.datasets.metadataset import MetaDataset, MetaDatasetConfig
from metabench_plugins.images.tfrecords import features, records_of
from records_of_images import example, image_file, write_records, write_source

PER_SPLIT = {"classes_per_split": {"TRAIN": 2, "VALID": 1, "TEST": 2}}


def load(tmp_path: Path, **params: Any) -> LoadedDataset:
    dataset = MetaDataset(MetaDatasetConfig(**{"records": "RECORDS/birds", "image_size": 8, **params}))
    roots = DataRoots((tmp_path / "data",), tmp_path / "cache", download=False)
    return load_splits("metadataset", dataset, roots, lambda done, total, what: None)


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    """Return the folder of a source of five classes."""
    folder = tmp_path / "data" / "RECORDS" / "birds"
    write_source(folder, [3, 2, 4, 2, 5], **PER_SPLIT)
    return folder


def names(data: LoadedDataset) -> dict[str, list[str]]:
    return {name: list(split.class_names) for name, split in data.splits.items() if isinstance(split, Split)}


# ------------------------------------------------------------------------------------------- the source


@pytest.mark.usefixtures("birds")
def test_classes_are_numbered_through_train_val_and_test(tmp_path: Path) -> None:
    data = load(tmp_path)
    assert names(data) == {
        "train": ["train/class 0", "train/class 1"],
        "val": ["val/class 2"],
        "test": ["test/class 3", "test/class 4"],
    }
    test = data.splits["test"]
    assert isinstance(test, Split)
    assert test.offsets.tolist() == [0, 2, 7]
    assert test.image_names is not None
    assert list(test.image_names) == ["00000", "00001", "00000", "00001", "00002", "00003", "00004"]


@pytest.mark.usefixtures("birds")
def test_images_are_those_of_the_records_stretched_to_a_square(tmp_path: Path) -> None:
    test = load(tmp_path).splits["test"]
    assert isinstance(test, Split)
    for place, seed in enumerate([300, 301, 400, 401, 402, 403, 404]):
        image = Image.open(io.BytesIO(image_file(seed))).resize((8, 8), Image.Resampling.BILINEAR)
        expected = np.asarray(image).transpose(2, 0, 1)
        found = test.rows.take(torch.tensor([place]))[0].numpy()
        assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1


def test_the_alphabets_of_omniglot_give_splits_and_families(tmp_path: Path) -> None:
    spec = {
        "superclasses_per_split": {"TRAIN": 2, "VALID": 1, "TEST": 1},
        "classes_per_superclass": {"0": 1, "1": 2, "2": 1, "3": 3},
        "superclass_names": {"0": "Greek", "1": "Old Latin", "2": "Sindarin", "3": "Quenya"},
    }
    write_source(tmp_path / "data" / "RECORDS" / "birds", [2] * 7, **spec)
    data = load(tmp_path)
    assert names(data) == {
        "train": ["train Greek/class 0", "train Old Latin/class 1", "train Old Latin/class 2"],
        "val": ["val Sindarin/class 3"],
        "test": ["test Quenya/class 4", "test Quenya/class 5", "test Quenya/class 6"],
    }
    families = {name: split.families for name, split in data.splits.items() if isinstance(split, Split)}
    assert families == {"train": [0, 1, 1], "val": [2], "test": [3, 3, 3]}


@pytest.mark.usefixtures("birds")
def test_other_sources_have_no_families(tmp_path: Path) -> None:
    splits = load(tmp_path).splits.values()
    assert [split.families for split in splits if isinstance(split, Split)] == [None] * 3


def test_the_numbers_of_images_of_imagenet_give_its_splits(tmp_path: Path) -> None:
    counts = {"TRAIN": {"class 0": 2, "animal": 4, "class 1": 2}, "VALID": {"class 2": 2}, "TEST": {"class 3": 2}}
    write_source(tmp_path / "data" / "RECORDS" / "birds", [2] * 4, images_per_class=counts)
    assert {name: len(classes) for name, classes in names(load(tmp_path)).items()} == {"train": 2, "val": 1, "test": 1}


#: A graph like that of ImageNet: two nodes above two classes of training, one of them in both.
SUBGRAPHS = {
    "TRAIN": [
        {"wn_id": "entity", "words": "entity", "children_ids": ["animal", "class 1"], "parents_ids": []},
        {"wn_id": "animal", "words": "animal", "children_ids": ["class 0"], "parents_ids": ["entity"]},
        {"wn_id": "class 0", "words": "cat", "children_ids": [], "parents_ids": ["animal"]},
        {"wn_id": "class 1", "words": "cup", "children_ids": [], "parents_ids": ["entity"]},
    ],
    "VALID": [{"wn_id": "class 2", "words": "dog", "children_ids": [], "parents_ids": []}],
    "TEST": [
        {"wn_id": "entity", "words": "entity", "children_ids": ["class 3"], "parents_ids": []},
        {"wn_id": "class 3", "words": "car", "children_ids": [], "parents_ids": ["entity"]},
    ],
}
PER_SPLIT_OF_IMAGENET = {"TRAIN": {"class 0": 2, "class 1": 2}, "VALID": {"class 2": 2}, "TEST": {"class 3": 2}}


def test_the_graph_of_imagenet_gives_the_classes_below_its_nodes(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "RECORDS" / "birds"
    write_source(folder, [2] * 4, images_per_class=PER_SPLIT_OF_IMAGENET, split_subgraphs=SUBGRAPHS)
    for _ in ("packed", "read from the pack"):
        splits = load(tmp_path).splits
        nodes = {name: split.nodes for name, split in splits.items() if isinstance(split, Split)}
        assert nodes == {"train": [[0], [0, 1]], "val": None, "test": [[0]]}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"TRAIN": SUBGRAPHS["TRAIN"][:3]}, "split_subgraphs has no node class 1, which is a child"),
        ({"TRAIN": SUBGRAPHS["TEST"]}, "it has no node 'class 0'"),
        ({"VALID": [{"wn_id": "class 2", "children_ids": ["class 2"]}]}, "has a circle through class 2"),
        ({"VALID": [{"wn_id": "class 2"}]}, "a node of split_subgraphs has no wn_id or no children_ids"),
        ({"VALID": 5}, "a node of split_subgraphs has no wn_id"),
    ],
)
def test_a_damaged_graph_is_refused(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    folder = tmp_path / "data" / "RECORDS" / "birds"
    write_source(folder, [2] * 4, images_per_class=PER_SPLIT_OF_IMAGENET, split_subgraphs={**SUBGRAPHS, **change})
    with pytest.raises(DataError, match=f"the graph of classes in .*dataset_spec.json is damaged: .*{problem}"):
        load(tmp_path)


def test_a_source_for_tests_has_their_classes_where_a_split_has_none(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "RECORDS" / "birds"
    write_source(folder, [2] * 4, classes_per_split={"TRAIN": 0, "VALID": 1, "TEST": 3})
    with pytest.raises(DataError, match="has no classes of train: train on another source"):
        load(tmp_path)
    data = load(tmp_path, only_tests=True)
    assert {name: len(classes) for name, classes in names(data).items()} == {"train": 3, "val": 1, "test": 3}
    assert data.findings.overlapping
    found = inspect_path(folder, {"metadataset": MetaDataset}, DataRoots((), tmp_path), lambda done, total, what: None)
    assert found["metadataset"].params == {"records": str(folder), "only_tests": True}


@pytest.mark.parametrize("only_tests", [False, True])
def test_a_source_keeps_the_contract_of_datasets(tmp_path: Path, only_tests: bool) -> None:
    sizes = {"TRAIN": 0, "VALID": 0, "TEST": 6} if only_tests else {"TRAIN": 2, "VALID": 2, "TEST": 2}
    write_source(tmp_path / "data" / "RECORDS" / "birds", [3] * 6, classes_per_split=sizes)
    roots = DataRoots((tmp_path / "data",), tmp_path / "cache", download=False)
    subject = Subject("metadataset", roots, {"records": "RECORDS/birds", "image_size": 20, "only_tests": only_tests})
    for name in CHECKS:
        CHECKS[name](subject)


def test_classes_of_one_name_are_told_apart_by_their_numbers(birds: Path, tmp_path: Path) -> None:
    spec = json.loads((birds / "dataset_spec.json").read_text(encoding="utf-8"))
    spec["class_names"]["3"] = spec["class_names"]["4"] = "gull"
    (birds / "dataset_spec.json").write_text(json.dumps(spec), encoding="utf-8")
    assert names(load(tmp_path))["test"] == ["test/gull (3)", "test/gull (4)"]


def test_inspect_describes_a_source(birds: Path, tmp_path: Path) -> None:
    roots, classes = DataRoots((tmp_path / "data",), tmp_path / "cache"), {"metadataset": MetaDataset}
    found = inspect_path(birds, classes, roots, lambda done, total, what: None)["metadataset"]
    assert found.params == {"records": "RECORDS/birds"}
    assert found.splits["test"] == {"test/class 3": 2, "test/class 4": 5}
    assert found.classes["train/class 0"] == 3


def changed_spec(birds: Path, **changes: Any) -> None:
    path = birds / "dataset_spec.json"
    spec = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    path.write_text(json.dumps({name: value for name, value in spec.items() if value is not None}), encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes_per_split": {"TRAIN": 2, "VALID": 1, "TEST": 3}}, "has 5 class_names, and its splits 6 classes"),
        ({"classes_per_split": None}, "does not say how many classes a split has"),
        ({"classes_per_split": {"TRAIN": 5}}, "does not say how many classes a split has"),
        ({"class_names": None}, "is not as the authors' conversion writes it"),
        ({"file_pattern": "{}_{}.tfrecords"}, "only '{}.tfrecords' is read"),
    ],
)
def test_a_specification_that_does_not_fit_is_refused(
    birds: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    changed_spec(birds, **changes)
    with pytest.raises(DataError) as caught:
        load(tmp_path)
    assert message in str(caught.value)


def test_what_is_missing_is_named(birds: Path, tmp_path: Path) -> None:
    (birds / "3.tfrecords").unlink()
    with pytest.raises(DataError, match=r"cannot read .*3\.tfrecords: No such file or directory"):
        load(tmp_path)
    (birds / "dataset_spec.json").unlink()
    with pytest.raises(DataError, match=r"has no dataset_spec\.json: give `records` the folder of one source"):
        load(tmp_path)
    with pytest.raises(DataError, match=r"there is no folder .*RECORDS/fish"):
        load(tmp_path, records="RECORDS/fish")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (example(image=[b"no image"], label=[3]), "record 2 of .*3.tfrecords"),
        (example(label=[3]), "the record has no image"),
        (example(image=[image_file(1)], label=[2]), "the record has the label 2, and its file is of 3"),
        (b"\x0a\x7f", "a field ends after its message"),
    ],
)
def test_a_record_that_is_no_image_of_its_class_is_named(
    birds: Path, tmp_path: Path, content: bytes, message: str
) -> None:
    write_records(birds / "3.tfrecords", [example(image=[image_file(0)], label=[3]), content])
    with pytest.raises(DataError, match=message):
        load(tmp_path)


# --------------------------------------------------------------------------------------------- TFRecords


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_records_are_those_that_were_written(tmp_path_factory: pytest.TempPathFactory, contents: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("records") / "0.tfrecords"
    write_records(path, contents)
    assert [record.read() for record in records_of(path)] == contents


def test_a_file_that_ends_within_a_record_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "0.tfrecords"
    write_records(path, [b"one", b"another"])
    whole = path.read_bytes()
    for end in (len(whole) - 1, len(whole) - 5, len(whole) - 20):
        path.write_bytes(whole[:end])
        with pytest.raises(DataError, match=r"0\.tfrecords ends within its record 2: get the file again"):
            records_of(path)


_WHOLE = st.integers(0, 2**63 - 1)


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=10).filter(lambda name: name.isidentifier()),
        st.one_of(
            st.lists(st.binary(max_size=50), min_size=1, max_size=5),
            st.lists(_WHOLE, min_size=1, max_size=5),
            st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=5),
        ),
        max_size=5,
    )
)
def test_features_are_those_that_protobuf_encoded(encoded: dict[str, list[Any]]) -> None:
    wanted = {name: values for name, values in encoded.items() if not isinstance(values[0], float)}
    assert features(example(**encoded)) == wanted


@given(st.binary(max_size=60))
def test_bytes_that_are_no_example_are_refused_or_have_no_features(content: bytes) -> None:
    try:
        found = features(content)
    except ValueError:
        return
    assert isinstance(found, dict)
