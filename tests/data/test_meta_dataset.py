"""Episodes of varying sizes against Meta-Dataset's rule (Triantafillou et al. 2020, section 3.2 and appendix)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from metabench.api import Split
from metabench.data.meta_dataset import Composition, MetaDatasetSampler
from metabench.data.order import Order, episodes_key
from metabench.data.sampler import EpisodeShape

SHAPE = EpisodeShape(0, 0, 0, sampling="meta-dataset")
#: Number of episodes that are held against the rule.
EPISODES = 10_000
#: Sizes of classes: as of Aircraft (100 each) and Fungi (6 to 400), and two smaller sets.
SIZES: dict[str, list[int]] = {
    "equal": [100] * 15,
    "uneven": np.random.default_rng(1).integers(6, 400, 200).tolist(),
    "tiny": [2, 3, 4, 30, 5, 2],
    "five": [20, 700, 40, 40, 40],
}


def sampler(sizes: list[int], seed: int = 0, stream: str = "test") -> MetaDatasetSampler:
    return MetaDatasetSampler(np.cumsum([0, *sizes]), SHAPE, stream, seed)


@pytest.fixture(scope="module")
def drawn() -> dict[str, list[Composition]]:
    """Return the sizes of all episodes of each set of classes."""
    samplers = {name: sampler(sizes) for name, sizes in SIZES.items()}
    return {name: [found.composition(i) for i in range(EPISODES)] for name, found in samplers.items()}


def reference(sizes: list[int], rng: np.random.Generator) -> tuple[int, int, npt.NDArray[np.int64]]:
    """Return way, queries and shots of one episode, written from the paper's equations."""
    way = int(rng.integers(5, min(50, len(sizes)), endpoint=True))
    images = rng.choice(sizes, way, replace=False)
    queries = int(min(10, *np.floor(0.5 * images)))
    beta = 1 - rng.random()  # in (0, 1]
    total = min(500, int(np.ceil(beta * np.minimum(100, images - queries)).sum()))
    weights = np.exp(rng.uniform(np.log(0.5), np.log(2), way)) * images
    shots = np.minimum(np.floor(weights / weights.sum() * (total - way)) + 1, images - queries)
    return way, queries, shots.astype(np.int64)


@pytest.mark.parametrize("name", SIZES)
def test_every_episode_is_within_the_limits_of_the_rule(drawn: dict[str, list[Composition]], name: str) -> None:
    sizes = np.array(SIZES[name])
    for episode in drawn[name]:
        images, way = sizes[episode.classes], len(episode.classes)
        assert 5 <= way <= min(50, len(sizes))
        assert len(set(episode.classes.tolist())) == way
        assert episode.queries == min(10, images.min() // 2)
        assert (episode.shots >= 1).all()
        assert (episode.shots + episode.queries <= images).all()
        assert episode.shots.sum() <= min(500, np.minimum(100, images - episode.queries).sum())


@pytest.mark.parametrize("name", SIZES)
def test_ways_are_uniform(drawn: dict[str, list[Composition]], name: str) -> None:
    counts = np.bincount([len(episode.classes) for episode in drawn[name]], minlength=51)
    possible = counts[5 : min(50, len(SIZES[name])) + 1]
    assert possible.sum() == EPISODES
    if len(possible) > 1:
        assert stats.chisquare(possible).pvalue > 1e-4


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_distributed_as_in_the_papers_equations(drawn: dict[str, list[Composition]], name: str) -> None:
    rng = np.random.default_rng(2)
    expected = [reference(SIZES[name], rng) for _ in range(EPISODES)]
    figures = {
        "support": ([e.shots.sum() for e in drawn[name]], [shots.sum() for _, _, shots in expected]),
        "largest": ([e.shots.max() for e in drawn[name]], [shots.max() for _, _, shots in expected]),
        "smallest": ([e.shots.min() for e in drawn[name]], [shots.min() for _, _, shots in expected]),
        "first": ([e.shots[0] for e in drawn[name]], [shots[0] for _, _, shots in expected]),
        "queries": ([e.queries for e in drawn[name]], [queries for _, queries, _ in expected]),
    }
    for figure, (found, wanted) in figures.items():
        assert stats.ks_2samp(found, wanted).pvalue > 1e-4, figure


def test_shots_of_equal_classes_differ_by_the_weights_alone(drawn: dict[str, list[Composition]]) -> None:
    large = [episode.shots for episode in drawn["equal"] if episode.shots.sum() > 400]
    assert len(large) > 100
    ratios = np.array([shots.max() / shots.min() for shots in large])
    assert ratios.max() <= 4 * 1.1  # factors are between 1/2 and 2; shots are whole
    assert ratios.max() > 3


def test_every_class_is_drawn_as_often_as_others(drawn: dict[str, list[Composition]]) -> None:
    counts = np.bincount(np.concatenate([episode.classes for episode in drawn["uneven"]]))
    expected = counts.mean()
    assert np.abs(counts - expected).max() < 5 * expected**0.5


# ---------------------------------------------------------------------------------------------- families

#: Classes of Meta-Dataset's Omniglot: test alphabets of 20, 26 and 47 characters, and one that is too small.
ALPHABETS = [0] * 20 + [1] * 26 + [2] * 47 + [3] * 4


@pytest.fixture(scope="module")
def of_alphabets() -> list[Composition]:
    found = MetaDatasetSampler(np.arange(98) * 20, SHAPE, "test", 0, ALPHABETS)
    return [found.composition(i) for i in range(EPISODES)]


def test_the_classes_of_an_episode_are_of_one_family(of_alphabets: list[Composition]) -> None:
    assert {len({ALPHABETS[c] for c in episode.classes}) for episode in of_alphabets} == {1}


def test_families_are_as_likely_whatever_their_sizes(of_alphabets: list[Composition]) -> None:
    counts = np.bincount([ALPHABETS[episode.classes[0]] for episode in of_alphabets], minlength=4)
    assert counts[3] == 0, "an episode has at least five classes"
    assert stats.chisquare(counts[:3]).pvalue > 1e-4


def test_ways_are_uniform_up_to_the_size_of_the_family(of_alphabets: list[Composition]) -> None:
    for family, size in enumerate((20, 26, 47)):
        ways = [len(episode.classes) for episode in of_alphabets if ALPHABETS[episode.classes[0]] == family]
        counts = np.bincount(ways, minlength=size + 1)
        assert counts[:5].sum() == 0
        assert len(counts) == size + 1
        assert stats.chisquare(counts[5:]).pvalue > 1e-4


def test_families_below_five_classes_are_refused_together() -> None:
    with pytest.raises(ValueError, match="need a family of 5 classes"):
        MetaDatasetSampler(np.arange(9) * 20, SHAPE, "test", 0, [0, 0, 0, 0, 1, 1, 1, 1])


def test_families_are_part_of_the_key_of_varying_episodes_only() -> None:
    plain = Split(torch.zeros(12, 1, 1, 1, dtype=torch.uint8), torch.arange(7) * 2, list("fedcba"))
    with_families = replace(plain, families=[7, 7, 7, 7, 7, 3])
    renumbered = replace(plain, families=[1, 1, 1, 1, 1, 9])
    for shape, differ in ((SHAPE, True), (EpisodeShape(2, 1, 1), False)):
        keys = [episodes_key(split, "test", shape, 0, "") for split in (plain, with_families, renumbered)]
        assert (keys[0] != keys[1]) == differ
        assert keys[1] == keys[2], "numbers are no names"
    order = Order.of(with_families)
    assert order.names == tuple("abcdef")
    assert order.families == (0, 1, 1, 1, 1, 1)


# ------------------------------------------------------------------------------------------------- nodes

#: Classes below the nodes of a graph: a root of all 400, 392 of them, two that overlap, a tiny one, one too small.
NODES = [
    list(range(400)),
    list(range(392)),
    list(range(30)),
    list(range(20, 80)),
    [390, 391, 395, 398, 399],
    [1, 2, 3, 4],
]
#: The nodes of 5 to 392 classes.
ELIGIBLE = NODES[1:5]


@pytest.fixture(scope="module")
def of_nodes() -> list[set[int]]:
    found = MetaDatasetSampler(np.arange(401) * 20, SHAPE, "test", 0, nodes=NODES)
    return [set(found.composition(i).classes.tolist()) for i in range(EPISODES)]


def test_an_episode_has_all_classes_below_a_node_or_fifty_of_them(of_nodes: list[set[int]]) -> None:
    whole = [set(node) for node in ELIGIBLE if len(node) <= 50]
    large = [set(node) for node in ELIGIBLE if len(node) > 50]
    for classes in of_nodes:
        assert classes in whole or (len(classes) == 50 and any(classes <= node for node in large))


def test_nodes_are_as_likely_whatever_their_sizes(of_nodes: list[set[int]]) -> None:
    small, overlapping, tiny = (set(node) for node in ELIGIBLE[1:])
    counts = [
        sum(len(classes) == 50 and not classes <= overlapping for classes in of_nodes),
        sum(classes == small for classes in of_nodes),
        sum(len(classes) == 50 and classes <= overlapping for classes in of_nodes),
        sum(classes == tiny for classes in of_nodes),
    ]
    assert sum(counts) == EPISODES
    assert stats.chisquare(counts).pvalue > 1e-4


def test_the_fifty_classes_of_a_large_node_are_drawn_uniformly(of_nodes: list[set[int]]) -> None:
    overlapping = set(ELIGIBLE[2])
    drawn = [classes for classes in of_nodes if len(classes) == 50 and classes <= overlapping]
    counts = np.bincount([c - 20 for classes in drawn for c in classes], minlength=60)
    assert np.abs(counts - counts.mean()).max() < 5 * counts.mean() ** 0.5


def test_the_order_of_the_classes_of_a_node_varies() -> None:
    found = MetaDatasetSampler(np.arange(6) * 20, SHAPE, "test", 0, nodes=[[0, 1, 2, 3, 4]])
    assert len({tuple(found.composition(i).classes.tolist()) for i in range(600)}) > 100


def test_a_graph_without_a_node_of_five_to_392_classes_is_refused() -> None:
    with pytest.raises(ValueError, match="need a node with 5 to 392 classes"):
        MetaDatasetSampler(np.arange(401) * 20, SHAPE, "test", 0, nodes=[list(range(400)), [0, 1]])


def test_nodes_follow_the_sorted_classes_and_are_part_of_the_key_of_varying_episodes_only() -> None:
    plain = Split(torch.zeros(12, 1, 1, 1, dtype=torch.uint8), torch.arange(7) * 2, list("fedcba"))
    below = replace(plain, nodes=[[0, 1, 2, 3, 4], [5, 4, 3, 2, 1]])
    same = replace(plain, nodes=[[1, 2, 3, 4, 5], [4, 3, 2, 1, 0]])
    for shape, differ in ((SHAPE, True), (EpisodeShape(2, 1, 1), False)):
        keys = [episodes_key(split, "test", shape, 0, "") for split in (plain, below, same)]
        assert (keys[0] != keys[1]) == differ
        assert keys[1] == keys[2], "the order of nodes and classes is no matter"
    assert Order.of(below).nodes == ((0, 1, 2, 3, 4), (1, 2, 3, 4, 5))


# ---------------------------------------------------------------------------------------------- indices


@given(
    st.lists(st.integers(2, 60), min_size=5, max_size=60),
    st.integers(0, 2**40),
    st.integers(0, 5),
)
def test_an_episode_has_the_images_of_its_composition(sizes: list[int], number: int, seed: int) -> None:
    found = sampler(sizes, seed)
    composition, episode = found.composition(number), found.draw(number, 1)
    offsets = np.cumsum([0, *sizes])
    way = len(composition.classes)
    assert episode.classes.tolist() == [composition.classes.tolist()]
    assert found.ways(number, 1).tolist() == [way]
    assert np.bincount(episode.support_labels[0], minlength=way).tolist() == composition.shots.tolist()
    assert np.bincount(episode.query_labels[0]).tolist() == [composition.queries] * way
    assert episode.support_labels[0].tolist() == sorted(episode.support_labels[0].tolist())
    images = np.concatenate([episode.support[0], episode.query[0]])
    labels = np.concatenate([episode.support_labels[0], episode.query_labels[0]])
    assert len(set(images.tolist())) == len(images)
    classes = composition.classes[labels]
    assert ((offsets[classes] <= images) & (images < offsets[classes + 1])).all()


def test_an_episode_is_a_function_of_its_number(drawn: dict[str, list[Composition]]) -> None:
    other = sampler(SIZES["uneven"])
    for number in (7, 3, 9_999):
        assert other.composition(number).shots.tolist() == drawn["uneven"][number].shots.tolist()
    assert other.ways(5, 100).tolist() == [len(drawn["uneven"][i].classes) for i in range(5, 105)]
    for changed in (sampler(SIZES["uneven"], seed=1), sampler(SIZES["uneven"], stream="val")):
        assert changed.ways(0, 50).tolist() != other.ways(0, 50).tolist()


def test_every_image_is_drawn_as_often_as_others_and_as_support_and_query() -> None:
    found = sampler([20] * 5)
    episodes = [found.draw(i, 1) for i in range(2000)]
    for parts in ([e.support[0] for e in episodes], [e.query[0] for e in episodes]):
        counts = np.bincount(np.concatenate(parts), minlength=100)
        assert np.abs(counts - counts.mean()).max() < 5 * counts.mean() ** 0.5


def test_the_place_of_a_query_does_not_tell_its_label() -> None:
    found = sampler([20] * 5)
    first = np.bincount([found.draw(i, 1).query_labels[0][0] for i in range(2000)], minlength=5)
    assert stats.chisquare(first).pvalue > 1e-4


@pytest.mark.parametrize("sizes", [[20] * 4, [20, 20, 20, 20, 1]])
def test_too_few_classes_or_images_are_refused(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="episodes of varying ways need 5 classes of at least 2 images"):
        sampler(sizes)
