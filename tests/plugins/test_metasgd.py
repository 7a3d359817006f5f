"""Meta-SGD beside MAML, whose step size is one number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from metabench.api import Backbone, Episode, Episodes
from metabench.engine.asking import predict
from metabench.testing import AlgorithmChecks, RegressorChecks
from metabench_plugins.algorithms.maml import MAML
from metabench_plugins.algorithms.metasgd import MetaSGD, MetaSGDConfig

Make = Callable[..., Any]
ALPHA = 0.4
EQUAL = {"lowest_rate": ALPHA, "highest_rate": ALPHA}


class TestMetaSGD(AlgorithmChecks):
    algorithm = "metasgd"


class TestRegression(RegressorChecks):
    algorithm = "metasgd"


def first(episodes: Episodes) -> Episode:
    return next(iter(episodes))


def pair(make_learner: Make, first_order: bool = False, **kwargs: Any) -> tuple[MetaSGD, MAML]:
    """Return Meta-SGD with equal rates, and MAML with the same weights and rate."""
    params = {"inner_steps": 2, "test_inner_steps": 3, "first_order": first_order}
    sgd = make_learner(MetaSGD, **EQUAL, **params, **kwargs)
    maml = make_learner(MAML, inner_lr=ALPHA, **params, **kwargs)
    maml.load_state_dict({name: value for name, value in sgd.state_dict().items() if not name.startswith("rates.")})
    return sgd, maml


@pytest.mark.parametrize("norm", ["running", "batch", "support"])
def test_with_equal_rates_it_predicts_as_maml(make_learner: Make, make_episodes: Make, norm: str) -> None:
    sgd, maml = pair(make_learner, norm=norm)
    episodes = make_episodes(2)
    torch.testing.assert_close(predict(sgd, episodes, 0, 0), predict(maml, episodes, 0, 0), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("first_order", [False, True])
def test_with_equal_rates_the_gradient_of_the_weights_is_that_of_maml(
    make_learner: Make, make_episodes: Make, first_order: bool
) -> None:
    sgd, maml = pair(make_learner, first_order, norm="batch")
    for learner in (sgd, maml):
        learner.train().episode_loss(first(make_episodes(1))).backward()
    for name, weight in maml.named_parameters():
        torch.testing.assert_close(sgd.get_parameter(name).grad, weight.grad, rtol=1e-6, atol=1e-7)


def test_the_gradient_of_a_rate_is_the_finite_difference_of_the_query_loss(
    make_learner: Make, make_episodes: Make, smooth: Callable[..., Backbone]
) -> None:
    learner = make_learner(MetaSGD, smooth((1, 16, 16)), highest_rate=0.9, inner_steps=2).train()
    episode, size = first(make_episodes(1)), 1e-6
    learner.episode_loss(episode).backward()
    rates: list[Tensor] = list(learner.rates)
    assert [rate.shape for rate in rates] == [
        weight.shape for weight in [*learner.backbone.parameters(), *learner.head.parameters()]
    ]
    for rate in rates:
        place = (0,) * rate.ndim
        losses = []
        for step in (size, -2 * size):
            rate.data[place] += step
            losses.append(learner.episode_loss(episode).item())
        rate.data[place] += size
        assert rate.grad is not None
        assert rate.grad[place].item() == pytest.approx((losses[0] - losses[1]) / (2 * size), rel=1e-4, abs=1e-9)


def test_initial_rates_are_drawn_between_the_limits_and_are_trained(make_learner: Make, make_episodes: Make) -> None:
    learner = make_learner(MetaSGD)
    rates = torch.cat([rate.detach().flatten() for rate in learner.rates])
    assert 0.005 <= float(rates.min()) < 0.01
    assert 0.09 < float(rates.max()) <= 0.1
    learner.train_step(make_episodes(2))
    assert not torch.equal(rates, torch.cat([rate.detach().flatten() for rate in learner.rates]))


def test_limits_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"lowest_rate \(0\.5\) is above highest_rate \(0\.1\)"):
        MetaSGDConfig(lowest_rate=0.5)
