"""Gradients within the work on one episode, also where many episodes are vectorised."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

#: Named tensors, as of `nn.Module.named_parameters`.
Weights = Mapping[str, Tensor]

_VECTORISED = ContextVar("vectorised", default=False)


@contextmanager
def vectorised() -> Iterator[None]:
    """Say that the block runs within `torch.vmap` over episodes."""
    token = _VECTORISED.set(True)
    try:
        yield
    finally:
        _VECTORISED.reset(token)


def is_vectorised() -> bool:
    """Return whether this work on an episode is vectorised over many (`torch.vmap`)."""
    return _VECTORISED.get()


def gradients(
    loss: Callable[[Weights], Tensor], weights: Weights, differentiable: bool = False
) -> tuple[dict[str, Tensor], Tensor]:
    """Return the gradients of a scalar loss, and the loss.

    Args:
        loss: a function of the weights.
        weights: the point at which the gradients are taken.
        differentiable: whether the gradients will themselves be differentiated.
    """
    if is_vectorised():  # autograd by itself does not see through torch.vmap
        slopes, value = torch.func.grad_and_value(loss)(dict(weights))
        return slopes if differentiable else {name: slope.detach() for name, slope in slopes.items()}, value.detach()
    # Weights of an earlier step that was not recorded start a graph of their own.
    leaves = {
        name: weight if weight.requires_grad else weight.detach().requires_grad_() for name, weight in weights.items()
    }
    with torch.enable_grad():
        value = loss(leaves)
        slopes = torch.autograd.grad(value, list(leaves.values()), create_graph=differentiable)
    return dict(zip(weights, slopes, strict=True)), value.detach()
