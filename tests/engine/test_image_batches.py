"""Batches of images, and distorted episodes, as tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from frozen import Projected
from metabench.api import Episodes, Split, Unfit
from metabench.data.packing import LoadedDataset
from metabench.engine.augmentation import Augmentation
from metabench.engine.features import FeatureRows, FeatureStore
from metabench.engine.images import ImageBatches
from metabench.engine.steps import steps_of, training_batches
from metabench.engine.streams import validation_stream
from metabench.planning.cells import Cell
from metabench.planning.distortions import Distortion
from tiny import CPU, SUITE

Plan = Callable[..., tuple[Any, list[Cell]]]

AUGMENT = "augment: [{{crop: {{padding: 3}}}}, {{flip: {{}}}}]"


@pytest.fixture
def train(data: LoadedDataset) -> Split:
    return replace(data.splits["train"], mean=(0.5,), std=(0.25,))


def test_a_batch_holds_normalised_images_with_the_labels_of_their_classes(train: Split) -> None:
    images = ImageBatches(train, 48, 0, CPU).step(2)
    assert images.classes == 6
    assert images.y.bincount().tolist() == [8] * 6
    expected = (train.rows.take(torch.arange(48)).float() / 255 - 0.5) / 0.25
    found = {tuple(x.flatten().tolist()): int(y) for x, y in zip(images.x, images.y, strict=True)}
    assert found == {tuple(x.flatten().tolist()): i // 8 for i, x in enumerate(expected)}


def test_features_of_a_frozen_backbone_have_the_batches_of_their_images(train: Split) -> None:
    backbone = Projected(None, (1, 16, 16)).eval()
    features = replace(train, images=FeatureRows(train, "train", backbone, FeatureStore(None, ""), CPU))
    from_images, embedded = (ImageBatches(split, 10, 1, CPU).step(5) for split in (train, features))
    assert (from_images.embedded, embedded.embedded) == (False, True)
    torch.testing.assert_close(embedded.x, backbone(from_images.x), rtol=1e-5, atol=1e-5)
    assert torch.equal(embedded.y, from_images.y)


def test_classes_without_images_have_no_label() -> None:
    images = torch.arange(4, dtype=torch.uint8).reshape(4, 1, 1, 1)
    split = Split(images, torch.tensor([0, 2, 2, 4]), ["a", "b", "c"])
    drawn = ImageBatches(split, 4, 0, CPU).step(0)
    assert drawn.classes == 2
    assert sorted(drawn.y.tolist()) == [0, 0, 1, 1]


def test_images_are_distorted_before_they_are_normalised(train: Split) -> None:
    black = replace(train, images=torch.zeros_like(train.rows.take(torch.arange(48))))
    augmentation = Augmentation([Distortion.model_validate({"crop": {"padding": 3}})], 0)
    images = ImageBatches(black, 16, 0, CPU, augmentation).step(0)
    assert torch.equal(images.x, torch.full_like(images.x, -2.0))  # (0 - .5) / .25: black moves in, not grey


def distorted(cells_of: Plan, algorithm: str = "relative", augment: str = AUGMENT) -> Cell:
    _, (cell,) = cells_of(algorithm, text=SUITE.replace("steps: 8", f"{augment}, steps: 8"))
    return cell


def test_support_and_query_images_of_training_episodes_are_distorted(cells_of: Plan, data: LoadedDataset) -> None:
    cell, plain = distorted(cells_of), distorted(cells_of, augment="augment: []")
    one, again, other = (training_batches(cell.training, data.splits, CPU) for _ in range(3))
    undistorted = training_batches(plain.training, data.splits, CPU)
    other(0)  # an earlier batch changes nothing
    for step in (1, 4):
        first, same, late, original = one(step), again(step), other(step), undistorted(step)
        assert isinstance(first, Episodes)
        assert isinstance(same, Episodes)
        assert isinstance(late, Episodes)
        assert isinstance(original, Episodes)
        for name in ("support_x", "query_x"):
            x: Tensor = getattr(first, name)
            assert torch.equal(x, getattr(same, name))
            assert torch.equal(x, getattr(late, name))
            moved = (x != getattr(original, name)).flatten(2).any(dim=2)
            assert float(moved.double().mean()) > 0.9
        assert torch.equal(first.query_y, original.query_y)


def test_validation_episodes_are_not_distorted(cells_of: Plan, data: LoadedDataset) -> None:
    cell, plain = distorted(cells_of), distorted(cells_of, augment="augment: []")
    episodes = []
    for one in (cell, plain):
        assert one.training.schedule is not None
        episodes.append(validation_stream(one.training.schedule, data.splits, one.shape, CPU).batch(0, 3))
    assert torch.equal(episodes[0].query_x, episodes[1].query_x)


def test_vectors_cannot_be_distorted(cells_of: Plan, data: LoadedDataset) -> None:
    vectors = {name: replace(split, images=torch.rand(48, 5)) for name, split in data.splits.items()}
    with pytest.raises(Unfit, match=r"train\.augment distorts images, and the dataset has vectors"):
        training_batches(distorted(cells_of).training, vectors, CPU)


def test_epochs_make_steps_of_whole_batches(cells_of: Plan, data: LoadedDataset) -> None:
    schedule = distorted(cells_of).training.schedule
    assert schedule is not None
    train = data.splits["train"]
    assert steps_of(schedule, train) == 8
    for batch, steps in ((10, 12), (16, 9), (48, 3), (64, 3)):
        assert steps_of(replace(schedule, steps=None, epochs=3, shape=None, batch=batch), train) == steps
