"""Batchings: how a function of one episode is applied to a batch.

An algorithm defines the work on one episode; the engine chooses the batching. All batchings compute the same results,
up to the order in which rounded numbers are added.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from metabench.machine.reproducible import derive_seed

_M = TypeVar("_M", bound=nn.Module)


class Batching(abc.ABC):
    """Apply a function of one episode to each episode of a batch.

    The function takes a module and the tensors of one episode. It must use the module of its argument, which may be a
    copy with the same weights in another thread.
    """

    @abc.abstractmethod
    def map(self, work: Callable[..., tuple[Tensor, ...]], module: _M, *batch: Tensor) -> tuple[Tensor, ...]:
        """Return ``work(module, *episode)`` of all episodes, stacked tensor by tensor.

        Args:
            work: the function of one episode.
            module: the first argument of `work`.
            batch: [B, …] tensors; row i of each belongs to episode i.
        """

    @abc.abstractmethod
    def backward(self, loss: Callable[..., Tensor], module: _M, *batch: Tensor) -> Tensor:
        """Add the gradient of the mean loss to the parameters; return the [B] losses.

        Memory holds the graphs of a few episodes only, for any size of the batch.

        Args:
            loss: the scalar loss of one episode, as ``loss(module, *episode)``.
            module: the first argument of `loss`.
            batch: [B, …] tensors; row i of each belongs to episode i.
        """


class Sequential(Batching):
    """Work on one episode after the other; the reference for other batchings."""

    def map(self, work: Callable[..., tuple[Tensor, ...]], module: _M, *batch: Tensor) -> tuple[Tensor, ...]:
        """See `Batching.map`."""
        rows = [work(module, *episode) for episode in zip(*batch, strict=True)]
        return tuple(torch.stack(column) for column in zip(*rows, strict=True))

    def backward(self, loss: Callable[..., Tensor], module: _M, *batch: Tensor) -> Tensor:
        """See `Batching.backward`."""
        return self.add_gradients(loss, module, batch, len(batch[0]))

    def add_gradients(self, loss: Callable[..., Tensor], module: _M, part: Sequence[Tensor], count: int) -> Tensor:
        """Add the gradient share of some episodes; return their losses.

        Args:
            loss: as in `Batching.backward`.
            module: as in `Batching.backward`.
            part: the tensors of some episodes of the batch.
            count: number of episodes of the whole batch.
        """
        losses = []
        for episode in zip(*part, strict=True):
            value = loss(module, *episode)
            (value / count).backward()  # type: ignore[no-untyped-call]
            losses.append(value.detach())
        return torch.stack(losses)


def episode_generators(count: int) -> list[torch.Generator]:
    """Return a generator of random numbers for each episode of a batch.

    The seed of the i-th one depends on i and on the seed of torch's default generator, which the engine sets at each
    step, so that the draws of an episode do not depend on the other episodes.
    """
    return [torch.Generator().manual_seed(episode_seed(torch.initial_seed(), i)) for i in range(count)]


def episode_seed(seed: int, number: int) -> int:
    """Return the seed of an episode's random draws, from the seed of its step and its number in the batch."""
    return derive_seed(seed, f"episode {number}")
