"""Batches of images: each epoch has every image once, and a batch is a function of seed and step."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from metabench.data.permutations import Permutations, steps_an_epoch


@settings(max_examples=50, deadline=None)
@given(images=st.integers(1, 200), batch=st.integers(1, 80), epoch=st.integers(0, 10**6), seed=st.integers(0, 99))
def test_an_epoch_has_whole_batches_of_distinct_images(images: int, batch: int, epoch: int, seed: int) -> None:
    permutations, steps = Permutations(images, "train", seed), steps_an_epoch(images, batch)
    assert sorted(permutations.epoch(epoch).tolist()) == list(range(images))
    batches = [permutations.batch(epoch * steps + step, batch) for step in range(steps)]
    assert {len(one) for one in batches} == {min(batch, images)}
    seen = np.concatenate(batches)
    assert len(set(seen.tolist())) == len(seen)
    assert images - len(seen) < batch


def test_a_batch_depends_on_neither_earlier_ones_nor_the_object() -> None:
    one, other = Permutations(100, "train", 3), Permutations(100, "train", 3)
    forwards = [one.batch(step, 32) for step in range(10)]
    backwards = [other.batch(step, 32) for step in reversed(range(10))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(forwards, backwards, strict=True))


def test_epochs_seeds_and_streams_have_other_orders() -> None:
    order = Permutations(50, "train", 0).epoch(0)
    for other in (
        Permutations(50, "train", 0).epoch(1),
        Permutations(50, "train", 1).epoch(0),
        Permutations(50, "other", 0).epoch(0),
    ):
        assert not np.array_equal(order, other)


def test_the_order_is_the_same_on_every_machine() -> None:
    assert Permutations(10, "pinned", 7).epoch(2).tolist() == [1, 9, 6, 2, 8, 7, 0, 5, 4, 3]


def test_every_place_of_an_epoch_sees_every_image() -> None:
    firsts = np.bincount([Permutations(8, "train", 0).epoch(epoch)[0] for epoch in range(4000)], minlength=8)
    # 500 expected, standard deviation 21.
    assert firsts.min() > 400
    assert firsts.max() < 600
