"""Deep kernel transfer (Patacchiola et al. 2020, https://arxiv.org/abs/1910.05199).

Its code is https://github.com/BayesWatch/deep-kernel-transfer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn
from torch.nn import functional as F

from metabench.api import Algorithm, AlgorithmConfig, Episode, Setup, Support
from metabench.specs import Float, OneOf, SearchRange

#: The authors' learning rate of the Gaussian process, in units of the network's.
_KERNEL_LR = 0.1


class DKTConfig(AlgorithmConfig):
    """Parameters of `DKT`, by default those of the authors' code.

    Attributes:
        kernel: inner product of features as they are (``linear``), or of features with batch norm and length 1
            (``bncossim``); a learnt factor multiplies either.
        noise: variance of the labels' noise.
    """

    # The paper compares kernels.
    search_space: ClassVar[Mapping[str, SearchRange]] = {
        **AlgorithmConfig.search_space,
        "kernel": OneOf(["linear", "bncossim"]),
        "noise": Float(0.01, 1, log=True),
    }

    kernel: Literal["linear", "bncossim"] = "bncossim"
    noise: PositiveFloat = 0.1


@dataclass(frozen=True)
class Posterior:
    """Gaussian processes, one for each class, given a support set.

    Attributes:
        inputs: [S, D] kernel features of the support set.
        factor: [S, S] Cholesky factor L of its covariance with noise, K + σ²I = LLᵀ.
        weights: [S, N] (K + σ²I)⁻¹(Y - m) of the labels Y.
    """

    inputs: Tensor
    factor: Tensor
    weights: Tensor


class DKT(Algorithm):
    """Regresses labels ±1 by Gaussian processes, one for each class, whose kernel is the network.

    Training maximises the marginal likelihood of the labels of all images of an episode, support and queries alike: the
    network, the kernel's factor and the constant mean are all that is learnt, and a test episode is a closed form. The
    classes share factor and mean here, so that a label's number means nothing and any way can be tested; in the
    authors' code, each label has its own. `kernel: linear` also has a second factor there.

    A query's scores are the posterior means, whose softmax is far from confident. The authors fit a temperature in
    episodes of the test classes; the harness fits it in validation episodes, for the calibrated metrics of all methods.
    """

    Config = DKTConfig
    reads = "features"
    functional = True
    any_way = True
    draws = False

    def __init__(self, config: DKTConfig, setup: Setup) -> None:
        super().__init__(config, setup)
        self.norm = nn.BatchNorm1d(setup.backbone.features) if config.kernel == "bncossim" else None
        self.raw_factor = nn.Parameter(torch.zeros(()))
        self.mean = nn.Parameter(torch.zeros(()))

    def lr_multiplier(self, name: str) -> float:
        """Return the factor of the learning rate: less for the Gaussian process than for the network."""
        return _KERNEL_LR if name in ("raw_factor", "mean") else 1.0

    def adapt(self, support: Support) -> Posterior:
        """Return the posterior given [S, D] features."""
        inputs = self._inputs(support.x)
        factor = self._noisy_factor(inputs)
        weights = solved(factor, signs(support.y, support.way, inputs) - self.mean)
        return Posterior(inputs, factor, weights)

    def answer(self, posterior: Posterior, query: Tensor) -> Tensor:
        """Return the [M, N] posterior means of [M, D] features."""
        return self.mean + self._kernel(self._inputs(query), posterior.inputs) @ posterior.weights

    def variance(self, posterior: Posterior, query: Tensor) -> Tensor:
        """Return the [M] posterior variances of [M, D] features, noise left out; all classes have the same."""
        inputs = self._inputs(query)
        across = torch.linalg.solve_triangular(posterior.factor, self._kernel(posterior.inputs, inputs), upper=False)
        prior = F.softplus(self.raw_factor) * inputs.square().sum(dim=1)
        variance: Tensor = prior - across.square().sum(dim=0)
        return variance

    def episode_loss(self, episode: Episode) -> Tensor:
        """Return minus the log marginal likelihood of all labels, as a mean over images and classes."""
        support, way = episode.support, episode.support.way
        # One pass of the batch norm, as over all images of the episode in the authors' code.
        inputs = self._inputs(torch.cat([support.x, episode.query_x]))
        targets = signs(torch.cat([support.y, episode.query_y]), way, inputs) - self.mean
        return -log_likelihood(self._noisy_factor(inputs), targets).sum() / targets.numel()

    def _inputs(self, features: Tensor) -> Tensor:
        """Return [n, D] features between which the kernel is an inner product, but for its factor."""
        return features if self.norm is None else F.normalize(self.norm(features), dim=1)

    def _kernel(self, a: Tensor, b: Tensor) -> Tensor:
        return F.softplus(self.raw_factor) * (a @ b.T)

    def _noisy_factor(self, inputs: Tensor) -> Tensor:
        covariance = self._kernel(inputs, inputs)
        # Of the rounding of the decomposition: with long features, the noise alone may be less.
        jitter = torch.finfo(covariance.dtype).eps * covariance.diagonal().sum().detach()
        identity = torch.eye(len(inputs), dtype=inputs.dtype, device=inputs.device)
        # Without a check, which would make a GPU wait and which torch.vmap does not support.
        factor: Tensor = torch.linalg.cholesky_ex(covariance + (self.config.noise + jitter) * identity).L
        return factor


def signs(labels: Tensor, way: int, like: Tensor) -> Tensor:
    """Return [n, N] targets: 1 of an image's class, -1 of the others."""
    return 2 * F.one_hot(labels, way).to(like.dtype) - 1


def solved(factor: Tensor, targets: Tensor) -> Tensor:
    """Return (LLᵀ)⁻¹Y.

    Args:
        factor: [n, n] lower triangular L.
        targets: [n, N] Y.
    """
    half = torch.linalg.solve_triangular(factor, targets, upper=False)
    solution: Tensor = torch.linalg.solve_triangular(factor.mT, half, upper=True)
    return solution


def log_likelihood(factor: Tensor, targets: Tensor) -> Tensor:
    """Return the [N] log densities log N(y; 0, LLᵀ) of the columns of Y.

    Args:
        factor: [n, n] lower triangular L.
        targets: [n, N] Y.
    """
    half = torch.linalg.solve_triangular(factor, targets, upper=False)
    squares: Tensor = half.square().sum(dim=0)
    return -0.5 * (squares + 2 * factor.diagonal().log().sum() + len(targets) * math.log(2 * math.pi))
