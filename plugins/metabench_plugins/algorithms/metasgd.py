"""Meta-SGD (Li, Zhou, Chen & Li 2017, https://arxiv.org/abs/1707.09835)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

import torch
from pydantic import PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from metabench.api import AlgorithmConfig, Setup, Support, Weights, at_test, trained_weights
from metabench.specs import Float, Integer, SearchRange
from metabench_plugins.algorithms.descent import descended
from metabench_plugins.algorithms.linear_head import LinearHead


class MetaSGDConfig(AlgorithmConfig):
    """Parameters of `MetaSGD`, by default those of the paper.

    Attributes:
        lowest_rate: smallest initial step size, for the mean loss of the support set.
        highest_rate: largest initial step size; each number's is drawn uniformly between both.
        inner_steps: inner-loop steps in training.
        test_inner_steps: inner-loop steps at test; 0 tests the initial weights.
        first_order: whether to drop the second derivatives.
    """

    # Around the paper's .1, and MAML's .4.
    search_space: ClassVar[Mapping[str, SearchRange]] = {
        **AlgorithmConfig.search_space,
        "highest_rate": Float(0.01, 1, log=True),
        "test_inner_steps": Integer(1, 5),
    }

    lowest_rate: PositiveFloat = 0.005
    highest_rate: PositiveFloat = 0.1
    inner_steps: PositiveInt = 1
    test_inner_steps: int = at_test(1, ge=0)
    first_order: bool = False

    @model_validator(mode="after")
    def _in_order(self) -> MetaSGDConfig:
        if self.lowest_rate > self.highest_rate:
            raise ValueError(f"lowest_rate ({self.lowest_rate}) is above highest_rate ({self.highest_rate})")
        return self


class MetaSGD(LinearHead):
    """MAML that learns a step size for each number of the weights, beside the initial weights (algorithm 1).

    A step size may become negative: the step is a learnt direction, not the gradient's.
    """

    Config = MetaSGDConfig
    tasks = ("classification", "regression")
    functional = True
    inner_loop = True

    def __init__(self, config: MetaSGDConfig, setup: Setup) -> None:
        super().__init__(config, setup)
        span = config.lowest_rate, config.highest_rate
        self.rates = nn.ParameterList(
            torch.empty_like(weight).uniform_(*span) for weight in trained_weights(self).values()
        )

    def adapt(self, support: Support) -> tuple[Weights, Tensor]:
        """Return the weights after steps θ - α∘∇L(θ) on the support set, and its images."""
        weights = {name: weight for name, weight in trained_weights(self).items() if not name.startswith("rates.")}
        rates = dict(zip(weights, self.rates, strict=True))
        steps = self.config.inner_steps if self.training else self.config.test_inner_steps
        second_order = self.training and not self.config.first_order
        return descended(partial(self.loss_on, support), weights, steps, rates, second_order), support.x

    def answer(self, state: tuple[Weights, Tensor], query: Tensor) -> Tensor:
        """Return the [M, N] query scores of the adapted weights; the [M, outputs] answers of a regression."""
        weights, support_x = state
        return self.under(weights, query, support_x)
