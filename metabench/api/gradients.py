"""Gradients of an inner loop, with and without `torch.vmap` over episodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

#: Tensors by name, as from `nn.Module.named_parameters`.
Weights = Mapping[str, Tensor]


def trained_weights(module: nn.Module) -> dict[str, Tensor]:
    """Return the parameters that training may change, by name: those with requires_grad."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


_VECTORISED = ContextVar("vectorised", default=False)


@contextmanager
def vectorised() -> Iterator[None]:
    """Mark the block as running within `torch.vmap` over episodes."""
    token = _VECTORISED.set(True)
    try:
        yield
    finally:
        _VECTORISED.reset(token)


def is_vectorised() -> bool:
    """Return whether the caller runs within `torch.vmap` over episodes."""
    return _VECTORISED.get()


def gradients(
    loss: Callable[[Weights], Tensor], weights: Weights, differentiable: bool = False
) -> tuple[dict[str, Tensor], Tensor]:
    """Return the gradients of a scalar loss, and the loss.

    Args:
        loss: the scalar loss as a function of the weights.
        weights: the weights at which the gradients are taken.
        differentiable: whether the gradients will be differentiated again (second order).

    Returns:
        The gradients by name, and the detached loss.
    """
    if is_vectorised():  # torch.autograd.grad does not work within torch.vmap
        slopes, value = torch.func.grad_and_value(loss)(dict(weights))
        return slopes if differentiable else {name: slope.detach() for name, slope in slopes.items()}, value.detach()
    # Weights without a graph (after a first-order step) become leaves of a new one.
    leaves = {
        name: weight if weight.requires_grad else weight.detach().requires_grad_() for name, weight in weights.items()
    }
    with torch.enable_grad():
        value = loss(leaves)
        slopes = torch.autograd.grad(value, list(leaves.values()), create_graph=differentiable)
    return dict(zip(weights, slopes, strict=True)), value.detach()
