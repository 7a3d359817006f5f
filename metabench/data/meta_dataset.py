"""Episodes of varying ways and shots, as Meta-Dataset draws them; imports no torch.

Triantafillou et al. 2020, section 3.2 and appendix (https://arxiv.org/abs/1903.03096), and the authors' code,
https://github.com/google-research/meta-dataset, ``sampling.py``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from metabench.data.sampler import (
    LEAST_WAYS,
    MOST_QUERIES,
    MOST_SUPPORT,
    MOST_WAYS,
    EpisodeIndices,
    EpisodeShape,
    IntArray,
    episode_words,
    sampler_key,
)

#: Most images by which a class adds to the size of a support set.
_MOST_OF_A_CLASS = 100
#: Most classes below a node: the least that leaves each class of ImageNet below some node (the authors' code).
_MOST_BELOW_A_NODE = 392
#: Smallest and largest log weight of a class in the support set.
_LOG_WEIGHTS = (math.log(0.5), math.log(2.0))
#: Words of an episode: family, way, classes, size of the support set, weights; then images, and order of the queries.
_FAMILY, _WAY, _CLASSES, _SUPPORT, _WEIGHTS = 0, 1, 2, 2 + MOST_WAYS, 3 + MOST_WAYS
_COMPOSITION = _WEIGHTS + MOST_WAYS
_IMAGES, _ORDER = MOST_SUPPORT + MOST_WAYS * MOST_QUERIES, MOST_WAYS * MOST_QUERIES
_ALL = _COMPOSITION + _IMAGES + _ORDER
#: Bits of a random word that a float64 holds.
_BITS = 53


@dataclass(frozen=True)
class Composition:
    """The sizes of an episode of N classes.

    Attributes:
        classes: [N] the classes, in the order of the labels.
        shots: [N] support images of each.
        queries: query images of each.
    """

    classes: IntArray
    shots: IntArray
    queries: int


class MetaDatasetSampler:
    """Draws episode i as a pure function of its arguments; way, shots and queries vary.

    The way is uniform between 5 and 50, or all classes; queries are as many of each class as half the smallest one, at
    most 10; the size of the support set is a uniform share of the images that are left, at most 100 of a class and 500
    in all; shots follow the sizes of the classes, each times a factor between 1/2 and 2, at least 1. Where classes have
    families, such as alphabets, an episode has classes of one family of at least 5, each family being as likely. Where
    they have a hierarchy, an episode has all classes below one inner node of 5 to 392, each node being as likely; of
    more than 50 classes, 50.

    Args:
        offsets: [classes + 1] image `j` belongs to class `c` when ``offsets[c] <= j < offsets[c + 1]``.
        shape: the shape, which names this sampler.
        stream: name of the sequence of episodes.
        seed: seed of the sequence.
        families: [classes] number of the family of each class; None for one family.
        nodes: the classes below each inner node of a hierarchy, in the place of families; None without a hierarchy.

    Raises:
        ValueError: there are fewer than 5 classes, of a family or below a node, or a class has fewer than 2 images.
    """

    def __init__(
        self,
        offsets: npt.ArrayLike,
        shape: EpisodeShape,
        stream: str,
        seed: int,
        families: Sequence[int] | None = None,
        nodes: Sequence[Sequence[int]] | None = None,
    ) -> None:
        self._offsets = np.asarray(offsets, dtype=np.int64)
        self._sizes = np.diff(self._offsets)
        if len(self._sizes) < LEAST_WAYS or self._sizes.min() < shape.per_class:
            raise ValueError(
                f"episodes of varying ways need {LEAST_WAYS} classes of at least {shape.per_class} images, not "
                f"{len(self._sizes)} of at least {self._sizes.min(initial=0)}"
            )
        self._whole = nodes is not None
        if nodes is not None:
            members = [np.array(node, np.int64) for node in nodes if len(node) <= _MOST_BELOW_A_NODE]
        else:
            numbers = np.zeros(len(self._sizes), np.int64) if families is None else np.asarray(families)
            members = [np.flatnonzero(numbers == family) for family in np.unique(numbers)]
        self._families = [classes for classes in members if len(classes) >= LEAST_WAYS]
        if not self._families:
            needed = f"a family of {LEAST_WAYS}"
            if nodes is not None:
                needed = f"a node with {LEAST_WAYS} to {_MOST_BELOW_A_NODE}"
            raise ValueError(f"episodes of varying ways need {needed} classes")
        self._key = sampler_key(stream, shape, seed)

    def ways(self, first: int, count: int) -> IntArray:
        """Return the [count] ways of episodes."""
        drawn = (episode_words(self._key, number, 1, _ALL)[0, :_CLASSES] for number in range(first, first + count))
        return np.array([self._way(self._family(words), words) for words in map(np.ndarray.tolist, drawn)], np.int64)

    def chances(self, first: int, count: int) -> npt.NDArray[np.float64]:
        """Return the [count] accuracies of guessing, 1/N."""
        return 1 / self.ways(first, count)

    def composition(self, number: int) -> Composition:
        """Return the classes of an episode, with their shots and queries."""
        return self._composition(self._words(number))

    def draw(self, first: int, count: int) -> EpisodeIndices:
        """Return episode `first` as a batch of one: episodes of other sizes cannot be in it."""
        assert count == 1, "episodes of varying sizes are drawn one at a time"
        words = self._words(first)
        composition = self._composition(words)
        remaining = iter(words[_COMPOSITION : _COMPOSITION + _IMAGES])
        support: list[int] = []
        query: list[int] = []
        for class_, shot in zip(composition.classes.tolist(), composition.shots.tolist(), strict=True):
            drawn = _distinct(list(islice(remaining, shot + composition.queries)), int(self._sizes[class_]))
            images = [int(self._offsets[class_]) + i for i in drawn]
            support += images[:shot]
            query += images[shot:]
        way = len(composition.classes)
        order = np.argsort(np.array(words[-_ORDER:][: len(query)], dtype=np.uint64), kind="stable")
        return EpisodeIndices(
            classes=composition.classes[None],
            support=np.array([support]),
            support_labels=np.repeat(np.arange(way), composition.shots)[None],
            query=np.array(query)[order][None],
            query_labels=np.repeat(np.arange(way), composition.queries)[order][None],
        )

    def _words(self, number: int) -> list[int]:
        """Return the random words of an episode."""
        words: list[int] = episode_words(self._key, number, 1, _ALL)[0, :_ALL].tolist()
        return words

    def _family(self, words: Sequence[int]) -> IntArray:
        """Return the classes of the family, or below the node, of an episode."""
        return self._families[words[_FAMILY] % len(self._families)]

    def _way(self, family: IntArray, words: Sequence[int]) -> int:
        most = min(MOST_WAYS, len(family))
        if self._whole:
            return most
        return LEAST_WAYS + words[_WAY] % (most - LEAST_WAYS + 1)

    def _composition(self, words: Sequence[int]) -> Composition:
        family = self._family(words)
        way = self._way(family, words)
        classes = family[_distinct(words[_CLASSES : _CLASSES + way], len(family))]
        sizes = self._sizes[classes]
        queries = min(MOST_QUERIES, int(sizes.min()) // 2)
        left = sizes - queries
        share = _uniform(words[_SUPPORT])
        # Rounded down plus one: as a share above 0, rounded up.
        total = min(MOST_SUPPORT, int(np.floor(share * np.minimum(_MOST_OF_A_CLASS, left) + 1).sum()))
        low, high = _LOG_WEIGHTS
        log_weights = low + (high - low) * np.array([_uniform(word) for word in words[_WEIGHTS : _WEIGHTS + way]])
        weights = sizes * np.exp(log_weights)
        shots = np.floor(weights / weights.sum() * (total - way)).astype(np.int64) + 1
        return Composition(classes, np.minimum(shots, left), queries)


def _uniform(word: int) -> float:
    """Return a number between 0 and 1, 1 excluded."""
    return float((word >> (64 - _BITS)) / 2.0**_BITS)


def _distinct(words: Sequence[int], limit: int) -> list[int]:
    """Return as many distinct numbers below a limit as there are words: the beginning of a shuffle."""
    moved: dict[int, int] = {}
    chosen = []
    for i, word in enumerate(words):
        j = i + word % (limit - i)
        chosen.append(moved.get(j, j))
        moved[j] = moved.get(i, i)
    return chosen
