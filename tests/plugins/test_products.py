"""Convolutions as matrix products, and batch norm with ReLU, are torch's functions up to their second derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from metabench.api import gradients
from metabench.api.gradients import vectorised
from metabench_plugins.backbones import products
from metabench_plugins.backbones.products import Window, convolved
from metabench_plugins.backbones.row_norm import normalised_relu

EPISODES, EPS = 3, 1e-5
Function = Callable[..., Tensor]


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def torch_convolution(window: Window) -> Function:
    def convolve(x: Tensor, weight: Tensor) -> Tensor:
        y = F.conv2d(x.permute(0, 3, 1, 2), weight, stride=window.stride, padding=window.padding)
        return y.permute(0, 2, 3, 1)

    return convolve


def torch_norm(y: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    variance, mean = torch.var_mean(y, dim=0, correction=0)
    return F.relu((y - mean) / (variance + EPS).sqrt() * scale + shift)


def derivatives(function: Function, *inputs: Tensor) -> list[Tensor]:
    """Return value, first and second derivatives of a curved function of the result."""
    leaves = [value.clone().requires_grad_() for value in inputs]
    value = function(*leaves)
    first = torch.autograd.grad((torch.sin(value) + value**2).sum(), leaves, create_graph=True)
    second = torch.autograd.grad(sum(torch.cos(slope).sum() for slope in first), leaves)
    return [value, *first, *second]


def query_gradient(function: Function, shared: bool, *inputs: Tensor) -> list[Tensor]:
    """Return the gradient of a loss after a step of each episode's weights, by `torch.vmap` where it can."""
    x, *weights = [value.clone().requires_grad_() for value in inputs]

    def after_a_step(x: Tensor, *own: Tensor) -> Tensor:
        named = dict(enumerate(own))
        slopes, _ = gradients(lambda w: torch.sin(function(x, *w.values())).sum(), named, differentiable=True)
        return function(x.flip(0), *(named[i] - 0.1 * slopes[i] for i in named)).square().sum()

    with vectorised():
        losses = torch.vmap(after_a_step, in_dims=(0, *[None if shared else 0] * len(weights)))(x, *weights)
    return list(torch.autograd.grad(losses.sum(), [x, *weights]))


def one_by_one(function: Function, shared: bool, *inputs: Tensor) -> list[Tensor]:
    """Return the result of `query_gradient` without `torch.vmap`."""
    x, *weights = [value.clone().requires_grad_() for value in inputs]
    total = torch.zeros((), dtype=torch.float64)
    for i in range(EPISODES):
        own = [weight if shared else weight[i] for weight in weights]
        slopes = torch.autograd.grad(torch.sin(function(x[i], *own)).sum(), own, create_graph=True)
        moved = [weight - 0.1 * slope for weight, slope in zip(own, slopes, strict=True)]
        total = total + function(x[i].flip(0), *moved).square().sum()
    return list(torch.autograd.grad(total, [x, *weights]))


def assert_close(found: list[Tensor], wanted: list[Tensor]) -> None:
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9 * max(1.0, float(other.detach().abs().max())))


@pytest.mark.parametrize(
    "window", [Window(3, 2, 1), Window(3, 1, 1), Window(3, 1, 0), Window(5, 3, 2), Window(2, 2, 0)]
)
@pytest.mark.parametrize("sides", [(8, 8), (7, 10)])
def test_a_product_of_patches_is_a_convolution(window: Window, sides: tuple[int, int]) -> None:
    x, weight = random(2, *sides, 3, seed=0), random(4, 3, window.size, window.size, seed=1)
    found = derivatives(lambda *inputs: convolved(*inputs, window), x, weight)
    assert_close(found, derivatives(torch_convolution(window), x, weight))


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("at_once", [1, 10**6])
def test_a_step_through_convolutions_of_several_episodes_is_that_of_each(
    monkeypatch: pytest.MonkeyPatch, shared: bool, at_once: int
) -> None:
    monkeypatch.setattr(products, "_AT_ONCE", at_once)
    window, shape = Window(3, 2, 1), (4, 3, 3, 3)
    x = random(EPISODES, 2, 7, 7, 3, seed=0)
    weight = random(*shape if shared else (EPISODES, *shape), seed=1)
    found = query_gradient(lambda *inputs: convolved(*inputs, window), shared, x, weight)
    assert_close(found, one_by_one(torch_convolution(window), shared, x, weight))


def test_the_norm_is_batch_norm_and_relu() -> None:
    y, scale, shift = random(11, 4, seed=0), random(4, seed=1), random(4, seed=2)
    found = derivatives(lambda *inputs: normalised_relu(*inputs, EPS), y, scale, shift)
    assert_close(found, derivatives(torch_norm, y, scale, shift))


@pytest.mark.parametrize("shared", [True, False])
def test_a_step_through_norms_of_several_episodes_is_that_of_each(shared: bool) -> None:
    lead = () if shared else (EPISODES,)
    inputs = random(EPISODES, 11, 4, seed=0), random(*lead, 4, seed=1), random(*lead, 4, seed=2)
    found = query_gradient(lambda *inputs: normalised_relu(*inputs, EPS), shared, *inputs)
    assert_close(found, one_by_one(torch_norm, shared, *inputs))


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (lambda x, weight: convolved(x, weight, Window(3, 2, 1)), [(2, 7, 7, 3), (4, 3, 3, 3)]),
        (lambda y, scale: normalised_relu(y, scale, scale, EPS), [(11, 4), (4,)]),
    ],
)
def test_a_third_derivative_is_refused(function: Function, shapes: list[Any]) -> None:
    x, weight = (random(*shape, seed=seed).requires_grad_() for seed, shape in enumerate(shapes))
    first = torch.autograd.grad(function(x, weight).square().sum(), weight, create_graph=True)[0]
    second = torch.autograd.grad(first.square().sum(), weight, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        second.sum().backward()  # type: ignore[no-untyped-call]
