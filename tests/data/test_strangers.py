"""Queries of classes that an episode has not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metabench.data.sampler import EpisodeIndices, EpisodeSampler, EpisodeShape
from metabench.data.strangers import Strangers
from metabench.errors import CellFailed

SIZES = np.array([5, 9, 4, 7, 6, 5, 8, 4])
OFFSETS = np.cumsum([0, *SIZES])
SHAPE = EpisodeShape(3, 1, 2)
KEY = "0123456789abcdef" * 2


def episodes(first: int, count: int) -> EpisodeIndices:
    return EpisodeSampler(OFFSETS, SHAPE, "test", 0).draw(first, count)


def class_of(images: np.ndarray) -> np.ndarray:
    return np.searchsorted(OFFSETS, images, side="right") - 1


def mixed(first: int, count: int, classes: int = 4, images: int = 2) -> EpisodeIndices:
    return Strangers(OFFSETS, classes, images, KEY).added(episodes(first, count), first)


@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 4))
def test_strangers_are_distinct_images_of_distinct_other_classes(first: int, classes: int, images: int) -> None:
    found = mixed(first, 5, classes, images)
    for own, query, labels in zip(found.classes, found.query, found.query_labels, strict=True):
        strange = query[labels == SHAPE.way]
        assert len(strange) == len(set(strange.tolist())) == classes * images
        names, counts = np.unique(class_of(strange), return_counts=True)
        assert counts.tolist() == [images] * classes
        assert not set(names.tolist()) & set(own.tolist())


def test_support_and_other_queries_stay_as_they_are() -> None:
    plain, found = episodes(3, 20), mixed(3, 20)
    assert (found.support == plain.support).all()
    assert (found.support_labels == plain.support_labels).all()
    for row in range(20):
        own = found.query_labels[row] < SHAPE.way
        pairs = zip(found.query[row][own].tolist(), found.query_labels[row][own].tolist(), strict=True)
        assert sorted(pairs) == sorted(zip(plain.query[row].tolist(), plain.query_labels[row].tolist(), strict=True))


def test_strangers_of_an_episode_do_not_depend_on_its_batch() -> None:
    whole = mixed(0, 30)
    for first, count in ((0, 1), (7, 5), (29, 1)):
        part = mixed(first, count)
        assert (part.query == whole.query[first : first + count]).all()
        assert (part.query_labels == whole.query_labels[first : first + count]).all()


def test_every_other_class_and_every_place_is_as_likely() -> None:
    found = mixed(0, 6000, classes=1, images=1)
    strange = found.query_labels == SHAPE.way
    places = strange.sum(axis=0)
    assert np.abs(places - places.mean()).max() < 5 * places.mean() ** 0.5
    counts = np.bincount(class_of(found.query[strange]), minlength=len(SIZES))
    assert np.abs(counts - counts.mean()).max() < 5 * counts.mean() ** 0.5


def test_too_few_classes_or_images_are_refused() -> None:
    with pytest.raises(CellFailed, match="6 classes of strangers asked, and 3-way episodes leave 5"):
        mixed(0, 1, classes=6)
    with pytest.raises(CellFailed, match="5 images of a stranger's class asked, and the smallest has 4"):
        mixed(0, 1, images=5)
