"""The outer updates of a training: how many, and the batch of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from metabench.api import Episodes, Images, SourceSplit, Split, Unfit
from metabench.data.permutations import steps_an_epoch
from metabench.engine.augmentation import Augmentation
from metabench.engine.images import ImageBatches, images_of
from metabench.engine.streams import training_stream
from metabench.planning.cells import Schedule, Training


def steps_of(schedule: Schedule, train: Split | SourceSplit) -> int:
    """Return the number of outer updates of a schedule on a training split.

    Raises:
        Unfit: the split has no images.
    """
    if schedule.steps is not None:
        return schedule.steps
    assert schedule.epochs is not None, "a schedule has steps or epochs"
    return schedule.epochs * steps_an_epoch(len(images_of(train).rows), schedule.batch)


def training_batches(
    training: Training, splits: Mapping[str, Split | SourceSplit], device: torch.device
) -> Callable[[int], Episodes | Images]:
    """Return a function of the number of an outer update, which returns its batch.

    Raises:
        Unfit: the suite distorts images, and the dataset has vectors.
    """
    schedule = training.schedule
    assert schedule is not None, "a training has a schedule"
    train = splits["train"]
    if schedule.augment and (isinstance(train, SourceSplit) or train.rows.dtype != torch.uint8):
        raise Unfit("train.augment distorts images, and the dataset has vectors")
    augmentation = Augmentation(schedule.augment, training.seed)
    if schedule.shape is None:
        return ImageBatches(images_of(train), schedule.batch, training.seed, device, augmentation).step
    stream, count = training_stream(training, splits, device), schedule.batch
    return lambda step: stream.batch(step * count, count)
