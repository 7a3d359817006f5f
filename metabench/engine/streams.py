"""Streams of episodes as tensors on the device."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from metabench.api import Classification, Episodes, SourceSplit, Split, Task
from metabench.data.episodes_files import NamedEpisode, read_episodes_file
from metabench.data.fixed_episodes import FixedEpisodes
from metabench.data.meta_dataset import MetaDatasetSampler
from metabench.data.order import Order
from metabench.data.sampler import MOST_WAYS, EpisodeIndices, EpisodeSampler, EpisodeShape, IntArray, sampler_key
from metabench.data.strangers import Strangers
from metabench.engine.augmentation import Augmentation
from metabench.engine.corruptions import Corruption
from metabench.engine.features import FEATURES_AT_ONCE, FeatureRows
from metabench.engine.scaling import Scale
from metabench.engine.sources import SourceStream
from metabench.errors import CellFailed
from metabench.planning.cells import Cell, Training

#: Number of episodes drawn ahead.
_AHEAD = 256


class Stream(Protocol):
    """Episodes by number, as tensors on one device: `EpisodeStream` of a split, `SourceStream` of a source."""

    @property
    def task(self) -> Task:
        """Return the task of every episode."""

    @property
    def images(self) -> Stream:
        """Return the same episodes as images, where they are features."""

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Return (C, H, W) of the images, or (D,) of vectors."""

    @property
    def at_once(self) -> int | None:
        """Return the number of episodes to compute at once; None where the device decides."""

    @property
    def varies(self) -> bool:
        """Return whether episodes have different sizes, so that a batch has one."""

    def batch(self, first: int, count: int) -> Episodes:
        """Return the episodes `first` … `first + count - 1`."""

    def chances(self, first: int, count: int) -> npt.NDArray[np.float64]:
        """Return the [count] accuracies of guessing; 1 without classes."""

    def classes(self, first: int, count: int) -> IntArray:
        """Return the [count, N] classes of the split behind the labels 0 … N-1; [count, 0] without, or if they vary."""

    def groups(self, first: int, count: int) -> IntArray:
        """Return the [count, N] groups of `classes` (`metabench.api.Split.groups`)."""


class EpisodeStream:
    """The episodes of one split, as tensors on one device.

    Classes with too few images for the shape are not drawn.

    The sampler gives indices; one gather on the device gives their images. The episodes depend on names and sizes of
    the classes, never on where the data lie, what a suite calls them, or the order of classes and named images.

    Args:
        split: the split; its images may be elsewhere than on the device.
        shape: way, shot and queries of the episodes.
        stream: name of the split.
        seed: seed of the sequence.
        device: the device of the tensors.
        augmentation: distorts the images of a batch, with draws seeded by its first episode; none by default.
        named: the episodes of a file, which are not drawn; None draws them.

    Raises:
        DataError: an episode of the file names a class or an image that the split has not.
        ValueError: the split is too small for the shape.
    """

    def __init__(
        self,
        split: Split,
        shape: EpisodeShape,
        stream: str,
        seed: int,
        device: torch.device,
        augmentation: Augmentation | None = None,
        named: Sequence[NamedEpisode] | None = None,
    ) -> None:
        self._split, self._order, self._named = split, Order.of(split, shape.per_class), named
        self._sampler = self._sampler_of(split, shape, stream, seed)
        self._device = device
        self._features = split.rows if isinstance(split.rows, FeatureRows) else None
        self._rows = self._features.embedded().to(device) if self._features is not None else split.rows
        self._shape, self._name, self._seed = shape, stream, seed
        self._scale = Scale(split, device)
        self._augmentation = augmentation or Augmentation([], seed)
        self._corruption: Corruption | None = None
        self._strangers: Strangers | None = None
        self.varies = shape.varies
        self.task: Task = Classification(shape.way or MOST_WAYS)
        self._groups = (
            np.asarray(split.groups) if split.groups is not None else self._own_groups(len(split.class_names))
        )
        self._ahead: EpisodeIndices | None = None
        self._ahead_from = 0

    def batch(self, first: int, count: int) -> Episodes:
        """Return the episodes `first` … `first + count - 1`."""
        indices = self.indices(first, count)
        task = Classification(indices.classes.shape[1]) if self.varies else self.task
        support_x, query_x = self._images(torch.from_numpy(indices.support), torch.from_numpy(indices.query), first)
        return Episodes(
            support_x=support_x,
            support_y=torch.from_numpy(indices.support_labels.copy()).to(self._device),
            query_x=query_x,
            query_y=torch.from_numpy(indices.query_labels).to(self._device),
            task=task,
            embedded=self._features is not None,
        )

    def indices(self, first: int, count: int) -> EpisodeIndices:
        """Return episodes as indices of the split's classes and images, in the order of their tensors."""
        # Drawn ahead, because many episodes cost little more than one.
        start = first - self._ahead_from
        if self._ahead is None or start < 0 or start + count > len(self._ahead.classes):
            drawn = self._sampler.draw(first, 1 if self.varies else max(count, _AHEAD))
            drawn = drawn if self._strangers is None else self._strangers.added(drawn, first)
            self._ahead_from, start = first, 0
            self._ahead = replace(
                drawn,
                classes=self._order.classes[drawn.classes],
                support=self._order.images[drawn.support],
                query=self._order.images[drawn.query],
            )
        return self._ahead[start : start + count]

    @property
    def images(self) -> EpisodeStream:
        """Return the same episodes as images."""
        if self._features is None:
            return self
        return EpisodeStream(
            self._features.images, self._shape, self._name, self._seed, self._device, named=self._named
        )

    def corrupted(self, corruption: Corruption) -> EpisodeStream:
        """Return the same episodes as images, with corrupted queries.

        Raises:
            CellFailed: the data are no images.
        """
        if len(self.image_shape) == 1:
            raise CellFailed("the data are vectors, and images can be corrupted only")
        stream = copy.copy(self.images)
        stream._corruption = corruption
        return stream

    def with_strangers(self, classes: int) -> EpisodeStream:
        """Return the same episodes, with queries of other classes among the others: they have the label N.

        Args:
            classes: number of other classes, of which there are as many queries as of each of the episode.

        Raises:
            CellFailed: a class has too few images.
        """
        stream = copy.copy(self)
        key = sampler_key(f"{self._order.stream(self._name, self._shape)}|{classes} strangers", self._shape, self._seed)
        stream._strangers = Strangers(self._order.offsets, classes, self._shape.queries, key)
        stream._ahead = None
        return stream

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Return (C, H, W) of the images, or (D,) of vectors."""
        return self._rows.shape if self._features is None else self._features.images.rows.shape

    @property
    def at_once(self) -> int | None:
        """Return the number of episodes to compute at once; None where the device decides."""
        if self.varies:
            return 1
        return FEATURES_AT_ONCE if self._features is not None and self._device.type == "cpu" else None

    def chances(self, first: int, count: int) -> npt.NDArray[np.float64]:
        """Return the [count] accuracies of guessing."""
        if isinstance(self._sampler, EpisodeSampler):
            return np.full(count, 1 / self._shape.way)
        return self._sampler.chances(first, count)

    def classes(self, first: int, count: int) -> IntArray:
        """Return the [count, N] classes of the split behind the labels 0 … N-1; [count, 0] where they vary."""
        return np.empty((count, 0), np.int64) if self.varies else self.indices(first, count).classes

    def groups(self, first: int, count: int) -> IntArray:
        """Return the [count, N] groups of `classes` (`metabench.api.Split.groups`)."""
        return self._groups[self.classes(first, count)]

    def _sampler_of(
        self, split: Split, shape: EpisodeShape, stream: str, seed: int
    ) -> EpisodeSampler | FixedEpisodes | MetaDatasetSampler:
        """Return what gives the indices of the sorted classes and images of an episode."""
        key = self._order.stream(stream, shape)
        if self._named is not None:
            return FixedEpisodes(self._named, split, self._order, sampler_key(key, shape, seed))
        order = self._order
        if shape.sampling == "meta-dataset":
            return MetaDatasetSampler(order.offsets, shape, key, seed, order.families, order.nodes)
        return EpisodeSampler(order.offsets, shape, key, seed, order.groups, order.families)

    def _own_groups(self, classes: int) -> IntArray:
        """Return a group for each class, numbered in sorted order; that of a class that is not drawn is of no use."""
        groups = np.zeros(classes, dtype=np.int64)
        groups[self._order.classes] = np.arange(len(self._order.classes))
        return groups

    def _images(self, support: Tensor, query: Tensor, first: int) -> tuple[Tensor, Tensor]:
        """Return support images and queries at [B, S] and [B, M] indices, in training distorted."""
        corruption, episodes = self._corruption, len(query)
        if corruption is not None:
            return self._gather(support), self._gather(query, lambda images: corruption(images, first, episodes))
        if not self._augmentation:
            return self._gather(support), self._gather(query)
        # Together, because a distortion draws once a step.
        images = self._gather(torch.cat([support, query], dim=1), lambda images: self._augmentation(images, first))
        support_x, query_x = torch.split(images, [support.shape[1], query.shape[1]], dim=1)
        return support_x.contiguous(), query_x.contiguous()

    def _gather(self, indices: Tensor, distort: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Return the normalised [B, n, C, H, W] images at [B, n] indices, or the [B, n, D] vectors as they are."""
        rows = self._scale(self._rows.take(indices.flatten()).to(self._device), distort)
        return rows.reshape(indices.shape + rows.shape[1:])


def stream_of(
    split: Split | SourceSplit,
    shape: EpisodeShape,
    name: str,
    seed: int,
    device: torch.device,
    augmentation: Augmentation | None = None,
    named: Sequence[NamedEpisode] | None = None,
) -> Stream:
    """Return the episodes of a split; arguments and errors as of `EpisodeStream`."""
    if isinstance(split, SourceSplit):
        return SourceStream(split, shape, seed, device)
    return EpisodeStream(split, shape, name, seed, device, augmentation, named)


def training_stream(training: Training, splits: Mapping[str, Split | SourceSplit], device: torch.device) -> Stream:
    """Return the episodes of a training, which has a schedule of episodes."""
    schedule = training.schedule
    assert schedule is not None, "a training has a schedule"
    assert schedule.shape is not None, "training episodes have a shape"
    augmentation = Augmentation(schedule.augment, training.seed)
    return stream_of(splits["train"], schedule.shape, "train", training.seed, device, augmentation)


def validation_stream(
    seed: int, splits: Mapping[str, Split | SourceSplit], shape: EpisodeShape, device: torch.device
) -> Stream:
    """Return the validation episodes of a test shape."""
    return stream_of(splits["val"], shape, "val", seed, device)


def evaluation_stream(cell: Cell, splits: Mapping[str, Split | SourceSplit], device: torch.device) -> Stream:
    """Return the test episodes of a cell.

    They do not depend on the algorithm, the backbone or the training seed.

    Raises:
        DataError: the file of the episodes has changed, or does not fit the data.
    """
    file = cell.test.file
    named = read_episodes_file(file.path, file.sha256)[1] if file else None
    return stream_of(splits["test"], cell.shape, "test", cell.test.seed, device, named=named)
