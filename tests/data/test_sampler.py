from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metabench.data.sampler import EpisodeIndices, EpisodeSampler, EpisodeShape, IntArray, counts_of_shares

ARRAYS = ("classes", "support", "support_labels", "query", "query_labels")


@st.composite
def samplers(draw: st.DrawFn) -> tuple[EpisodeSampler, npt.NDArray[np.int64]]:
    """Yield a sampler and the offsets of its classes, whose sizes differ."""
    shape = EpisodeShape(draw(st.integers(1, 6)), draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    least = shape.shot + shape.queries
    sizes = draw(st.lists(st.integers(least, least + 5), min_size=shape.way, max_size=shape.way + 5))
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    return EpisodeSampler(offsets, shape, draw(st.text(max_size=5)), draw(st.integers(0, 2**40))), offsets


def same(one: EpisodeIndices, other: EpisodeIndices) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ARRAYS)


def joined(parts: list[EpisodeIndices]) -> EpisodeIndices:
    return EpisodeIndices(*(np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS))


def chi_square_is_plausible(counts: npt.NDArray[np.int64]) -> bool:
    """Return whether counts look as if all were equally likely: six standard deviations are allowed."""
    expected = counts.sum() / counts.size
    free = counts.size - 1
    return bool(((counts - expected) ** 2 / expected).sum() < free + 6 * (2 * free) ** 0.5)


# --------------------------------------------------------------------------------------------- content


@given(found=samplers(), first=st.integers(0, 2**40), count=st.integers(1, 7))
def test_an_episode_has_distinct_images_of_its_classes(
    found: tuple[EpisodeSampler, npt.NDArray[np.int64]], first: int, count: int
) -> None:
    sampler, offsets = found
    way, shot, queries = sampler.shape.way, sampler.shape.shot, sampler.shape.queries
    drawn = sampler.draw(first, count)
    assert drawn.classes.shape == (count, way)
    assert drawn.support.shape == drawn.support_labels.shape == (count, way * shot)
    assert drawn.query.shape == drawn.query_labels.shape == (count, way * queries)
    for i in range(count):
        images = np.concatenate([drawn.support[i], drawn.query[i]])
        labels = np.concatenate([drawn.support_labels[i], drawn.query_labels[i]])
        assert len(set(drawn.classes[i])) == way
        assert len(set(images)) == len(images), "an image is in the episode twice"
        class_of = np.searchsorted(offsets, images, side="right") - 1
        np.testing.assert_array_equal(class_of, drawn.classes[i][labels])
        np.testing.assert_array_equal(drawn.support_labels[i], np.repeat(np.arange(way), shot))
        np.testing.assert_array_equal(np.bincount(drawn.query_labels[i], minlength=way), queries)


# ----------------------------------------------------------------------------------------- determinism


@given(found=samplers(), sizes=st.lists(st.integers(1, 5), min_size=1, max_size=6), first=st.integers(0, 10**9))
def test_the_size_of_a_batch_changes_no_episode(
    found: tuple[EpisodeSampler, npt.NDArray[np.int64]], sizes: list[int], first: int
) -> None:
    sampler, _ = found
    starts = first + np.concatenate([[0], np.cumsum(sizes)])
    whole = sampler.draw(first, sum(sizes))
    parts = [sampler.draw(int(start), size) for start, size in zip(starts, sizes, strict=False)]
    assert same(whole, joined(parts))
    backwards = [sampler.draw(int(start), size) for start, size in reversed(list(zip(starts, sizes, strict=False)))]
    assert same(whole, joined(backwards[::-1]))


def test_jumping_ahead_finds_the_same_episode() -> None:
    offsets = np.arange(11) * 20
    shape = EpisodeShape(5, 1, 4)
    walked = EpisodeSampler(offsets, shape, "s", 0)
    for i in range(50):
        walked.draw(i, 1)
    jumped = EpisodeSampler(offsets, shape, "s", 0)
    assert same(walked.draw(50, 1), jumped.draw(50, 1))


def test_consecutive_episodes_differ() -> None:
    drawn = EpisodeSampler(np.arange(41) * 20, EpisodeShape(5, 1, 5), "s", 0).draw(0, 500)
    assert len({row.tobytes() for row in drawn.query}) == 500


@settings(max_examples=50)
@given(seed=st.integers(0, 10**6), other=st.integers(0, 10**6))
def test_another_seed_stream_or_shape_gives_other_episodes(seed: int, other: int) -> None:
    offsets = np.arange(41) * 20
    shape = EpisodeShape(5, 1, 5)
    base = EpisodeSampler(offsets, shape, "train", seed).draw(0, 4)
    assert same(base, EpisodeSampler(offsets, shape, "train", seed).draw(0, 4))
    assert not same(base, EpisodeSampler(offsets, shape, "test", seed).draw(0, 4))
    if other != seed:
        assert not same(base, EpisodeSampler(offsets, shape, "train", other).draw(0, 4))
    for changed in (replace(shape, way=4), replace(shape, shot=2), replace(shape, queries=4)):
        found = EpisodeSampler(offsets, changed, "train", seed).draw(0, 4)
        assert not np.array_equal(found.classes[:, :4], base.classes[:, :4])


def test_the_first_episode_matches_its_golden_value() -> None:
    # A change here changes every episode, and with it every result that was ever published.
    sampler = EpisodeSampler([0, 20, 45, 70, 90, 110, 130, 150], EpisodeShape(3, 2, 3), "golden", 7)
    drawn = sampler.draw(0, 1)
    assert drawn.classes[0].tolist() == [6, 2, 1]
    assert drawn.support[0].tolist() == [142, 136, 60, 66, 31, 24]
    assert drawn.support_labels[0].tolist() == [0, 0, 1, 1, 2, 2]
    assert drawn.query[0].tolist() == [40, 134, 149, 47, 50, 20, 45, 137, 41]
    assert drawn.query_labels[0].tolist() == [2, 0, 0, 1, 1, 2, 1, 0, 2]
    assert sampler.draw(10**6, 1).query[0].tolist() == [149, 133, 125, 144, 34, 24, 120, 111, 30]


# -------------------------------------------------------------------------------------------- fairness


@pytest.mark.parametrize("stream", ["a", "b"])
def test_classes_and_images_are_drawn_equally_often(stream: str) -> None:
    classes, per_class = 12, 7
    offsets = np.arange(classes + 1) * per_class
    drawn = EpisodeSampler(offsets, EpisodeShape(5, 2, 3), stream, 0).draw(0, 6000)
    for label in range(5):
        assert chi_square_is_plausible(np.bincount(drawn.classes[:, label], minlength=classes))
    for images in (drawn.support, drawn.query):
        assert chi_square_is_plausible(np.bincount(images.ravel(), minlength=classes * per_class))


def test_every_pair_of_classes_meets_equally_often() -> None:
    drawn = EpisodeSampler(np.arange(7) * 3, EpisodeShape(2, 1, 1), "s", 0).draw(0, 6000)
    pairs = drawn.classes[:, 0] * 6 + drawn.classes[:, 1]
    counts = np.bincount(pairs, minlength=36).reshape(6, 6)
    assert counts.trace() == 0
    assert chi_square_is_plausible(counts[~np.eye(6, dtype=bool)])


def test_the_position_of_a_query_tells_nothing_about_its_label() -> None:
    way, queries = 3, 2
    drawn = EpisodeSampler(np.arange(9) * 4, EpisodeShape(way, 1, queries), "s", 0).draw(0, 6000)
    for position in range(way * queries):
        assert chi_square_is_plausible(np.bincount(drawn.query_labels[:, position], minlength=way))
    for one, other in itertools.combinations(range(way * queries), 2):
        alike = (drawn.query_labels[:, one] == drawn.query_labels[:, other]).mean()
        assert alike == pytest.approx((queries - 1) / (way * queries - 1), abs=0.04)


def test_classes_of_different_sizes_are_drawn_to_their_last_image() -> None:
    offsets = np.array([0, 3, 13, 18])
    drawn = EpisodeSampler(offsets, EpisodeShape(3, 1, 2), "s", 0).draw(0, 1000)
    assert set(drawn.support.ravel()) == set(drawn.query.ravel()) == set(range(18))


# -------------------------------------------------------------------------------------------- mistakes


def test_too_few_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="5-way episodes need a split of 5 classes, not 4"):
        EpisodeSampler(np.arange(5) * 20, EpisodeShape(5, 1, 1), "s", 0)


def test_too_few_images_in_the_smallest_class_are_refused() -> None:
    with pytest.raises(ValueError, match="need 6 images of each class, and the smallest class has 5"):
        EpisodeSampler([0, 20, 25, 45], EpisodeShape(2, 1, 5), "s", 0)


def test_exactly_enough_classes_and_images_are_accepted() -> None:
    drawn = EpisodeSampler([0, 3, 6], EpisodeShape(2, 1, 2), "s", 0).draw(0, 5)
    for support, query in zip(drawn.support, drawn.query, strict=True):
        assert sorted([*support, *query]) == list(range(6))


# --------------------------------------------------------------------------------------- shares of the classes


UNEVEN = EpisodeShape(5, 1, 15, dirichlet=2.0)


@pytest.fixture
def uneven() -> EpisodeSampler:
    return EpisodeSampler(np.arange(31) * 40, UNEVEN, "test", 0)


def counts_of(episodes: EpisodeIndices) -> IntArray:
    """Return the [B, N] numbers of queries."""
    return np.stack([(episodes.query_labels == label).sum(axis=1) for label in range(5)], axis=1)


def test_with_dirichlet_shares_the_number_of_queries_is_fixed_and_their_classes_are_not(
    uneven: EpisodeSampler,
) -> None:
    counts = counts_of(uneven.draw(0, 4000))
    assert (counts.sum(axis=1) == 75).all()
    assert counts.max() <= 39, "a class has 40 images, one of them in the support set"
    # A share has the Beta(α, 4α) distribution of mean 1/5 and variance .2 · .8 / (5α + 1); the limit cuts its tail.
    assert counts.mean(axis=0) == pytest.approx([15] * 5, abs=0.5)
    assert counts.std() == pytest.approx(75 * np.sqrt(0.2 * 0.8 / 11), rel=0.1)


def test_with_dirichlet_shares_no_image_is_drawn_twice(uneven: EpisodeSampler) -> None:
    episodes = uneven.draw(0, 300)
    drawn = np.concatenate([episodes.support, episodes.query], axis=1)
    assert all(len(set(images)) == drawn.shape[1] for images in drawn.tolist())
    labels = np.concatenate([episodes.support_labels, episodes.query_labels], axis=1)
    assert (drawn // 40 == np.take_along_axis(episodes.classes, labels, axis=1)).all()


def test_with_dirichlet_shares_an_episode_is_a_function_of_its_number(uneven: EpisodeSampler) -> None:
    several, one = uneven.draw(3, 6), uneven.draw(7, 1)
    assert (several.query[4] == one.query[0]).all()
    assert (several.support[4] == one.support[0]).all()


@given(
    shares=st.lists(st.floats(1e-6, 1), min_size=2, max_size=8),
    total=st.integers(1, 90),
    data=st.data(),
)
def test_counts_have_the_total_and_keep_the_limits(shares: list[float], total: int, data: st.DataObject) -> None:
    limits = data.draw(st.lists(st.integers(0, 90), min_size=len(shares), max_size=len(shares)))
    limits[0] += max(0, total - sum(limits))
    of_total = np.array([shares]) / sum(shares)
    counts = counts_of_shares(of_total, total, np.array([limits]))
    assert counts.sum() == total
    assert (counts >= 0).all()
    assert (counts <= np.array([limits])).all()
    if (of_total * total <= np.array([limits]) - 1).all():
        assert (np.abs(counts - of_total * total) < 1).all(), "without limits, a count is its share, rounded"
