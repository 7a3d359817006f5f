"""How the episodes of a batch are worked through: the contract, and the plain way.

An algorithm says how one episode is worked on; the engine chooses the batching for many episodes. All batchings compute
the same results, up to the order in which rounded numbers are added.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

_M = TypeVar("_M", bound=nn.Module)


class Batching(abc.ABC):
    """Applies a function of one episode to each episode of a batch.

    The function takes a module and the tensors of one episode. It must use the module that it is given: that may be a
    copy with the same weights in another thread.
    """

    @abc.abstractmethod
    def map(self, work: Callable[..., tuple[Tensor, ...]], module: _M, *batch: Tensor) -> tuple[Tensor, ...]:
        """Return ``work(module, *episode)`` of every episode, each of its tensors stacked.

        Args:
            work: the function of one episode.
            module: its first argument.
            batch: [B, …] tensors; an episode is one row of each.
        """

    @abc.abstractmethod
    def backward(self, loss: Callable[..., Tensor], module: _M, *batch: Tensor) -> Tensor:
        """Return the [B] losses, and add the gradient of their mean to the parameters.

        Memory holds the graphs of a few episodes only, however large the batch is.

        Args:
            loss: the scalar loss of one episode, as ``loss(module, *episode)``.
            module: its first argument.
            batch: [B, …] tensors; an episode is one row of each.
        """


class Sequential(Batching):
    """One episode after the other: the plain way, which other batchings are tested against."""

    def map(self, work: Callable[..., tuple[Tensor, ...]], module: _M, *batch: Tensor) -> tuple[Tensor, ...]:
        """See `Batching.map`."""
        rows = [work(module, *episode) for episode in zip(*batch, strict=True)]
        return tuple(torch.stack(column) for column in zip(*rows, strict=True))

    def backward(self, loss: Callable[..., Tensor], module: _M, *batch: Tensor) -> Tensor:
        """See `Batching.backward`."""
        return self.add_gradients(loss, module, batch, len(batch[0]))

    def add_gradients(self, loss: Callable[..., Tensor], module: _M, part: Sequence[Tensor], count: int) -> Tensor:
        """Return the losses of a part of a batch, and add its share of the mean's gradient.

        Args:
            loss: as in `Batching.backward`.
            module: as in `Batching.backward`.
            part: tensors of some episodes of the batch.
            count: the number of episodes of the whole batch.
        """
        losses = []
        for episode in zip(*part, strict=True):
            value = loss(module, *episode)
            (value / count).backward()  # type: ignore[no-untyped-call]
            losses.append(value.detach())
        return torch.stack(losses)


def carries_state_between_episodes(module: nn.Module) -> bool:
    """Return whether a training episode may change the next one: through buffers or random draws."""
    dropouts = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
    return next(module.buffers(), None) is not None or any(isinstance(part, dropouts) for part in module.modules())
