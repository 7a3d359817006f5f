"""Which classes an episode has, by the rules of `sampling`."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metabench.data.class_choice import ClassSampling
from metabench.data.sampler import EpisodeSampler, EpisodeShape

#: Four groups of 1, 2, 3 and 4 classes, and as families.
SETS = [0, 1, 1, 2, 2, 2, 3, 3, 3, 3]


def sampler(
    sampling: ClassSampling | None, way: int = 3, sets: list[int] | None = None, seed: int = 0, images: int = 3
) -> EpisodeSampler:
    sets = SETS if sets is None else sets
    shape = EpisodeShape(way, 1, 2, sampling=sampling)
    return EpisodeSampler(np.arange(len(sets) + 1) * images, shape, "test", seed, groups=sets, families=sets)


def plausible(counts: list[int], expected: float) -> bool:
    """Return whether counts look as if all were equally likely: six standard deviations are allowed."""
    free = len(counts) - 1
    return sum((count - expected) ** 2 / expected for count in counts) < free + 6 * (2 * free) ** 0.5


sets_of_classes = st.lists(st.integers(0, 5), min_size=3, max_size=20).filter(lambda sets: len(set(sets)) >= 3)


@given(sets=sets_of_classes, seed=st.integers(0, 2**40), first=st.integers(0, 2**40))
def test_an_episode_has_one_class_of_a_group(sets: list[int], seed: int, first: int) -> None:
    drawn = sampler("one-of-a-group", sets=sets, seed=seed).draw(first, 5)
    groups = np.array(sets)[drawn.classes]
    assert all(len(set(row)) == 3 for row in groups.tolist())


@given(sets=st.lists(st.integers(0, 2), min_size=9, max_size=20), seed=st.integers(0, 2**40))
def test_an_episode_has_distinct_classes_of_one_family(sets: list[int], seed: int) -> None:
    drawn = sampler("one-family", sets=sets, seed=seed).draw(0, 20)
    assert all(len(set(row)) == 3 for row in drawn.classes.tolist())
    assert all(len(set(row)) == 1 for row in np.array(sets)[drawn.classes].tolist())


@pytest.mark.parametrize("sampling", ["one-of-a-group", "one-family"])
def test_an_episode_is_a_function_of_its_number(sampling: ClassSampling) -> None:
    whole = sampler(sampling).draw(0, 20)
    for number in range(20):
        one = sampler(sampling).draw(number, 1)
        assert np.array_equal(one.classes[0], whole.classes[number])
        assert np.array_equal(one.support[0], whole.support[number])
        assert np.array_equal(one.query[0], whole.query[number])


def test_groups_are_equally_likely_and_so_are_the_classes_of_a_group() -> None:
    drawn = Counter(sampler("one-of-a-group", way=2).draw(0, 6000).classes.flatten().tolist())
    by_group: dict[int, list[int]] = {}
    for class_, group in enumerate(SETS):
        by_group.setdefault(group, []).append(drawn[class_])
    assert plausible([sum(counts) for counts in by_group.values()], 3000)
    for counts in list(by_group.values())[1:]:
        assert plausible(counts, sum(counts) / len(counts))


def test_families_of_enough_classes_are_equally_likely_and_others_are_not_drawn() -> None:
    classes = sampler("one-family", way=3).draw(0, 4000).classes
    families = Counter(np.array(SETS)[classes[:, 0]].tolist())
    assert set(families) == {2, 3}
    assert plausible(list(families.values()), 2000)
    in_the_larger = classes[np.array(SETS)[classes[:, 0]] == 3]
    assert plausible(list(Counter(in_the_larger.flatten().tolist()).values()), in_the_larger.size / 4)


def test_rules_change_which_classes_are_drawn_and_their_keys() -> None:
    drawn = {rule: sampler(rule).draw(0, 50).classes.tolist() for rule in (None, "one-of-a-group", "one-family")}
    assert drawn[None] != drawn["one-of-a-group"] != drawn["one-family"]


@pytest.mark.parametrize(
    ("sampling", "message"),
    [("one-of-a-group", "5-way episodes need 5 groups, not 4"), ("one-family", "need 5 classes of one family, not 4")],
)
def test_a_way_that_no_rule_can_serve_is_refused(sampling: ClassSampling, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sampler(sampling, way=5)
