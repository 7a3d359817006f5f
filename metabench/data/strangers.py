"""Draw strangers: images of classes that an episode has not; imports no torch."""

from __future__ import annotations

import numpy as np

from metabench.data.class_choice import distinct
from metabench.data.sampler import EpisodeIndices, IntArray, episode_words
from metabench.errors import CellFailed


class Strangers:
    """Draws images of other classes for episode i, as a pure function of its arguments.

    Args:
        offsets: [classes + 1] as of `metabench.data.sampler.EpisodeSampler`.
        classes: number of other classes.
        images: number of images of each.
        key: 32 hexadecimal digits, the key of the episodes.

    Raises:
        CellFailed: a class has fewer images.
    """

    def __init__(self, offsets: IntArray, classes: int, images: int, key: str) -> None:
        self._offsets, self._sizes = offsets, np.diff(offsets)
        self._classes, self._images, self._key = classes, images, key
        if self._sizes.min() < images:
            raise CellFailed(f"{images} images of a stranger's class asked, and the smallest has {self._sizes.min()}")

    def added(self, drawn: EpisodeIndices, first: int) -> EpisodeIndices:
        """Return episodes whose queries are mixed with strangers, which have the label N.

        Args:
            drawn: B episodes, of N classes each.
            first: number of the first one.

        Raises:
            CellFailed: there are not enough other classes.
        """
        count, way = drawn.classes.shape
        others = len(self._sizes) - way
        if others < self._classes:
            raise CellFailed(f"{self._classes} classes of strangers asked, and {way}-way episodes leave {others}")
        strange, images = self._classes, self._images
        queries = drawn.query.shape[1] + strange * images
        words = episode_words(self._key, first, count, strange * (1 + images) + queries)
        class_words, image_words, order_words, _ = np.split(
            words, np.cumsum([strange, strange * images, queries]), axis=1
        )
        classes = distinct(class_words, np.full(count, others))
        for taken in np.sort(drawn.classes, axis=1).T:  # skip the classes of the episode
            classes += classes >= taken[:, None]
        within = distinct(image_words.reshape(count * strange, images), self._sizes[classes].reshape(-1))
        found = self._offsets[classes][:, :, None] + within.reshape(count, strange, images)
        query = np.concatenate([drawn.query, found.reshape(count, -1)], axis=1)
        labels = np.concatenate([drawn.query_labels, np.full((count, strange * images), way)], axis=1)
        order = np.argsort(order_words, axis=1, kind="stable")
        return EpisodeIndices(
            classes=drawn.classes,
            support=drawn.support,
            support_labels=drawn.support_labels,
            query=np.take_along_axis(query, order, axis=1),
            query_labels=np.take_along_axis(labels, order, axis=1),
        )
