"""The episodes of a file as indices of images; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from metabench.data.episodes_files import NamedEpisode
from metabench.data.order import Order
from metabench.data.sampler import EpisodeIndices, IntArray, episode_words
from metabench.data.validation import normalised
from metabench.errors import DataError, nearest, shown

if TYPE_CHECKING:  # imports torch
    from metabench.api import Split


class FixedEpisodes:
    """Gives the episodes of a file by number, in the place of an `EpisodeSampler`.

    Numbers beyond the last episode begin again: controls and latencies ask for more episodes than a file may have.
    Queries come in random order, which depends on the file and the number.

    Args:
        episodes: the episodes.
        split: the split that has the images.
        order: its order, of all classes.
        key: 32 hexadecimal digits that seed the order of the queries.

    Raises:
        DataError: the split has not a class or an image of that name, or names no images.
    """

    def __init__(self, episodes: Sequence[NamedEpisode], split: Split, order: Order, key: str) -> None:
        images = _Images(split, order)
        self._key, self._most = key, max(_count(episode.query) for episode in episodes)
        self._episodes = [self._indices(number, episode, images) for number, episode in enumerate(episodes)]

    def draw(self, first: int, count: int) -> EpisodeIndices:
        """Return episodes `first` … `first + count - 1`, which have one shape."""
        parts = self._numbered(first, count)
        return EpisodeIndices(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(EpisodeIndices)))

    def chances(self, first: int, count: int) -> npt.NDArray[np.float64]:
        """Return the [count] accuracies of guessing.

        That is 1/N; where support classes are uneven, which an algorithm may learn, the largest share of a class in the
        queries.
        """
        found = []
        for episode in self._numbered(first, count):
            shots, queries = np.bincount(episode.support_labels[0]), np.bincount(episode.query_labels[0])
            found.append(1 / len(shots) if len(set(shots.tolist())) == 1 else queries.max() / queries.sum())
        return np.array(found)

    def _numbered(self, first: int, count: int) -> list[EpisodeIndices]:
        return [self._episodes[number % len(self._episodes)] for number in range(first, first + count)]

    def _indices(self, number: int, episode: NamedEpisode, images: _Images) -> EpisodeIndices:
        """Return an episode as a batch of one."""
        classes = {name: images.class_of(name, episode.place) for name in episode.support}

        def found(members: Mapping[str, Sequence[str]]) -> tuple[IntArray, IntArray]:
            """Return the indices of named images, and their labels, sorted by label."""
            indices = [
                images.index_of(c, name, episode.place) for label, c in classes.items() for name in members[label]
            ]
            return np.array(indices), np.repeat(np.arange(len(classes)), [len(members[label]) for label in classes])

        support, support_labels = found(episode.support)
        query, query_labels = found(episode.query)
        words = episode_words(self._key, number, 1, self._most)[0, : len(query)]
        order = np.argsort(words, kind="stable")
        return EpisodeIndices(
            classes=np.array([list(classes.values())]),
            support=support[None],
            support_labels=support_labels[None],
            query=query[order][None],
            query_labels=query_labels[order][None],
        )


def _count(images: Mapping[str, Sequence[str]]) -> int:
    return sum(map(len, images.values()))


class _Images:
    """Looks up the images of a split by the names of class and image, as indices of its order."""

    def __init__(self, split: Split, order: Order) -> None:
        self._order, self._names = order, split.image_names
        self._classes = {name: c for c, name in enumerate(order.names)}
        self._of_class: dict[int, dict[str, int]] = {}

    def class_of(self, name: str, place: str) -> int:
        """Return the number of a class.

        Raises:
            DataError: there is no such class.
        """
        if name not in self._classes:
            raise DataError(f"{place}: the test split has no class '{shown(name)}'{nearest(name, self._classes)}")
        return self._classes[name]

    def index_of(self, class_: int, name: str, place: str) -> int:
        """Return the index of an image of a class.

        Raises:
            DataError: there is no such image, or the images have no names.
        """
        if self._names is None:
            raise DataError(f"{place}: the dataset names no images, so that a file cannot name them")
        if class_ not in self._of_class:
            begin, end = (int(bound) for bound in self._order.offsets[class_ : class_ + 2])
            names = [normalised(self._names[i]) for i in self._order.images[begin:end]]
            self._of_class[class_] = {name: begin + i for i, name in enumerate(names)}
        members = self._of_class[class_]
        if name not in members:
            of_class = f"class '{shown(self._order.names[class_])}'"
            raise DataError(f"{place}: {of_class} has no image '{shown(name)}'{nearest(name, members)}")
        return members[name]
