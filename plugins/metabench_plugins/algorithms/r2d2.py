"""R2-D2 (Bertinetto, Henriques, Torr & Vedaldi 2019, https://arxiv.org/abs/1805.08136).

Its code is https://github.com/bertinetto/r2d2. MetaOptNet-RR (Lee et al. 2019, https://arxiv.org/abs/1904.03758) is the
same learner with other parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from metabench.api import Algorithm, AlgorithmConfig, Episode, Setup, Support
from metabench.specs import Float, SearchRange


class R2D2Config(AlgorithmConfig):
    """Parameters of `R2D2`, by default those of the authors' code for photographs.

    MetaOptNet-RR is ``{scale: 1, learn_ridge: false, ridge_of: sum, intercept: false}``, on miniImageNet with
    ``label_smoothing: 0.1``.

    Attributes:
        ridge: λ before training.
        learn_ridge: whether training changes λ, as in the paper; in the authors' code it is an option.
        ridge_of: λ weighs against the ``mean`` of the squared errors over the support images (the authors' code), or
            against their ``sum`` (section 3.2, MetaOptNet).
        scale: α before training, the factor of the predictions; the authors take 10 on Omniglot.
        intercept: whether features get a constant 1, whose weights are penalised, too.
        label_smoothing: share of the training labels that is spread over all classes.
        lr: learning rate.
        schedule: the learning rate falls in steps.
        decay_every: outer updates after which it is halved (20 epochs of 100 episodes).
    """

    # Both authors' scales, for photographs and Omniglot, and λ around theirs.
    search_space: ClassVar[Mapping[str, SearchRange]] = {
        **AlgorithmConfig.search_space,
        "lr": Float(5e-4, 2e-2, log=True),
        "ridge": Float(1, 1000, log=True),
        "scale": Float(1e-5, 10, log=True),
    }

    ridge: PositiveFloat = 50.0
    learn_ridge: bool = True
    ridge_of: Literal["mean", "sum"] = "mean"
    scale: PositiveFloat = 1e-4
    intercept: bool = True
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    lr: PositiveFloat = 5e-3
    schedule: Literal["constant", "step", "cosine"] = "step"
    decay_every: PositiveInt | None = 2000


class R2D2(Algorithm):
    """Fits one-hot labels by ridge regression on the features of the support set, in closed form.

    The network, λ and the scale of the predictions are trained through the solution (section 3.2). The paper also
    learns a bias of the predictions; it is the same for all classes, changes no probability, and is left out.
    """

    Config = R2D2Config
    reads = "features"
    functional = True
    any_way = True
    draws = False

    def __init__(self, config: R2D2Config, setup: Setup) -> None:
        super().__init__(config, setup)
        self.scale = nn.Parameter(torch.tensor(config.scale))
        # By its logarithm, λ stays positive.
        self.log_ridge = nn.Parameter(torch.tensor(math.log(config.ridge)), requires_grad=config.learn_ridge)

    def adapt(self, support: Support) -> Tensor:
        """Return the [D, N] weights of the regression; [D + 1, N] with an intercept."""
        x = self._inputs(support.x)
        ridge = self.log_ridge.exp()
        if self.config.ridge_of == "mean":
            ridge = ridge * len(x)
        return ridge_regression(x, F.one_hot(support.y, support.way).to(x.dtype), ridge)

    def answer(self, weights: Tensor, query: Tensor) -> Tensor:
        """Return the scaled [M, N] predictions of [M, D] features."""
        return self.scale * (self._inputs(query) @ weights)

    def episode_loss(self, episode: Episode) -> Tensor:
        """Return the cross-entropy of the queries."""
        scores = self.answer(self.adapt(episode.support), episode.query_x)
        return F.cross_entropy(scores, episode.query_y, label_smoothing=self.config.label_smoothing)

    def _inputs(self, features: Tensor) -> Tensor:
        return F.pad(features, (0, 1), value=1.0) if self.config.intercept else features


def ridge_regression(x: Tensor, y: Tensor, ridge: Tensor) -> Tensor:
    """Return the [D, N] W that minimises |XW - Y|² + λ|W|².

    The system has the smaller one of n and D equations: W = (XᵀX + λI)⁻¹XᵀY = Xᵀ(XXᵀ + λI)⁻¹Y, by Woodbury's identity.

    Args:
        x: [n, D] inputs.
        y: [n, N] targets.
        ridge: λ > 0, a scalar.
    """
    n, features = x.shape
    identity = torch.eye(min(n, features), dtype=x.dtype, device=x.device)
    if n < features:
        dual: Tensor = torch.linalg.solve(x @ x.T + ridge * identity, y)
        return x.T @ dual
    weights: Tensor = torch.linalg.solve(x.T @ x + ridge * identity, x.T @ y)
    return weights
