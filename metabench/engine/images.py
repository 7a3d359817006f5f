"""Batches of labelled images: to train on, and to prepare an algorithm for its tests."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from metabench.api import Algorithm, Images, SourceSplit, Split, Unfit
from metabench.data.order import Order
from metabench.data.permutations import Permutations
from metabench.engine.augmentation import Augmentation
from metabench.engine.features import FeatureRows, images_at_once
from metabench.engine.progress import Interrupted, Watcher
from metabench.engine.scaling import Scale
from metabench.machine.reproducible import derive_seed, seed_generators


def images_of(train: Split | SourceSplit) -> Split:
    """Return a training split of images.

    Raises:
        Unfit: the split is a source of episodes.
    """
    if isinstance(train, SourceSplit):
        raise Unfit("it trains on images, and this dataset is a source of episodes")
    return train


def train_classes(split: Split) -> int:
    """Return the number of labels of `ImageBatches`: the classes that have images."""
    return int((split.offsets.diff() > 0).sum())


class ImageBatches:
    """Batches of a split's images with the numbers of their classes, sorted by name, as labels.

    A batch is a function of seed and step, whatever the order in which classes and named images lie.

    Args:
        split: the training split; its images may be elsewhere than on the device.
        size: images of a batch.
        seed: the training seed.
        device: the device of the tensors.
        augmentation: distorts the images of a step; none by default.
    """

    def __init__(
        self, split: Split, size: int, seed: int, device: torch.device, augmentation: Augmentation | None = None
    ) -> None:
        self._order = Order.of(split, least=1)
        self._permutations = Permutations(len(self._order.images), self._order.stream("train"), seed)
        self._labels = np.repeat(np.arange(len(self._order.classes)), np.diff(self._order.offsets))
        self._embedded = isinstance(split.rows, FeatureRows)
        self._rows = (split.rows.embedded() if isinstance(split.rows, FeatureRows) else split.rows).to(device)
        self._size, self._device = size, device
        self._scale = Scale(split, device)
        self._augmentation = augmentation or Augmentation([], seed)

    def step(self, number: int) -> Images:
        """Return the images of a step."""
        chosen = self._permutations.batch(number, self._size)
        rows = self._rows.take(torch.from_numpy(self._order.images[chosen])).to(self._device)
        labels = torch.from_numpy(self._labels[chosen]).to(self._device)
        x = self._scale(rows, lambda images: self._augmentation(images, number))
        return Images(x, labels, len(self._order.classes), self._embedded)


def prepare(
    algorithm: Algorithm, split: Split | SourceSplit, seed: int, device: torch.device, watcher: Watcher
) -> None:
    """Show an algorithm that has a `prepare` the training split once, undistorted and in order.

    Args:
        algorithm: the algorithm, with the weights that are tested.
        split: the training split, of images or of features.
        seed: seed of the algorithm's random draws.
        device: the device of the tensors.
        watcher: sees the progress, and may ask to stop.

    Raises:
        Interrupted: the watcher asked to stop.
        Unfit: the algorithm has a `prepare`, and the split no images.
    """
    if type(algorithm).prepare is Algorithm.prepare:
        return
    algorithm.eval()
    seed_generators(derive_seed(seed, "prepare"))
    with torch.no_grad():
        algorithm.prepare(_in_order(algorithm, images_of(split), device, watcher))


def _in_order(algorithm: Algorithm, split: Split, device: torch.device, watcher: Watcher) -> Iterator[Images]:
    """Yield all images of a split, class by class; features for an algorithm that reads them."""
    order, rows, scale = Order.of(split, least=1), split.rows, Scale(split, device)
    labels = torch.from_numpy(np.repeat(np.arange(len(order.classes)), np.diff(order.offsets)))
    embedded = isinstance(rows, FeatureRows)
    shape = rows.images.rows.shape if isinstance(rows, FeatureRows) else rows.shape
    watcher.phase("prepare", len(labels))
    done = 0
    for part in torch.split(torch.arange(len(labels)), images_at_once(shape, device)):
        x: Tensor = scale(rows.take(torch.from_numpy(order.images)[part]).to(device))
        if algorithm.reads == "features" and not embedded:
            x = algorithm.backbone(x)
        done += len(part)
        yield Images(x, labels[part].to(device), len(order.classes), embedded or algorithm.reads == "features")
        watcher.advance(done)
        if watcher.should_stop():
            raise Interrupted
