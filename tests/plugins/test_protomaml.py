"""Proto-MAML between ProtoNet and MAML."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metabench.api import Backbone, Episode, Episodes
from metabench.engine.asking import predict
from metabench.testing import AlgorithmChecks
from metabench_plugins.algorithms.protomaml import ProtoMAML
from metabench_plugins.algorithms.protonet import ProtoNet, class_means

Make = Callable[..., Any]


class TestProtoMAML(AlgorithmChecks):
    algorithm = "protomaml"


def first(episodes: Episodes) -> Episode:
    return next(iter(episodes))


@pytest.mark.parametrize("norm", ["running", "support"])
def test_without_inner_steps_it_is_a_prototypical_network(make_learner: Make, make_episodes: Make, norm: str) -> None:
    episodes: Episodes = make_episodes(3)
    scores = predict(make_learner(ProtoMAML, norm=norm, test_inner_steps=0), episodes, 0, 0)
    distances = predict(make_learner(ProtoNet, norm=norm), episodes, 0, 0)
    torch.testing.assert_close(scores.log_softmax(-1), distances.log_softmax(-1), rtol=1e-10, atol=1e-10)


def test_the_inner_loop_is_plain_descent_from_the_prototypes(
    make_learner: Make, make_episodes: Make, smooth: Callable[..., Backbone]
) -> None:
    learner = make_learner(ProtoMAML, smooth((1, 16, 16)), inner_lr=0.3, test_inner_steps=3).eval()
    episode = first(make_episodes(1))
    expected = trained_by_sgd(learner.backbone, episode, rate=0.3, steps=3)(episode.query_x)
    with torch.no_grad():
        scores = learner.answer(learner.adapt(episode.support), episode.query_x)
    torch.testing.assert_close(scores, expected, rtol=1e-10, atol=1e-12)


def trained_by_sgd(backbone: nn.Module, episode: Episode, rate: float, steps: int) -> nn.Module:
    """Return a copy with a layer of the prototypes after plain gradient descent on the support set."""
    network = copy.deepcopy(backbone)
    with torch.no_grad():
        prototypes = class_means(network(episode.support.x), episode.support.y, episode.support.way)
    layer = nn.Linear(prototypes.shape[1], prototypes.shape[0]).double()
    layer.weight.data, layer.bias.data = 2 * prototypes, -prototypes.square().sum(dim=1)
    both = nn.Sequential(network, layer)
    optimiser = torch.optim.SGD(both.parameters(), lr=rate)
    for _ in range(steps):
        optimiser.zero_grad()
        F.cross_entropy(both(episode.support.x), episode.support.y).backward()
        optimiser.step()
    return both


def test_the_outer_gradient_is_the_finite_difference_of_the_query_loss(
    make_learner: Make, make_episodes: Make, smooth: Callable[..., Backbone]
) -> None:
    learner = make_learner(ProtoMAML, smooth((1, 16, 16)), inner_lr=0.3, inner_steps=2, first_order=False).train()
    episode, size = first(make_episodes(1)), 1e-6
    learner.episode_loss(episode).backward()
    weight = learner.backbone.linear.weight
    for place in ((0, 0), (1, 7), (3, 100)):
        losses = []
        for step in (size, -2 * size):
            weight.data[place] += step
            losses.append(learner.episode_loss(episode).item())
        weight.data[place] += size
        assert weight.grad[place].item() == pytest.approx((losses[0] - losses[1]) / (2 * size), rel=1e-5, abs=1e-9)


def test_the_outer_gradient_flows_through_the_prototypes(
    make_learner: Make, make_episodes: Make, smooth: Callable[..., Backbone]
) -> None:
    """With a vanishing inner step, first and second order are the gradient of ProtoNet."""
    episode = first(make_episodes(1))
    gradients: list[Tensor] = []
    for algorithm, params in (
        (ProtoMAML, {"first_order": True, "inner_lr": 1e-12}),
        (ProtoMAML, {"first_order": False, "inner_lr": 1e-12}),
        (ProtoNet, {}),
    ):
        learner = make_learner(algorithm, smooth((1, 16, 16)), **params).train()
        if algorithm is ProtoNet:
            support = replace(episode.support, x=learner.backbone(episode.support.x))
            learner.episode_loss(Episode(support, learner.backbone(episode.query_x), episode.query_y)).backward()
        else:
            learner.episode_loss(episode).backward()
        gradients.append(learner.backbone.linear.weight.grad)
    torch.testing.assert_close(gradients[0], gradients[2], rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(gradients[1], gradients[2], rtol=1e-6, atol=1e-8)


def test_second_derivatives_make_a_difference(
    make_learner: Make, make_episodes: Make, smooth: Callable[..., Backbone]
) -> None:
    gradients = []
    for first_order in (False, True):
        learner = make_learner(ProtoMAML, smooth((1, 16, 16)), inner_lr=0.3, first_order=first_order).train()
        learner.episode_loss(first(make_episodes(1))).backward()
        gradients.append(learner.backbone.linear.weight.grad)
    assert (gradients[0] - gradients[1]).abs().max() > 1e-4
