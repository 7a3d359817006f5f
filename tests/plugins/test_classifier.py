"""Baseline: the training on images against plain torch, and the layer of an episode against torch's SGD."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR

from metabench.api import Classification, Images, Setup, Split, Support
from metabench.engine.images import ImageBatches
from metabench_plugins.algorithms.classifier import Classifier, ClassifierConfig, new_layer
from metabench_plugins.backbones.conv4 import Conv4, Conv4Config

CLASSES, STEPS, CPU = 7, 20, torch.device("cpu")


def batches() -> ImageBatches:
    """Return batches of seven classes of ten noisy 16×16 images."""
    generator = torch.Generator().manual_seed(0)
    patterns = torch.rand(CLASSES, 1, 1, 16, 16, generator=generator)
    images = (patterns + torch.rand(CLASSES, 10, 1, 16, 16, generator=generator)) * 127
    names = [f"class {i}" for i in range(CLASSES)]
    split = Split(images.to(torch.uint8).flatten(0, 1), torch.arange(CLASSES + 1) * 10, names)
    return ImageBatches(split, 16, 3, CPU)


def classifier(**params: Any) -> Classifier:
    torch.manual_seed(0)
    backbone = Conv4(Conv4Config(channels=4, norm="running"), (1, 16, 16))
    config = ClassifierConfig(**params)
    return Classifier(config, Setup(backbone, None, None, STEPS, train_classes=CLASSES)).double()


def test_training_is_that_of_a_plain_torch_loop() -> None:
    params = {"optimiser": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4, "schedule": "cosine"}
    ours, plain, drawn = classifier(**params), classifier(**params), batches()
    losses = []
    for step in range(STEPS):
        images = drawn.step(step)
        losses.append(ours.train_step(Images(images.x.double(), images.y, images.classes))["loss"].item())
    network = nn.Sequential(plain.backbone, plain.classes).train()  # type: ignore[arg-type]
    optimiser = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    schedule = CosineAnnealingLR(optimiser, STEPS)
    for step in range(STEPS):
        images = drawn.step(step)
        loss = F.cross_entropy(network(images.x.double()), images.y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        assert losses[step] == pytest.approx(loss.item(), abs=1e-9)
    assert losses[-1] < 0.7 * losses[0]
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=0, atol=1e-9, msg=name)


def support(shot: int = 3, way: int = 3, features: int = 5) -> Support:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(way * shot, features, generator=generator, dtype=torch.float64)
    return Support(x, torch.arange(way).repeat_interleave(shot), Classification(way))


def test_the_layer_of_an_episode_is_that_of_torchs_sgd() -> None:
    """As in the authors' code: SGD with dampening, and an incomplete batch at the end of an epoch."""
    episode, learner = support(), classifier()
    torch.manual_seed(5)
    adapted = learner.adapt(episode)
    layer = nn.Linear(5, 3).double()
    torch.manual_seed(5)
    weight = new_layer(3, episode.x)
    with torch.no_grad():
        layer.weight.copy_(weight[:, :-1])
        layer.bias.copy_(weight[:, -1])
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.01, momentum=0.9, dampening=0.9, weight_decay=1e-3)
    for epoch in [torch.randperm(9) for _ in range(100)]:
        for start in range(0, 9, 4):
            chosen = epoch[start : start + 4]
            optimiser.zero_grad()
            F.cross_entropy(layer(episode.x[chosen]), episode.y[chosen]).backward()
            optimiser.step()
    torch.testing.assert_close(adapted.weight[:, :-1], layer.weight.detach(), rtol=0, atol=1e-9)
    torch.testing.assert_close(adapted.weight[:, -1], layer.bias.detach(), rtol=0, atol=1e-9)
    query = torch.randn(4, 5, dtype=torch.float64)
    torch.testing.assert_close(learner.answer(adapted, query), layer(query).detach(), rtol=0, atol=1e-9)


def test_a_new_layer_is_drawn_as_torchs() -> None:
    torch.manual_seed(0)
    drawn, torchs = new_layer(400, torch.zeros(1, 16)), nn.Linear(16, 400)
    for ours, theirs in ((drawn[:, :-1], torchs.weight.detach()), (drawn[:, -1:], torchs.bias.detach())):
        assert float(ours.abs().max()) <= 0.25
        assert float(ours.std()) == pytest.approx(float(theirs.std()), rel=0.1)


@pytest.mark.parametrize("shot", [1, 5])
def test_separable_support_images_are_learnt(shot: int) -> None:
    episode = support(shot)
    x = F.one_hot(episode.y, 5).double() * 10
    state = classifier().adapt(Support(x, episode.y, episode.task))
    assert torch.equal(classifier().answer(state, x).argmax(dim=1), episode.y)


def test_test_time_parameters_are_read_at_the_test() -> None:
    learner = classifier(test_epochs=0)
    torch.manual_seed(0)
    untrained = learner.adapt(support())
    torch.manual_seed(0)
    assert torch.equal(untrained.weight, new_layer(3, support().x))


def test_nothing_of_the_training_classes_is_kept_where_nothing_is_trained() -> None:
    backbone = Conv4(Conv4Config(channels=4), (1, 16, 16))
    learner = Classifier(ClassifierConfig(), Setup(backbone, None, None, 0, train_classes=CLASSES))
    assert {name.split(".")[0] for name in learner.state_dict()} == {"backbone"}


def test_labels_are_those_of_sorted_names_whatever_the_order_of_classes() -> None:
    images = torch.arange(6, dtype=torch.uint8).reshape(6, 1, 1, 1).repeat(1, 1, 4, 4)
    forwards = Split(images, torch.tensor([0, 2, 3, 6]), ["a", "b", "c"])
    backwards = Split(images[[3, 4, 5, 2, 0, 1]], torch.tensor([0, 3, 4, 6]), ["c", "b", "a"])
    for step in range(6):
        one, other = (ImageBatches(split, 2, 0, CPU).step(step) for split in (forwards, backwards))
        assert torch.equal(one.x, other.x)
        assert torch.equal(one.y, other.y)
        expected: list[int] = [[0, 0, 1, 2, 2, 2][i] for i in (one.x[:, 0, 0, 0] * 255).round().long().tolist()]
        assert one.y.tolist() == expected
        assert one.classes == 3
