"""Read lists of labelled images: CSV, and the JSON of CloserLookFewShot and easyfsl."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from metabench.api import DataError
from metabench_plugins.images.decoding import is_image

#: Names of splits in files, folders and columns, of CloserLookFewShot also.
_SPLIT_OF = {
    **dict.fromkeys(("train", "training", "base"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "novel"), "test"),
}
#: Names of columns, in the order of the search.
_FILE_COLUMNS = (
    "filename",
    "file_name",
    "image_name",
    "image_path",
    "filepath",
    "file",
    "image",
    "path",
    "name",
    "img",
)
_LABEL_COLUMNS = ("label", "category", "class_name", "class", "target", "label_name", "y")
_SPLIT_COLUMNS = ("split", "subset", "partition", "set", "fold")


@dataclass(frozen=True)
class Row:
    """An image, or a folder of images, of a list.

    Attributes:
        path: the path as the list has it.
        label: the name of its class.
        split: train, val or test; empty if the list does not say.
        is_folder: whether the path is that of a folder, whose images are all of the class.
    """

    path: str
    label: str
    split: str = ""
    is_folder: bool = False


def split_named(name: str) -> str:
    """Return train, val or test for one of their names in the field, as "novel"; else an empty text."""
    return _SPLIT_OF.get(name.strip().lower(), "")


def read_csv(text: str, place: str, split: str = "") -> list[Row]:
    """Read a CSV of file names and labels, in any order of columns, with or without a header.

    Args:
        text: the content.
        place: the file, for messages.
        split: the split of all its images; empty if a column may say so.

    Raises:
        DataError: no column has file names or labels, or a line has no value in one of them.
    """
    try:
        lines = [(number, line) for number, line in enumerate(_lines(text), 1) if any(field.strip() for field in line)]
    except csv.Error as error:
        raise DataError(f"{place} is no CSV that can be read ({error}): correct it") from error
    if not lines:
        raise DataError(f"{place} is empty: give it a line for each image, FILE,LABEL")
    header = [field.strip().lower() for field in lines[0][1]]
    file, label = _column(header, _FILE_COLUMNS), _column(header, _LABEL_COLUMNS)
    has_header = file is not None and label is not None
    if file is None or label is None:
        file, label = _columns_by_value([line for _, line in lines], place)
        has_header = not is_image(lines[0][1][file])
    of_split = _column(header, _SPLIT_COLUMNS) if has_header and not split else None
    rows = []
    for number, line in lines[1:] if has_header else lines:
        path, title = (line[column].strip() if column < len(line) else "" for column in (file, label))
        if not path or not title:
            raise DataError(f"{place}, line {number}: it has no {'label' if path else 'file name'}: correct it")
        rows.append(Row(path, title, split if of_split is None else _split_value(line, of_split, place, number)))
    if not rows:
        raise DataError(f"{place} has a header and no images: give it a line for each image")
    return rows


def read_json(text: str, place: str, split: str = "") -> list[Row]:
    """Read the JSON list of CloserLookFewShot (images and labels), or of easyfsl (folders of classes).

    Args:
        text: the content.
        place: the file, for messages.
        split: the split of all its images; may be empty.

    Raises:
        DataError: it is no JSON, or neither of the forms.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place} is no JSON ({error}): correct it") from error
    if not isinstance(content, dict):
        content = {}
    if "image_names" in content:
        names, labels, titles = (_list(content, key, place) for key in ("image_names", "image_labels", "label_names"))
        if len(names) != len(labels):
            raise DataError(f"{place} has {len(names)} image_names and {len(labels)} image_labels: correct it")
        return [Row(str(name), _title(titles, label, place), split) for name, label in zip(names, labels, strict=True)]
    if "class_roots" in content:
        titles, roots = (_list(content, key, place) for key in ("class_names", "class_roots"))
        if len(titles) != len(roots):
            raise DataError(f"{place} has {len(titles)} class_names and {len(roots)} class_roots: correct it")
        return [Row(str(root), str(title), split, True) for root, title in zip(roots, titles, strict=True)]
    raise DataError(
        f"{place} is no list of images: it needs the keys label_names, image_names and image_labels, or class_names "
        "and class_roots"
    )


def _lines(text: str) -> list[list[str]]:
    """Return the fields of each line; they are separated by commas, semicolons or tabs."""
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))


def _column(header: Sequence[str], names: Sequence[str]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)


def _columns_by_value(lines: Sequence[Sequence[str]], place: str) -> tuple[int, int]:
    """Return the columns of file names and of labels of a CSV whose header does not tell them."""
    width = len(lines[0])
    body = lines[1:] or lines
    files = [c for c in range(width) if all(c < len(line) and is_image(line[c].strip()) for line in body)]
    if len(files) != 1 or width != 2:
        columns = ", ".join(lines[0])
        raise DataError(
            f"{place} does not tell file names from labels: give it two columns, or name them filename and label in "
            f"the first line, which is: {columns}"
        )
    return files[0], 1 - files[0]


def _split_value(line: Sequence[str], column: int, place: str, number: int) -> str:
    value = line[column] if column < len(line) else ""
    split = split_named(value)
    if not split:
        raise DataError(f"{place}, line {number}: the split is '{value}': it must be train, val or test")
    return split


def _list(content: dict[str, Any], key: str, place: str) -> list[Any]:
    value = content.get(key)
    if not isinstance(value, list):
        raise DataError(f"{place} has no list {key}: correct it")
    return value


def _title(titles: Sequence[Any], label: Any, place: str) -> str:
    if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < len(titles):
        raise DataError(f"{place} has the image_label {label!r}, which is no index of its {len(titles)} label_names")
    return str(titles[label])
