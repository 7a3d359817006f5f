from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from metabench.api import Algorithm, Backbone, Episodes, Unfit
from metabench.api.algorithms import training_loss
from metabench.engine.asking import predict
from metabench.engine.controls import is_transductive
from metabench.engine.streams import EpisodeStream
from metabench.machine.memory import BatchSize
from metabench_plugins.algorithms.maml import MAML

Make = Callable[..., Any]
NORMS = ("batch", "support", "running")
ALPHA = 0.4


def meta_gradient(learner: MAML, episodes: Episodes) -> Tensor:
    """Return the gradient of the first episode's loss as one vector."""
    loss = training_loss(learner, next(iter(episodes)))
    return flat_vector(torch.autograd.grad(loss, list(learner.parameters())))


def flat_vector(tensors: Any) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def set_weights(learner: nn.Module, vector: Tensor) -> None:
    nn.utils.vector_to_parameters(vector, learner.parameters())


def adapted_by_sgd(learner: MAML, episodes: Episodes, steps: int) -> MAML:
    """Return a copy after `steps` of plain gradient descent on the support set of the first episode."""
    adapted = copy.deepcopy(learner)
    optimiser = torch.optim.SGD(adapted.parameters(), lr=ALPHA)
    for _ in range(steps):
        optimiser.zero_grad()
        F.cross_entropy(adapted(episodes.support_x[0]), episodes.support_y[0]).backward()
        optimiser.step()
    return adapted


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("steps", [1, 3])
def test_the_meta_gradient_is_the_finite_difference_of_the_query_loss(
    make_learner: Make, make_episodes: Make, steps: int, norm: str
) -> None:
    episodes: Episodes = make_episodes(1)
    learner = make_learner(MAML, norm=norm, inner_lr=ALPHA, inner_steps=steps)
    learner.train()
    gradient = meta_gradient(learner, episodes)
    start, size = flat_vector(learner.parameters()), 1e-6
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        direction = torch.randn(len(start), generator=generator, dtype=torch.float64)
        direction /= direction.norm()
        losses = []
        for sign in (1, -1):
            set_weights(learner, start + sign * size * direction)
            losses.append(training_loss(learner, next(iter(episodes))).item())
        expected = (losses[0] - losses[1]) / (2 * size)
        assert abs(expected) > 1e-3
        assert float(gradient @ direction) == pytest.approx(expected, rel=1e-5, abs=1e-8)


def test_one_step_multiplies_the_query_gradient_by_the_identity_minus_the_hessian(
    make_learner: Make, make_episodes: Make, smooth: Callable[..., Backbone]
) -> None:
    episodes: Episodes = make_episodes(1, size=3)
    learner = make_learner(MAML, smooth((1, 3, 3)), inner_lr=ALPHA)
    names = [name for name, _ in learner.named_parameters()]
    shapes = [parameter.shape for parameter in learner.parameters()]
    start = flat_vector(learner.parameters())

    def loss(vector: Tensor, x: Tensor, y: Tensor) -> Tensor:
        parts = vector.split([shape.numel() for shape in shapes])
        weights = {name: part.reshape(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}
        return F.cross_entropy(functional_call(learner, weights, (x,)), y)

    def gradient(vector: Tensor, x: Tensor, y: Tensor) -> Tensor:
        vector = vector.clone().requires_grad_()
        return torch.autograd.grad(loss(vector, x, y), vector)[0]

    support, query = (
        (episodes.support_x[0], episodes.support_y[0]),
        (episodes.query_x[0], episodes.query_y[0]),
    )
    hessian = torch.autograd.functional.hessian(lambda vector: loss(vector, *support), start)
    outer = gradient(start - ALPHA * gradient(start, *support), *query)
    expected = outer - ALPHA * hessian @ outer
    # The curvature matters: without it the gradient would be another one.
    assert (expected - outer).abs().max() > 1e-3
    torch.testing.assert_close(meta_gradient(learner, episodes), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("norm", ["batch", "running"])
@pytest.mark.parametrize("steps", [1, 3])
def test_first_order_is_the_query_gradient_at_the_adapted_weights(
    make_learner: Make, make_episodes: Make, steps: int, norm: str
) -> None:
    episodes: Episodes = make_episodes(1)
    learner = make_learner(MAML, norm=norm, inner_lr=ALPHA, inner_steps=steps, first_order=True)
    learner.train()
    adapted = adapted_by_sgd(learner, episodes, steps)
    loss = F.cross_entropy(adapted(episodes.query_x[0]), episodes.query_y[0])
    expected = flat_vector(torch.autograd.grad(loss, list(adapted.parameters())))
    gradient = meta_gradient(learner, episodes)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-14)
    second_order = make_learner(MAML, norm=norm, inner_lr=ALPHA, inner_steps=steps).train()
    assert (meta_gradient(second_order, episodes) - gradient).abs().max() > 1e-3


@pytest.mark.parametrize("norm", NORMS)
def test_first_and_second_order_agree_when_the_inner_step_vanishes(
    make_learner: Make, make_episodes: Make, norm: str
) -> None:
    episodes: Episodes = make_episodes(1)
    first, second = (
        meta_gradient(make_learner(MAML, norm=norm, inner_lr=1e-12, first_order=order).train(), episodes)
        for order in (True, False)
    )
    assert second.abs().max() > 1e-2
    torch.testing.assert_close(first, second, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("norm", NORMS)
def test_every_weight_has_a_gradient(make_learner: Make, make_episodes: Make, norm: str, first_order: bool) -> None:
    learner = make_learner(MAML, norm=norm, inner_lr=ALPHA, inner_steps=2, first_order=first_order)
    learner.train_step(make_episodes(2))
    for name, parameter in learner.named_parameters():
        assert parameter.grad is not None, name
        largest = float(parameter.grad.abs().max())
        if name.endswith("conv.bias"):
            # Batch norm subtracts the mean and the bias with it: the gradient is zero but for rounding.
            assert largest < 1e-12, name
        else:
            assert largest > 1e-6, name


@pytest.mark.parametrize("norm", NORMS)
def test_the_gradient_and_loss_of_a_meta_batch_are_the_means_over_its_episodes(
    make_learner: Make, make_episodes: Make, norm: str
) -> None:
    episodes: Episodes = make_episodes(3)
    learner = make_learner(MAML, norm=norm, inner_lr=ALPHA, inner_steps=2)
    losses, gradients = [], []
    for episode in episodes:
        alone = copy.deepcopy(learner).train()
        loss = training_loss(alone, episode)
        losses.append(loss.item())
        gradients.append(flat_vector(torch.autograd.grad(loss, list(alone.parameters()))))
    metrics = learner.train_step(episodes)
    assert metrics["loss"].item() == pytest.approx(sum(losses) / 3, rel=1e-12)
    result = flat_vector(parameter.grad for parameter in learner.parameters())
    torch.testing.assert_close(result, torch.stack(gradients).mean(dim=0), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("norm", ["batch", "running"])
def test_prediction_is_plain_gradient_descent_on_a_copy(make_learner: Make, make_episodes: Make, norm: str) -> None:
    episodes: Episodes = make_episodes(1)
    learner = make_learner(MAML, norm=norm, inner_lr=ALPHA, test_inner_steps=3)
    learner.train_step(episodes)
    expected = adapted_by_sgd(learner.eval(), episodes, steps=3)(episodes.query_x[0])
    scores = predict(learner, episodes, 0, 0)
    torch.testing.assert_close(scores[0], expected, rtol=1e-10, atol=1e-12)


def test_adaptation_at_test_lowers_the_support_loss(make_learner: Make, make_episodes: Make) -> None:
    episodes: Episodes = make_episodes(1)
    losses = []
    for steps in (1, 10):
        learner = make_learner(MAML, norm="batch", inner_lr=ALPHA, test_inner_steps=steps)
        # The support images as queries: how well they are fitted.
        scores = predict(learner, replace(episodes, query_x=episodes.support_x), 0, 0)
        losses.append(F.cross_entropy(scores[0], episodes.support_y[0]).item())
    assert losses[1] < 0.5 * losses[0]


def test_the_order_of_the_support_set_is_irrelevant(make_learner: Make, make_episodes: Make) -> None:
    episodes: Episodes = make_episodes(2)
    learner = make_learner(MAML, norm="batch", inner_lr=ALPHA)
    before, after = (
        predict(
            learner, replace(episodes, support_x=episodes.support_x[:, i], support_y=episodes.support_y[:, i]), 0, 0
        )
        for i in (torch.arange(6), torch.tensor([4, 1, 0, 5, 3, 2]))
    )
    torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-10)


def test_training_with_another_way_is_refused(make_learner: Make) -> None:
    with pytest.raises(Unfit, match=r"train\.way \(5\) must be the tested way \(3\)"):
        make_learner(MAML, way=3, train_way=5)


@pytest.mark.parametrize(("norm", "transductive"), [("batch", True), ("support", False), ("running", False)])
def test_it_is_transductive_if_the_queries_are_normalised_together(
    make_learner: Make, make_episodes: Make, stream: EpisodeStream, norm: str, transductive: bool
) -> None:
    learner: Algorithm = make_learner(MAML, norm=norm, inner_lr=ALPHA, dtype=torch.float32)
    learner.train_step(make_episodes(2, dtype=torch.float32))
    assert is_transductive(learner, stream, 0, BatchSize(torch.device("cpu"))) is transductive
