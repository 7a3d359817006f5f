"""The closed form of R2-D2, against normal equations and scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor
from torch.nn import functional as F

from metabench.api import Backbone, Classification, Episode, Setup, Support
from metabench.testing import AlgorithmChecks
from metabench_plugins.algorithms.r2d2 import R2D2, R2D2Config, ridge_regression

METAOPTNET = {"ridge": 50.0, "scale": 1.0, "learn_ridge": False, "ridge_of": "sum", "intercept": False}


class TestR2D2(AlgorithmChecks):
    algorithm = "r2d2"


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def learner(flat: Callable[..., Backbone], features: int = 6, **params: Any) -> R2D2:
    return R2D2(R2D2Config(**params), Setup(flat((1, 1, features)), None, None, 1)).double().eval()


def support(n: int = 8, features: int = 6, way: int = 4) -> Support:
    return Support(drawn(n, features), torch.arange(n) % way, Classification(way))


@pytest.mark.parametrize(("n", "features"), [(5, 12), (12, 5), (7, 7)])
@pytest.mark.parametrize("ridge", [1e-3, 2.0, 50.0])
def test_the_solution_satisfies_the_normal_equations(n: int, features: int, ridge: float) -> None:
    x, y = drawn(n, features), drawn(n, 3, seed=1)
    weights = ridge_regression(x, y, torch.tensor(ridge, dtype=torch.float64))
    torch.testing.assert_close(x.T @ x @ weights + ridge * weights, x.T @ y, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("n", "features"), [(5, 12), (12, 5)])
def test_the_solution_is_that_of_scikit_learn(n: int, features: int) -> None:
    x, y = drawn(n, features), drawn(n, 3, seed=1)
    weights = ridge_regression(x, y, torch.tensor(0.7, dtype=torch.float64))
    expected = Ridge(alpha=0.7, fit_intercept=False).fit(x.numpy(), y.numpy()).coef_.T
    np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-9, atol=1e-12)


def test_metaoptnet_rr_is_the_prediction_of_ridge_regression(flat: Callable[..., Backbone]) -> None:
    rr, episode, query = learner(flat, **METAOPTNET), support(), drawn(3, 6, seed=2)
    labels = F.one_hot(episode.y, 4).double().numpy()
    expected = Ridge(alpha=50.0, fit_intercept=False).fit(episode.x.numpy(), labels).predict(query.numpy())
    scores = rr.answer(rr.adapt(episode), query)
    np.testing.assert_allclose(scores.detach().numpy(), expected, rtol=1e-6)
    assert {name for name, weight in rr.named_parameters() if weight.requires_grad} == {"scale"}


def test_the_ridge_of_the_mean_is_that_of_the_sum_over_images(flat: Callable[..., Backbone]) -> None:
    episode, query = support(), drawn(3, 6, seed=2)
    mean, total = (learner(flat, ridge=ridge, ridge_of=of) for ridge, of in ((2.0, "mean"), (16.0, "sum")))
    torch.testing.assert_close(
        mean.answer(mean.adapt(episode), query), total.answer(total.adapt(episode), query), rtol=1e-6, atol=0
    )


def test_an_intercept_is_a_feature_of_ones(flat: Callable[..., Backbone]) -> None:
    episode, query = support(), drawn(3, 6, seed=2)
    ones = Support(torch.cat([episode.x, torch.ones(8, 1)], dim=1), episode.y, episode.task)
    own, without = learner(flat, scale=1.0), learner(flat, features=7, scale=1.0, intercept=False)
    scores = without.answer(without.adapt(ones), torch.cat([query, torch.ones(3, 1)], dim=1))
    torch.testing.assert_close(own.answer(own.adapt(episode), query), scores, rtol=1e-12, atol=0)


def test_training_changes_the_scale_and_the_ridge_which_stays_positive(flat: Callable[..., Backbone]) -> None:
    # In float64, the derivatives through the linear solver are those of finite differences.
    r2d2 = learner(flat, scale=3.0, ridge=0.5).train()
    episode = Episode(support(), drawn(5, 6, seed=2), torch.tensor([0, 1, 2, 3, 0]))
    r2d2.episode_loss(episode).backward()
    for parameter in (r2d2.scale, r2d2.log_ridge):
        losses = []
        for step in (1e-6, -2e-6):
            parameter.data += step
            losses.append(r2d2.episode_loss(episode).item())
        parameter.data += 1e-6
        assert parameter.grad is not None
        assert parameter.grad.item() == pytest.approx((losses[0] - losses[1]) / 2e-6, rel=1e-6)
        assert abs(parameter.grad.item()) > 1e-4
