"""ANIL beside MAML, whose backbone moves in the inner loop, too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from metabench.api import Backbone, Classification, Episode, Episodes, Setup, Support, trained_weights
from metabench.testing import AlgorithmChecks, RegressorChecks
from metabench_plugins.algorithms.anil import ANIL
from metabench_plugins.algorithms.maml import MAML, MAMLConfig

Make = Callable[..., Any]
PARAMS = {"inner_lr": 0.4, "inner_steps": 3, "test_inner_steps": 4}


class TestANIL(AlgorithmChecks):
    algorithm = "anil"


class TestRegression(RegressorChecks):
    algorithm = "anil"
    params: dict[str, Any] = {"inner_lr": 0.05}  # noqa: RUF012


def first(episodes: Episodes) -> Episode:
    return next(iter(episodes))


def embedded(learner: Any, images: Episode) -> Episode:
    support = Support(learner.backbone(images.support.x), images.support.y, images.task)
    return Episode(support, learner.backbone(images.query_x), images.query_y)


def pair(make_learner: Make, smooth: Callable[..., Backbone], **params: Any) -> tuple[ANIL, MAML]:
    """Return ANIL and MAML with the same weights; MAML's backbone is frozen, so that its inner loop moves the head."""
    anil = make_learner(ANIL, smooth((1, 16, 16)), **{**PARAMS, **params})
    maml = make_learner(MAML, smooth((1, 16, 16)), **{**PARAMS, **params})
    maml.load_state_dict(anil.state_dict())
    return anil, maml


def test_it_is_maml_whose_backbone_stays_in_the_inner_loop(
    make_learner: Make, make_episodes: Make, smooth: Callable[..., Backbone]
) -> None:
    anil, maml = pair(make_learner, smooth)
    maml.backbone.requires_grad_(False)
    episode = first(make_episodes(1))
    features = embedded(anil, episode)
    answers = anil.eval().answer(anil.adapt(features.support), features.query_x)
    expected = maml.eval().answer(maml.adapt(episode.support), episode.query_x)
    torch.testing.assert_close(answers, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("first_order", [False, True])
def test_the_outer_gradient_of_the_head_is_that_of_maml_with_a_fixed_backbone(
    make_learner: Make, make_episodes: Make, smooth: Callable[..., Backbone], first_order: bool
) -> None:
    anil, maml = pair(make_learner, smooth, first_order=first_order)
    maml.backbone.requires_grad_(False)
    episode = first(make_episodes(1))
    anil.train().episode_loss(embedded(anil, episode)).backward()
    maml.train().episode_loss(episode).backward()
    for name, weight in maml.head.named_parameters():
        torch.testing.assert_close(anil.head.get_parameter(name).grad, weight.grad, rtol=1e-10, atol=1e-14)
    assert all(weight.grad is not None for weight in anil.backbone.parameters())


def test_the_outer_gradient_is_the_finite_difference_of_the_query_loss(
    make_learner: Make, make_episodes: Make, smooth: Callable[..., Backbone]
) -> None:
    anil, _ = pair(make_learner, smooth)
    anil.train()
    episode, size = first(make_episodes(1)), 1e-6
    anil.episode_loss(embedded(anil, episode)).backward()
    for weight in (anil.backbone.linear.weight, anil.head.weight):
        losses = []
        for step in (size, -2 * size):
            weight.data[0, 0] += step
            losses.append(anil.episode_loss(embedded(anil, episode)).item())
        weight.data[0, 0] += size
        slope = (losses[0] - losses[1]) / (2 * size)
        assert float(weight.grad[0, 0]) == pytest.approx(slope, rel=1e-5, abs=1e-9)


def test_without_steps_the_initial_head_answers(flat: Callable[..., Backbone]) -> None:
    learner = ANIL(MAMLConfig(test_inner_steps=0), Setup(flat((1, 2, 2)), 2, 2, 1)).eval()
    support = Support(torch.randn(2, 4), torch.tensor([0, 1]), Classification(2))
    query: Tensor = torch.randn(3, 4)
    with torch.no_grad():
        assert torch.equal(learner.answer(learner.adapt(support), query), learner.head(query))
    assert set(trained_weights(learner)) == {"head.weight", "head.bias"}
