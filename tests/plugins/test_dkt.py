"""Deep kernel transfer, against the Gaussian processes of scikit-learn."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct
from torch import Tensor

from metabench.api import Backbone, Classification, Episode, Setup, Support
from metabench.testing import AlgorithmChecks
from metabench_plugins.algorithms.dkt import DKT, DKTConfig

FEATURES, WAY = 5, 3


class TestDKT(AlgorithmChecks):
    algorithm = "dkt"


class TestLinear(AlgorithmChecks):
    algorithm = "dkt"
    params: dict[str, Any] = {"kernel": "linear"}  # noqa: RUF012


def drawn(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, FEATURES, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dkt(flat: Callable[..., Backbone], kernel: str = "linear", **params: Any) -> DKT:
    """Return a learner with a factor and a mean away from their initial values."""
    config = DKTConfig.model_validate({"kernel": kernel, **params})
    learner = DKT(config, Setup(flat((1, 1, FEATURES)), None, None, 1)).double().eval()
    learner.raw_factor.data.fill_(0.4)
    learner.mean.data.fill_(-0.3)
    return learner


def support(n: int = 6) -> Support:
    return Support(drawn(n), torch.arange(n) % WAY, Classification(WAY))


def reference(learner: DKT, inputs: Tensor, labels: Tensor, label: int) -> GaussianProcessRegressor:
    """Return scikit-learn's process of one class, on inputs between which the kernel is an inner product."""
    factor = math.log1p(math.exp(learner.raw_factor.item()))
    kernel = ConstantKernel(factor, "fixed") * DotProduct(0.0, "fixed")
    process = GaussianProcessRegressor(kernel, alpha=learner.config.noise, optimizer=None)
    targets = np.where(labels.numpy() == label, 1.0, -1.0) - learner.mean.item()
    return process.fit(inputs.detach().numpy(), targets)


def kernel_inputs(learner: DKT, x: Tensor) -> Tensor:
    """Return the features as written in the paper's code: batch norm by running averages, then length 1."""
    if learner.norm is None:
        return x
    normed = (x - learner.norm.running_mean) / (learner.norm.running_var + learner.norm.eps).sqrt()
    return normed / normed.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("kernel", ["linear", "bncossim"])
@pytest.mark.parametrize("noise", [0.1, 0.02])
def test_posterior_means_and_variances_are_those_of_scikit_learn(
    flat: Callable[..., Backbone], kernel: str, noise: float
) -> None:
    learner, episode, query = dkt(flat, kernel, noise=noise), support(), drawn(4, seed=1)
    posterior = learner.adapt(episode)
    means, variances = learner.answer(posterior, query), learner.variance(posterior, query)
    for label in range(WAY):
        process = reference(learner, kernel_inputs(learner, episode.x), episode.y, label)
        mean, std = process.predict(kernel_inputs(learner, query).detach().numpy(), return_std=True)
        np.testing.assert_allclose(means[:, label].detach(), mean + learner.mean.item(), rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(variances.detach(), std**2, rtol=1e-6, atol=1e-8)


def test_the_loss_is_the_marginal_likelihood_of_support_and_queries_of_scikit_learn(
    flat: Callable[..., Backbone],
) -> None:
    learner, episode = dkt(flat), Episode(support(), drawn(4, seed=1), torch.tensor([0, 1, 2, 0]))
    x, y = torch.cat([episode.support.x, episode.query_x]), torch.cat([episode.support.y, episode.query_y])
    total = sum(reference(learner, x, y, label).log_marginal_likelihood_value_ for label in range(WAY))
    assert learner.episode_loss(episode).item() == pytest.approx(-total / (len(y) * WAY), rel=1e-6)


def test_in_training_the_cosine_kernel_normalises_by_all_images_of_the_episode(flat: Callable[..., Backbone]) -> None:
    learner = dkt(flat, "bncossim").train()
    episode = Episode(support(), drawn(4, seed=1), torch.tensor([0, 1, 2, 0]))
    x, y = torch.cat([episode.support.x, episode.query_x]), torch.cat([episode.support.y, episode.query_y])
    assert learner.norm is not None
    normed = (x - x.mean(dim=0)) / (x.var(dim=0, correction=0) + learner.norm.eps).sqrt()
    inputs = normed / normed.norm(dim=1, keepdim=True)
    total = sum(reference(learner, inputs, y, label).log_marginal_likelihood_value_ for label in range(WAY))
    assert learner.episode_loss(episode).item() == pytest.approx(-total / (len(y) * WAY), rel=1e-6)


def test_far_more_images_than_features_of_any_length_are_decomposed_in_float32(flat: Callable[..., Backbone]) -> None:
    for length in (1e-3, 1.0, 1e3, 1e6):
        learner = dkt(flat).float()
        x = length * drawn(300).float()
        posterior = learner.adapt(Support(x, torch.arange(300) % WAY, Classification(WAY)))
        scores = learner.answer(posterior, x[:7])
        assert bool(torch.isfinite(scores).all())
        episode = Episode(Support(x, torch.arange(300) % WAY, Classification(WAY)), x[:7], torch.zeros(7).long())
        assert bool(torch.isfinite(learner.episode_loss(episode)))


def test_a_query_far_from_the_support_set_has_the_prior_variance(flat: Callable[..., Backbone]) -> None:
    learner = dkt(flat)
    episode = Support(torch.eye(FEATURES, dtype=torch.float64)[:3], torch.arange(3), Classification(WAY))
    near, far = torch.eye(FEATURES, dtype=torch.float64)[0], torch.eye(FEATURES, dtype=torch.float64)[4]
    posterior = learner.adapt(episode)
    variances = learner.variance(posterior, torch.stack([near, far]))
    factor = math.log1p(math.exp(0.4))
    assert variances[1].item() == pytest.approx(factor, rel=1e-12)
    assert variances[0].item() == pytest.approx(factor - factor**2 / (factor + 0.1), rel=1e-6)


def test_the_gaussian_process_learns_at_a_tenth_of_the_networks_rate(
    flat: Callable[..., Backbone], smooth: Callable[..., Backbone]
) -> None:
    learner = DKT(DKTConfig(), Setup(smooth((1, 1, FEATURES)), None, None, 1))
    rates = {name: learner.lr_multiplier(name) for name, _ in learner.named_parameters()}
    assert rates.pop("raw_factor") == rates.pop("mean") == 0.1
    assert set(rates.values()) == {1.0}
