"""Logistic regression, the head of RFS (Tian, Wang, Krishnan, Tenenbaum & Isola 2020, https://arxiv.org/abs/2003.11539)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from metabench.api import Support, at_test
from metabench.specs import Float, SearchRange
from metabench_plugins.algorithms.logistic import LinearLayer, fitted
from metabench_plugins.algorithms.transformed import Transform
from metabench_plugins.heads.head import Head, HeadConfig


class LogisticRegressionConfig(HeadConfig):
    """Parameters of `LogisticRegression`, by default those of RFS's code, which calls scikit-learn.

    Attributes:
        inverse_penalty: C, the weight of the sum of cross-entropies beside half the squared weights; the intercept has
            no penalty.
        steps: steps of the optimiser; more are needed if C is large.
    """

    # C, around scikit-learn's default.
    search_space: ClassVar[Mapping[str, SearchRange]] = {
        **HeadConfig.search_space,
        "inverse_penalty": Float(0.01, 100, log=True),
    }

    transform: Transform = at_test("L2N")
    inverse_penalty: float = at_test(1.0, gt=0)
    steps: int = at_test(100, ge=1)


class LogisticRegression(Head):
    """Fits a multinomial logistic regression to the support set."""

    Config = LogisticRegressionConfig

    def adapt(self, support: Support) -> LinearLayer:
        """Return the fitted classifier."""
        x, config = self.transformed(support.x), self.config
        labels = F.one_hot(support.y, support.way).to(x.dtype)
        return fitted(x, labels, config.inverse_penalty, config.steps)

    def answer(self, layer: LinearLayer, query: Tensor) -> Tensor:
        """Return the classifier's [M, N] scores of [M, D] features."""
        return layer(self.transformed(query))
