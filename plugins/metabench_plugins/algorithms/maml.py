"""Model-agnostic meta-learning (Finn, Abbeel & Levine 2017, https://arxiv.org/abs/1703.03400)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from metabench.api import AlgorithmConfig, Support, Weights, at_test, trained_weights
from metabench.specs import Float, Integer, SearchRange
from metabench_plugins.algorithms.descent import descended
from metabench_plugins.algorithms.linear_head import LinearHead


class MAMLConfig(AlgorithmConfig):
    """Parameters of `MAML`, by default those of 5-way Omniglot (appendix A.1).

    Attributes:
        inner_lr: step size α of the inner loop, for the *mean* loss of the support set. In classification, the authors'
            code divides the sum over the N·K support images by K, which makes its gradient N times larger: their 0.4 is
            2.0 here (and their 0.01 on miniImageNet is 0.05); in regression, theirs is a mean, too.
        inner_steps: inner-loop steps in training.
        test_inner_steps: inner-loop steps at test; 0 tests the initial weights.
        first_order: whether to drop the second derivatives (section 5.2).
    """

    # Inner rates of the papers, for a mean loss, are .05 to 2; steps are 1 to 5 in training, and up to 10 at test.
    search_space: ClassVar[Mapping[str, SearchRange]] = {
        **AlgorithmConfig.search_space,
        "inner_lr": Float(0.01, 10, log=True),
        "inner_steps": Integer(1, 5),
        "test_inner_steps": Integer(1, 10),
    }

    inner_lr: PositiveFloat = 2.0
    inner_steps: PositiveInt = 1
    test_inner_steps: int = at_test(3, ge=0)
    first_order: bool = False


class MAML(LinearHead):
    """Learn initial weights from which a few gradient steps on the support set solve an episode (algorithm 2)."""

    Config = MAMLConfig
    tasks = ("classification", "regression")
    functional = True
    inner_loop = True

    @property
    def second_order(self) -> bool:
        """Whether the inner loop's gradients are differentiated (section 5.2)."""
        return not self.config.first_order

    def adapt(self, support: Support) -> tuple[Weights, Tensor]:
        """Return the weights after gradient steps on the support set (equation 1), and its images."""
        steps = self.config.inner_steps if self.training else self.config.test_inner_steps
        second_order = self.training and self.second_order
        loss = partial(self.loss_on, support)
        return descended(loss, trained_weights(self), steps, self.config.inner_lr, second_order), support.x

    def answer(self, state: tuple[Weights, Tensor], query: Tensor) -> Tensor:
        """Return the [M, N] query scores of the adapted weights; the [M, outputs] answers of a regression."""
        weights, support_x = state
        return self.under(weights, query, support_x)
