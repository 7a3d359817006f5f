"""The sinusoids, their network, and the algorithms that do regression."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from metabench.api import Episode, Regression, Setup, SourceSplit, Support, Unfit
from metabench.data.sampler import EpisodeShape
from metabench.engine.sources import SourceStream
from metabench.testing import BackboneChecks, EpisodeSourceChecks, RegressorChecks
from metabench_plugins.algorithms.maml import MAML, MAMLConfig
from metabench_plugins.algorithms.pretrained import Pretrained, PretrainedConfig
from metabench_plugins.backbones.mlp import MLP, MLPConfig
from metabench_plugins.datasets.sinusoid import Sinusoid, SinusoidConfig

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")


class TestSinusoid(EpisodeSourceChecks):
    source = "sinusoid"


class TestMLP(BackboneChecks):
    backbone = "mlp"
    image_shapes = ((1, 5, 5), (3, 8, 8))


class TestMAML(RegressorChecks):
    algorithm = "maml"
    params: dict[str, Any] = {"inner_lr": 0.05}  # noqa: RUF012


class TestReptile(RegressorChecks):
    algorithm = "reptile"
    params: dict[str, Any] = {"inner_lr": 0.01, "transductive": True}  # noqa: RUF012


class TestPretrained(RegressorChecks):
    algorithm = "pretrained"
    params: dict[str, Any] = {"test_inner_lr": 0.05}  # noqa: RUF012


def stream(split: str = "test", shot: int = 10, queries: int = 10, **params: float) -> SourceStream:
    source = Sinusoid(SinusoidConfig(**params))
    return SourceStream(SourceSplit(source, split), EpisodeShape(1, shot, queries), 0, CPU)


def test_every_episode_is_a_sinusoid_of_an_amplitude_and_a_phase_in_range() -> None:
    drawn = stream().batch(0, 200)
    x = torch.cat([drawn.support_x, drawn.query_x], dim=1).double()
    y = torch.cat([drawn.support_y, drawn.query_y], dim=1).double()
    assert float(x.abs().max()) <= 5
    # A · sin(x - φ) = a · sin(x) + b · cos(x)
    parts = torch.cat([x.sin(), x.cos()], dim=2)
    solution = torch.linalg.lstsq(parts, y).solution
    torch.testing.assert_close(parts @ solution, y, atol=1e-4, rtol=0)
    amplitude = solution.norm(dim=1).numpy()
    phase = torch.atan2(-solution[:, 1], solution[:, 0]).numpy()
    assert amplitude.min() >= 0.1 - 1e-4
    assert amplitude.max() <= 5 + 1e-4
    assert phase.min() >= -1e-4
    assert phase.max() <= np.pi + 1e-4
    assert amplitude.std() == pytest.approx(4.9 / 12**0.5, rel=0.1)
    assert phase.std() == pytest.approx(np.pi / 12**0.5, rel=0.1)


def test_an_amplitude_range_that_is_upside_down_is_refused() -> None:
    with pytest.raises(ValidationError, match="least_amplitude"):
        SinusoidConfig(least_amplitude=2.0, most_amplitude=1.0)


def learner(**params: Any) -> MAML:
    torch.manual_seed(0)
    setup = Setup(MLP(MLPConfig(), (1,)), 1, 1, 10, regression=Regression(1))
    return MAML(MAMLConfig(**params), setup)


def test_mamls_gradient_is_that_of_the_textbook() -> None:
    """Equation 1 of Finn et al. 2017 for one step, with the second derivative."""
    algorithm = learner(inner_lr=0.05).double().train()
    (episode,) = stream("train").batch(0, 1)
    support = Support(episode.support.x.double(), episode.support.y.double(), episode.task)
    algorithm.episode_loss(Episode(support, episode.query_x.double(), episode.query_y.double())).backward()
    got = [parameter.grad for parameter in algorithm.parameters()]

    weights = [parameter.detach().clone().requires_grad_() for parameter in algorithm.parameters()]

    def network(weights: list[Tensor], x: Tensor) -> Tensor:
        for i in range(0, len(weights), 2):
            x = x @ weights[i].T + weights[i + 1]
            x = x.clamp_min(0) if i < len(weights) - 2 else x
        return x

    inner = ((network(weights, support.x) - support.y) ** 2).mean()
    slopes = torch.autograd.grad(inner, weights, create_graph=True)
    moved = [weight - 0.05 * slope for weight, slope in zip(weights, slopes, strict=True)]
    outer = ((network(moved, episode.query_x.double()) - episode.query_y.double()) ** 2).mean()
    expected = torch.autograd.grad(outer, weights)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_the_pretrained_baseline_trains_on_all_points_without_adapting() -> None:
    torch.manual_seed(0)
    setup = Setup(MLP(MLPConfig(std=0.1), (1,)), 1, 1, 10, regression=Regression(1))
    baseline = Pretrained(PretrainedConfig(), setup)
    (episode,) = stream("train").batch(0, 1)
    x, y = torch.cat([episode.support.x, episode.query_x]), torch.cat([episode.support.y, episode.query_y])
    torch.testing.assert_close(baseline.episode_loss(episode), (baseline(x) - y).square().mean())


def test_a_network_for_images_refuses_vectors_of_a_source() -> None:
    from metabench_plugins.backbones.conv4 import Conv4, Conv4Config

    with pytest.raises(Unfit, match="vectors of 1 numbers"):
        Conv4(Conv4Config(), (1,))
