"""Ridge regression, the base learner of R2D2 (Bertinetto, Henriques, Torr & Vedaldi 2019).

https://arxiv.org/abs/1805.08136; the weight of the penalty, which R2D2 learns, is a parameter here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from metabench.api import Support, at_test
from metabench.specs import Float, SearchRange
from metabench_plugins.algorithms.transformed import Transform
from metabench_plugins.heads.head import Head, HeadConfig


class RidgeConfig(HeadConfig):
    """Parameters of `Ridge`.

    Attributes:
        penalty: weight λ of the squared weights beside the sum of squared errors.
        scale: factor of the regressed numbers, which makes scores of them; no label depends on it.
    """

    # The scale moves no label.
    search_space: ClassVar[Mapping[str, SearchRange]] = {
        **HeadConfig.search_space,
        "penalty": Float(1e-3, 100, log=True),
    }

    transform: Transform = at_test("L2N")
    penalty: float = at_test(1.0, gt=0)
    scale: float = at_test(10.0, gt=0)


class Ridge(Head):
    """Regresses the one-hot labels on the features, in closed form."""

    Config = RidgeConfig

    def adapt(self, support: Support) -> Tensor:
        """Return [N, D] weights, by a system of as many equations as support images (equation 6)."""
        x = self.transformed(support.x)
        labels = F.one_hot(support.y, support.way).to(x.dtype)
        products = x @ x.T + self.config.penalty * torch.eye(len(x), dtype=x.dtype, device=x.device)
        weight: Tensor = torch.linalg.solve(products, labels).T @ x
        return weight

    def answer(self, weight: Tensor, query: Tensor) -> Tensor:
        """Return the [M, N] scaled regressions."""
        scores: Tensor = self.config.scale * (self.transformed(query) @ weight.T)
        return scores
