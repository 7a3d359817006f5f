"""Sample episodes as indices of images; imports no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import numpy.typing as npt

from metabench.data.class_choice import ClassSampling, class_choice, distinct
from metabench.text import shape_text

IntArray = npt.NDArray[np.int64]

#: One Philox counter yields four 64-bit words; each episode uses a whole number of counters.
_WORDS_PER_COUNTER = 4

#: Smallest and largest way of Meta-Dataset's episodes, most queries of a class, and most support images in all.
LEAST_WAYS, MOST_WAYS, MOST_QUERIES, MOST_SUPPORT = 5, 50, 10, 500


@dataclass(frozen=True)
class EpisodeShape:
    """The size of an episode.

    Attributes:
        way: classes (N); 1 of a regression, which has none; 0 where each episode draws its way.
        shot: support images of each class (K); 0 where each episode draws them.
        queries: query images of each class; their mean over the classes where the shares differ; 0 where each episode
            draws them.
        dirichlet: parameter α of a Dirichlet distribution from which an episode draws the share of each class in its
            N · `queries` queries (Veilleux et al. 2021, section 5.1); None gives every class the same share.
        file: hash of the file whose episodes these are; None draws them.
        sampling: ``meta-dataset``: the rule by which each episode draws its way, shots and queries
            (`metabench.data.meta_dataset`). Others draw the classes of episodes of one size
            (`metabench.data.class_choice`); None draws them from all classes.
    """

    way: int
    shot: int
    queries: int
    dirichlet: float | None = None
    file: str | None = None
    sampling: Literal["meta-dataset"] | ClassSampling | None = None

    @property
    def identity(self) -> dict[str, int | float | str]:
        """Return the sizes as plain data."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def __str__(self) -> str:
        """Return way and shot as text for people."""
        return shape_text(self.way, self.shot)

    @property
    def per_class(self) -> int:
        """Return the number of images that a class must have to be drawn; 0 for the episodes of a file."""
        if self.sampling == "meta-dataset":
            return 2
        return 0 if self.file is not None else self.shot + self.queries

    @property
    def varies(self) -> bool:
        """Return whether episodes have different sizes."""
        return self.way == 0

    @property
    def least_way(self) -> int:
        """Return the number of classes that a split must have."""
        return LEAST_WAYS if self.sampling == "meta-dataset" else self.way

    @property
    def images(self) -> int:
        """Return the number of images in an episode; that of Meta-Dataset's largest, where it varies."""
        if self.varies:
            return MOST_SUPPORT + MOST_WAYS * MOST_QUERIES
        return self.way * (self.shot + self.queries)


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

    def __getitem__(self, episodes: slice | IntArray) -> EpisodeIndices:
        """Return some episodes of the batch."""
        return EpisodeIndices(*(getattr(self, field.name)[episodes] for field in fields(self)))


def sampler_key(stream: str, shape: EpisodeShape, seed: int) -> str:
    """Return the hash that seeds an `EpisodeSampler`: 32 hexadecimal digits."""
    text = f"{stream}|{shape.way}|{shape.shot}|{shape.queries}|{seed}"
    if shape.dirichlet is not None:
        text += f"|dirichlet {shape.dirichlet}"
    if shape.file is not None:
        text += f"|file {shape.file}"
    if shape.sampling is not None:
        text += f"|{shape.sampling}"
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
        groups: [classes] number of the group of each class, for ``one-of-a-group``; None makes each a group of its own.
        families: [classes] number of the family of each class, for ``one-family``; None makes all one family.

    Raises:
        ValueError: the split has fewer classes than `way` (or groups, or the largest family has), or a class fewer
            images than shot + queries.
    """

    def __init__(
        self,
        offsets: npt.ArrayLike,
        shape: EpisodeShape,
        stream: str,
        seed: int,
        groups: Sequence[int] | None = None,
        families: Sequence[int] | None = None,
    ) -> None:
        self.shape = shape
        self._offsets = np.asarray(offsets, dtype=np.int64)
        self._sizes = np.diff(self._offsets)
        per_class = shape.shot + shape.queries
        if len(self._sizes) < shape.way:
            raise ValueError(f"{shape.way}-way episodes need a split of {shape.way} classes, not {len(self._sizes)}")
        self._choice = class_choice(shape.sampling, shape.way, len(self._sizes), groups, families)
        if self._choice.most < shape.way:
            kind = "groups" if shape.sampling == "one-of-a-group" else "classes of one family"
            raise ValueError(f"{shape.way}-way episodes need {shape.way} {kind}, not {self._choice.most}")
        if self._sizes.min() < per_class:
            raise ValueError(
                f"{shape.shot} shots and {shape.queries} queries need {per_class} images of each class, and the "
                f"smallest class has {self._sizes.min()}"
            )
        self._key = sampler_key(stream, shape, seed)
        # Words of an episode: classes, order of queries, images, the shares of the classes, and more for the classes.
        draws = shape.way * (1 + shape.queries + shape.shot + self._most_queries)
        draws += 0 if shape.dirichlet is None else shape.way
        self._draws = draws + self._choice.further_words

    @property
    def _most_queries(self) -> int:
        """Return the largest number of queries of one class."""
        shape = self.shape
        if shape.dirichlet is None:
            return shape.queries
        return min(shape.way * shape.queries, int(self._sizes.max()) - shape.shot)

    def draw(self, first: int, count: int) -> EpisodeIndices:
        """Return episodes `first` … `first + count - 1`."""
        way, shot, queries, most = self.shape.way, self.shape.shot, self.shape.queries, self._most_queries
        words = self._words(first, count)
        of_shares = 0 if self.shape.dirichlet is None else way
        class_words, image_words, order_words, share_words, further_words = np.split(
            words, np.cumsum([way, way * (shot + most), way * queries, of_shares]), axis=1
        )
        classes = self._choice(class_words, further_words[:, : self._choice.further_words])
        sizes = self._sizes[classes]
        within = distinct(image_words.reshape(count * way, shot + most), sizes.reshape(-1))
        images = self._offsets[classes][:, :, None] + within.reshape(count, way, shot + most)
        labels = np.broadcast_to(np.arange(way)[:, None], (count, way, shot + most))
        asked = np.full((count, way), queries)
        if self.shape.dirichlet is not None:
            shares = dirichlet_shares(share_words, self.shape.dirichlet)
            asked = counts_of_shares(shares, way * queries, sizes - shot)
        # The first images of a class are its support images, the next its queries; every episode has way · queries.
        is_query = np.arange(most) < asked[:, :, None]

        def of_queries(values: IntArray) -> IntArray:
            return values[:, :, shot:][is_query].reshape(count, way * queries)

        order = np.argsort(order_words, axis=1, kind="stable")
        return EpisodeIndices(
            classes=classes,
            support=images[:, :, :shot].reshape(count, -1),
            support_labels=labels[:, :, :shot].reshape(count, -1),
            query=np.take_along_axis(of_queries(images), order, axis=1),
            query_labels=np.take_along_axis(of_queries(labels), order, axis=1),
        )

    def _words(self, first: int, count: int) -> npt.NDArray[np.uint64]:
        """Return [count, words per episode] random words."""
        return episode_words(self._key, first, count, self._draws)


def episode_words(key: str, first: int, count: int, draws: int) -> npt.NDArray[np.uint64]:
    """Return random words of episodes, those of each a function of the key and its number.

    Args:
        key: 32 hexadecimal digits, e.g. a `sampler_key`.
        first: number of the first episode.
        count: number of episodes.
        draws: number of words that an episode needs; a few more are returned.

    Returns:
        [count, draws or more] words.
    """
    counters = -(-draws // _WORDS_PER_COUNTER)
    number = int.from_bytes(bytes.fromhex(key), "little")
    words = np.random.Philox(key=number, counter=first * counters).random_raw(count * counters * _WORDS_PER_COUNTER)
    return np.asarray(words, dtype=np.uint64).reshape(count, -1)


def dirichlet_shares(words: npt.NDArray[np.uint64], alpha: float) -> npt.NDArray[np.float64]:
    """Map random words to shares with a symmetric Dirichlet distribution.

    Args:
        words: [B, N] random words.
        alpha: its parameter α.

    Returns:
        [B, N] shares, which sum to 1 in each row.
    """
    from scipy.special import gammaincinv

    uniform = ((words >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53
    # Gamma variables, divided by their sum; the smallest α may give no number above 0.
    gamma = np.maximum(gammaincinv(alpha, uniform), np.finfo(np.float64).tiny)
    shares: npt.NDArray[np.float64] = gamma / gamma.sum(axis=1, keepdims=True)
    return shares


def counts_of_shares(shares: npt.NDArray[np.float64], total: int, limits: IntArray) -> IntArray:
    """Round shares of a total to counts.

    A share above its limit is cut to it, and the rest given to the others in proportion; what rounding down leaves is
    given to the largest remainders.

    Args:
        shares: [B, N] positive shares, which sum to 1 in each row.
        total: the sum of the counts of each row, at most the sum of its limits.
        limits: [B, N] largest counts.

    Returns:
        [B, N] counts.
    """
    wanted = np.minimum(shares * total, limits)
    for _ in range(shares.shape[1]):  # each pass fills at least one class to its limit, or ends
        open_shares = np.where(wanted < limits, shares, 0.0)
        missing = total - wanted.sum(axis=1, keepdims=True)
        sums = open_shares.sum(axis=1, keepdims=True)
        wanted = np.minimum(
            wanted + np.divide(missing * open_shares, sums, out=np.zeros_like(shares), where=sums > 0), limits
        )
    counts = np.floor(wanted + 1e-9).astype(np.int64)
    remainders = np.where(counts < limits, wanted - counts, -1.0)
    places = np.argsort(np.argsort(-remainders, axis=1, kind="stable"), axis=1, kind="stable")
    counts += places < (total - counts.sum(axis=1, keepdims=True))
    return counts
