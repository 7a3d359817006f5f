"""Baseline++: the training on images against plain torch, and the layer of an episode against torch's SGD."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from metabench.api import Classification, Config, Images, Setup, Support
from metabench_plugins.algorithms.classifier import new_layer
from metabench_plugins.algorithms.classifier_cosine import ClassifierCosine, ClassifierCosineConfig
from metabench_plugins.backbones.identity import Identity

CLASSES, FEATURES = 7, 5


def learner(classes: int = CLASSES, **params: Any) -> ClassifierCosine:
    torch.manual_seed(0)
    setup = Setup(Identity(Config(), (FEATURES,)), None, None, 10, train_classes=classes)
    return ClassifierCosine(ClassifierCosineConfig(**params), setup).double()


def features(count: int) -> Tensor:
    return torch.randn(count, FEATURES, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def scores(layer: nn.Module, x: Tensor, scale: float) -> Tensor:
    return scale * F.linear(x / x.norm(dim=1, keepdim=True), layer.weight)  # type: ignore[arg-type]


def test_training_is_that_of_a_plain_cosine_layer_with_weight_norm() -> None:
    params: dict[str, Any] = {"optimiser": "sgd", "lr": 0.5, "momentum": 0.9}
    ours, x, y = learner(**params), features(20), torch.arange(20) % CLASSES
    layer = weight_norm(nn.Linear(FEATURES, CLASSES, bias=False)).double()
    layer.load_state_dict({name.removeprefix("classes.classes."): value for name, value in ours.state_dict().items()})
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.5, momentum=0.9)
    for _ in range(10):
        loss = F.cross_entropy(scores(layer, x, 2.0), y)
        step = ours.train_step(Images(x, y, CLASSES, embedded=True))
        assert step["loss"].item() == pytest.approx(loss.detach().item(), abs=1e-9)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    lengths = layer.weight.detach().norm(dim=1)
    assert float(lengths.max() / lengths.min()) > 1.5, "the length of a class is learnt, too"


@pytest.mark.parametrize("shots", [(3, 3, 3), (1, 4, 2)])
def test_the_layer_of_an_episode_is_that_of_torchs_sgd(shots: tuple[int, ...]) -> None:
    y = torch.arange(3).repeat_interleave(torch.tensor(shots))
    x, query, ours = features(len(y)), features(4), learner(test_lr=0.3)
    torch.manual_seed(5)
    layer_of_ours = ours.adapt(Support(x, y, Classification(3)))
    torch.manual_seed(5)
    layer = nn.Linear(FEATURES, 3, bias=False).double()
    torch.manual_seed(5)
    with torch.no_grad():
        layer.weight.copy_(new_layer(3, x)[:, :-1])
    layer = weight_norm(layer)
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.3, momentum=0.9, dampening=0.9, weight_decay=1e-3)
    for epoch in [torch.randperm(len(y)) for _ in range(100)]:
        for chosen in torch.split(epoch, 4):
            optimiser.zero_grad()
            F.cross_entropy(scores(layer, x[chosen], 2.0), y[chosen]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    torch.testing.assert_close(ours.answer(layer_of_ours, query), scores(layer, query, 2.0).detach(), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("classes", "scale"), [(200, 2.0), (201, 10.0)])
def test_the_scale_is_that_of_the_authors_unless_it_is_given(classes: int, scale: float) -> None:
    made, given = learner(classes).classes, learner(classes, scale=4.0).classes
    assert made is not None
    assert given is not None
    assert (made.scale, given.scale) == (scale, 4.0)
