"""The policy that is conditioned on demonstrations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from metabench.api import Backbone, Config, Episode, Regression, Setup, Support
from metabench.testing import RegressorChecks
from metabench_rl.imitation.conditioned import Conditioned, ConditionedConfig

#: Numbers of an input and of a target.
_INPUTS, _OUTPUTS = 6, 3


class TestConditioned(RegressorChecks):
    algorithm = "conditioned"
    params: dict[str, Any] = {"lr": 1e-2}  # noqa: RUF012
    steps = 100


class Unchanged(Backbone):
    """Returns its input."""

    per_image = True
    takes_vectors = True
    features = _INPUTS

    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        return x


def conditioned() -> Conditioned:
    torch.manual_seed(0)
    setup = Setup(Unchanged(Config(), (_INPUTS,)), 1, 1, 10, regression=Regression(_OUTPUTS))
    return Conditioned(ConditionedConfig(), setup)


def points(count: int) -> tuple[Tensor, Tensor]:
    return torch.randn(count, _INPUTS), torch.randn(count, _OUTPUTS)


def test_the_order_of_support_points_makes_no_difference_and_targets_do() -> None:
    policy, (x, y), (query, _) = conditioned(), points(5), points(2)

    def answers(x: Tensor, y: Tensor) -> Tensor:
        return policy.answer(policy.adapt(Support(x, y, Regression(_OUTPUTS))), query)

    torch.testing.assert_close(answers(x.flip(0), y.flip(0)), answers(x, y))
    assert not torch.allclose(answers(x, y.flip(0)), answers(x, y), atol=1e-3)


def test_the_loss_is_that_of_the_queries() -> None:
    policy, support, (query_x, query_y) = conditioned(), Support(*points(5), Regression(_OUTPUTS)), points(2)
    expected = (policy.answer(policy.adapt(support), query_x) - query_y).square().mean()
    torch.testing.assert_close(policy.episode_loss(Episode(support, query_x, query_y)), expected)
