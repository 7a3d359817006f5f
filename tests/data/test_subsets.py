"""Nested subsets of a training split."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metabench.api import Split, SplitSize
from metabench.data.subsets import Subset, limited
from metabench.errors import CellFailed

SIZES = (5, 8, 8, 6, 8, 7)


def split(order: list[int] | None = None, named: bool = True) -> Split:
    """Return classes of one-pixel images, each with a value of its own, in the order of their numbers."""
    classes = list(range(len(SIZES))) if order is None else order
    values = [10 * c + i for c in classes for i in range(SIZES[c])]
    return Split(
        torch.tensor(values, dtype=torch.uint8).reshape(-1, 1, 1, 1),
        torch.tensor([0, *(SIZES[c] for c in classes)]).cumsum(0),
        [f"class {c}" for c in classes],
        groups=[c // 2 for c in classes],
        image_names=[f"image {value}" for value in values] if named else None,
    )


def values(found: Split) -> list[list[int]]:
    """Return the values of each class."""
    rows = found.rows.take(torch.arange(len(found.rows))).flatten().tolist()
    bounds = found.offsets.tolist()
    return [rows[begin:end] for begin, end in pairwise(bounds)]


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 8), st.integers(1, 8), st.integers(0, 5))
def test_subsets_of_a_seed_are_nested(fewer: int, more: int, few: int, many: int, seed: int) -> None:
    fewer, more, few, many = min(fewer, more), max(fewer, more), min(few, many), max(few, many)
    small = dict(zip((found := limited(split(), Subset(fewer, few), seed)).class_names, values(found), strict=True))
    large = dict(zip((found := limited(split(), Subset(more, many), seed)).class_names, values(found), strict=True))
    assert len(small) == fewer
    assert len(large) == more
    for name, images in small.items():
        assert len(images) == min(few, SIZES[int(name[-1])])
        assert set(images) <= set(large[name])


def test_classes_are_the_same_for_any_number_of_images() -> None:
    names = {tuple(limited(split(), Subset(3, images), 1).class_names) for images in (None, 1, 4, 8)}
    assert len(names) == 1


def test_every_class_and_image_is_drawn_as_often_as_others() -> None:
    seeds = range(3000)
    drawn = [values(limited(split(), Subset(2, 1), seed)) for seed in seeds]
    classes = np.bincount([images[0] // 10 for found in drawn for images in found])
    expected = 2 * len(seeds) / 6
    assert np.abs(classes - expected).max() < 4 * np.sqrt(expected)
    images = np.bincount([image % 10 for found in drawn for (image,) in found if image // 10 == 1])
    expected = classes[1] / 8
    assert np.abs(images - expected).max() < 4 * np.sqrt(expected)


def test_a_subset_depends_on_names_and_not_on_their_order() -> None:
    first = limited(split(), Subset(3, 4), 5)
    second = limited(split([4, 2, 0, 5, 1, 3]), Subset(3, 4), 5)
    of_first = dict(zip(first.class_names, values(first), strict=True))
    assert dict(zip(second.class_names, values(second), strict=True)) == of_first


def test_a_subset_keeps_order_names_and_groups() -> None:
    found = limited(split(), Subset(4, 3), 2)
    assert list(found.class_names) == sorted(found.class_names)
    assert found.groups == [int(name[-1]) // 2 for name in found.class_names]
    assert all(images == sorted(images) for images in values(found))
    assert found.image_names == [f"image {value}" for images in values(found) for value in images]
    assert found.size == SplitSize(4, 3)


def test_a_subset_of_everything_is_the_split() -> None:
    found = limited(split(named=False), Subset(6, 8), 0)
    assert values(found) == values(split())
    assert found.image_names is None
    assert limited(split(), Subset(images_per_class=7), 0).size == SplitSize(6, 5, 7)


@pytest.mark.parametrize(
    ("subset", "message"),
    [
        (Subset(7), "7 training classes asked for, and there are 6: lower train.classes"),
        (
            Subset(2, 9),
            "9 training images of a class asked for, and no class has more than 8: lower train.images_per_class",
        ),
    ],
)
def test_more_than_there_is_fails(subset: Subset, message: str) -> None:
    with pytest.raises(CellFailed, match=message):
        limited(split(), subset, 0)
