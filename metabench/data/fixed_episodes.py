"""The episodes of a file as indices of images; imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

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
        episodes: the episodes, all of one shape.
        split: the split that has the images.
        order: its order, of all classes.
        key: 32 hexadecimal digits that seed the order of the queries.

    Raises:
        DataError: the split has not a class or an image of that name, or names no images.
    """

    def __init__(self, episodes: Sequence[NamedEpisode], split: Split, order: Order, key: str) -> None:
        images = _Images(split, order)
        parts = [_indices(episode, images) for episode in episodes]
        classes, support, query = (np.stack(part) for part in zip(*parts, strict=True))
        way = classes.shape[1]
        words = episode_words(key, 0, len(episodes), query.shape[1])[:, : query.shape[1]]
        queries_order = np.argsort(words, axis=1, kind="stable")
        labels = [np.tile(np.repeat(np.arange(way), part.shape[1] // way), (len(part), 1)) for part in (support, query)]
        self._episodes = EpisodeIndices(
            classes=classes,
            support=support,
            support_labels=labels[0],
            query=np.take_along_axis(query, queries_order, axis=1),
            query_labels=np.take_along_axis(labels[1], queries_order, axis=1),
        )

    def draw(self, first: int, count: int) -> EpisodeIndices:
        """Return episodes `first` … `first + count - 1`."""
        return self._episodes[(first + np.arange(count)) % len(self._episodes.classes)]


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


def _indices(episode: NamedEpisode, images: _Images) -> tuple[IntArray, IntArray, IntArray]:
    """Return the [N] classes, [N·K] support images and [M] queries of an episode, sorted by label."""
    classes = {name: images.class_of(name, episode.place) for name in episode.support}

    def found(members: Sequence[str], class_: int) -> list[int]:
        return [images.index_of(class_, name, episode.place) for name in members]

    support = [i for name, class_ in classes.items() for i in found(episode.support[name], class_)]
    query = [i for name, class_ in classes.items() for i in found(episode.query[name], class_)]
    return np.array([*classes.values()]), np.array(support), np.array(query)
