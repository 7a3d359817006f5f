"""Sample episodes as indices of images; imports no torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]

#: One Philox counter yields four 64-bit words; each episode uses a whole number of counters.
_WORDS_PER_COUNTER = 4


@dataclass(frozen=True)
class EpisodeShape:
    """The size of an episode.

    Attributes:
        way: classes (N).
        shot: support images of each class (K).
        queries: query images of each class.
    """

    way: int
    shot: int
    queries: int

    @property
    def per_class(self) -> int:
        """Return the number of images of each class in an episode."""
        return self.shot + self.queries

    @property
    def images(self) -> int:
        """Return the number of images in an episode."""
        return self.way * self.per_class


@dataclass(frozen=True)
class EpisodeIndices:
    """A batch of B episodes as indices of images.

    Attributes:
        classes: [B, N] the split's class behind each label 0 … N-1.
        support: [B, N·K] indices into the split's images, sorted by class.
        support_labels: [B, N·K] labels 0 … N-1.
        query: [B, M] image indices in random order, so that a query's position says nothing about its label.
        query_labels: [B, M] labels 0 … N-1.
    """

    classes: IntArray
    support: IntArray
    support_labels: IntArray
    query: IntArray
    query_labels: IntArray

    def __getitem__(self, episodes: slice) -> EpisodeIndices:
        """Return a slice of the batch."""
        return EpisodeIndices(*(getattr(self, field.name)[episodes] for field in fields(self)))


def sampler_key(stream: str, shape: EpisodeShape, seed: int) -> str:
    """Return the hash that seeds an `EpisodeSampler`: 32 hexadecimal digits."""
    text = f"{stream}|{shape.way}|{shape.shot}|{shape.queries}|{seed}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class EpisodeSampler:
    """Draws episode i as a pure function of its arguments.

    Episode i does not depend on the episodes drawn before, the batch size, the device or the algorithm: its random
    words come from a counter-based generator (Philox 4x64; Salmon et al. 2011), started at the counter of episode i.

    Args:
        offsets: [classes + 1] image `j` belongs to class `c` when ``offsets[c] <= j < offsets[c + 1]``.
        shape: way, shot and queries of every episode.
        stream: name of the sequence of episodes (split, and names and sizes of its classes).
        seed: seed of the sequence; each pair of stream and seed gives another sequence.

    Raises:
        ValueError: the split has fewer classes than `way`, or a class fewer images than shot + queries.
    """

    def __init__(self, offsets: npt.ArrayLike, shape: EpisodeShape, stream: str, seed: int) -> None:
        self.shape = shape
        self._offsets = np.asarray(offsets, dtype=np.int64)
        self._sizes = np.diff(self._offsets)
        per_class = shape.shot + shape.queries
        if len(self._sizes) < shape.way:
            raise ValueError(f"{shape.way}-way episodes need a split of {shape.way} classes, not {len(self._sizes)}")
        if self._sizes.min() < per_class:
            raise ValueError(
                f"{shape.shot} shots and {shape.queries} queries need {per_class} images of each class, and the "
                f"smallest class has {self._sizes.min()}"
            )
        self._key = int.from_bytes(bytes.fromhex(sampler_key(stream, shape, seed)), "little")
        draws = shape.way * (1 + per_class + shape.queries)
        self._counters = -(-draws // _WORDS_PER_COUNTER)

    def draw(self, first: int, count: int) -> EpisodeIndices:
        """Return episodes `first` … `first + count - 1`."""
        way, shot, queries = self.shape.way, self.shape.shot, self.shape.queries
        words = self._words(first, count)
        class_words, words = np.split(words, [way], axis=1)
        image_words, order_words = np.split(words, [way * (shot + queries)], axis=1)

        classes = _distinct(class_words, np.full(count, len(self._sizes)))
        sizes = self._sizes[classes].reshape(-1)
        within = _distinct(image_words.reshape(count * way, shot + queries), sizes)
        images = self._offsets[classes][:, :, None] + within.reshape(count, way, shot + queries)
        labels = np.broadcast_to(np.arange(way)[:, None], (count, way, shot + queries))

        order = np.argsort(order_words[:, : way * queries], axis=1, kind="stable")
        return EpisodeIndices(
            classes=classes,
            support=images[:, :, :shot].reshape(count, -1),
            support_labels=labels[:, :, :shot].reshape(count, -1),
            query=np.take_along_axis(images[:, :, shot:].reshape(count, -1), order, axis=1),
            query_labels=np.take_along_axis(labels[:, :, shot:].reshape(count, -1), order, axis=1),
        )

    def _words(self, first: int, count: int) -> npt.NDArray[np.uint64]:
        """Return [count, words per episode] random words."""
        bits = np.random.Philox(key=self._key, counter=first * self._counters)
        words = bits.random_raw(count * self._counters * _WORDS_PER_COUNTER)
        return np.asarray(words, dtype=np.uint64).reshape(count, -1)


def _distinct(words: npt.NDArray[np.uint64], limits: IntArray) -> IntArray:
    """Map random words to distinct integers below each row's limit.

    All subsets are equally likely. The k-th number is drawn from ``limit - k`` values and moved past the earlier ones,
    smallest first. The modulo's bias is below limit / 2^64.

    Args:
        words: [R, n] random words.
        limits: [R] exclusive upper bounds, each at least n.

    Returns:
        [R, n] integers, distinct within a row.
    """
    rows, n = words.shape
    chosen = np.empty((rows, n), dtype=np.int64)
    for k in range(n):
        value = (words[:, k] % (limits - k).astype(np.uint64)).astype(np.int64)
        taken = np.sort(chosen[:, :k], axis=1)
        for j in range(k):
            value += value >= taken[:, j]
        chosen[:, k] = value
    return chosen
