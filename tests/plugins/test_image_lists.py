"""Lists of images: CSV and JSON in all forms of the field."""

from __future__ import annotations

import json

import pytest

from metabench.api import DataError
from metabench_plugins.images.lists import Row, read_csv, read_json, split_named

ROWS = [Row("a/1.png", "cat"), Row("b 2.jpg", "dog")]


@pytest.mark.parametrize(
    "text",
    [
        "filename,label\na/1.png,cat\nb 2.jpg,dog\n",
        "class_name,image_name\ncat,a/1.png\ndog,b 2.jpg",
        "FILE_NAME,CATEGORY,SUPER_CATEGORY\na/1.png,cat,x\nb 2.jpg,dog,x\n",
        "a/1.png,cat\nb 2.jpg,dog\n",
        "cat,a/1.png\n\ndog,b 2.jpg\n\n",
        "picture;animal\r\na/1.png;cat\r\nb 2.jpg;dog\r\n",
        "label\tfile\ncat\ta/1.png\ndog\t b 2.jpg \n",
        '"filename","label"\n"a/1.png","cat"\n"b 2.jpg","dog"\n',
    ],
    ids=["filename,label", "easyfsl", "Meta-Album", "no header", "other order", "semicolons", "tabs", "quotes"],
)
def test_every_form_of_csv_gives_the_same_rows(text: str) -> None:
    assert read_csv(text, "list.csv") == ROWS


def test_a_column_gives_the_split() -> None:
    rows = read_csv("split,file,label\nbase,1.png,a\nValid,2.png,b\ntest,3.png,c\n", "list.csv")
    assert [row.split for row in rows] == ["train", "val", "test"]
    assert {row.split for row in read_csv("file,label\n1.png,a\n", "val.csv", "val")} == {"val"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "list.csv is empty"),
        ("filename,label\n", "has a header and no images"),
        ("filename,label\na.png,\n", "line 2: it has no label"),
        ("filename,label\n,cat\n", "line 2: it has no file name"),
        ("filename,label\na.png\n", "line 2: it has no label"),
        ("x,y,z\n1,2,3\n", "does not tell file names from labels.*: x, y, z"),
        ("filename,label,split\na.png,cat,cold\n", "line 2: the split is 'cold': it must be train, val or test"),
        ('filename,label\na.png,"' + "x" * 200_000, "is no CSV that can be read"),
    ],
)
def test_a_strange_csv_is_named(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_csv(text, "list.csv")


def test_the_json_of_closerlook_and_of_easyfsl() -> None:
    closer = {"label_names": ["cat", "dog"], "image_names": ["a/1.png", "b 2.jpg"], "image_labels": [0, 1]}
    assert read_json(json.dumps(closer), "base.json") == ROWS
    easy = {"class_names": ["cat"], "class_roots": ["data/cat"]}
    assert read_json(json.dumps(easy), "val.json", "val") == [Row("data/cat", "cat", "val", True)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "x.json is no JSON"),
        ("[" * 100_000, "x.json is no JSON"),
        ("[1]", "is no list of images: it needs the keys"),
        ('{"image_names": ["a"], "image_labels": [], "label_names": []}', "1 image_names and 0 image_labels"),
        ('{"image_names": ["a"], "image_labels": [3], "label_names": ["c"]}', "image_label 3, which is no index"),
        ('{"image_names": ["a"], "image_labels": [-1], "label_names": ["c"]}', "image_label -1, which is no index"),
        ('{"image_names": "a"}', "has no list image_names"),
        ('{"class_names": ["a"], "class_roots": []}', "1 class_names and 0 class_roots"),
    ],
)
def test_a_strange_json_is_named(content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_json(content, "x.json")


def test_splits_have_the_names_of_the_field() -> None:
    assert [split_named(name) for name in ("train", "Base", "valid", "novel", "images")] == [
        "train",
        "train",
        "val",
        "test",
        "",
    ]
