"""Batchings that are faster than one episode after the other: threads on a CPU, `torch.vmap` on a GPU."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from metabench.api.batching import Batching, Sequential
from metabench.api.gradients import vectorised
from metabench.machine.memory import BatchSize

_M = TypeVar("_M", bound=nn.Module)
_T = TypeVar("_T")


class Threaded(Batching):
    """Several episodes at once on a CPU, each in a thread of its own.

    The tensors of one episode are too small to keep several cores busy. The number of threads fixes the episodes of
    each thread, and results are put together in order: the same threads give the same result, to the last digit.

    Args:
        threads: the number of threads that torch may use in all.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def map(self, work: Callable[..., tuple[Tensor, ...]], module: _M, *batch: Tensor) -> tuple[Tensor, ...]:
        """See `metabench.api.Batching.map`."""
        if len(batch[0]) == 1:
            return Sequential().map(work, module, *batch)
        parts = self._run(lambda part: Sequential().map(work, weight_sharing_copy(module), *part), batch)
        return tuple(torch.cat(columns) for columns in zip(*parts, strict=True))

    def backward(self, loss: Callable[..., Tensor], module: _M, *batch: Tensor) -> Tensor:
        """See `metabench.api.Batching.backward`."""
        count = len(batch[0])
        if count == 1:
            return Sequential().backward(loss, module, *batch)

        def part_of_the_gradient(part: Sequence[Tensor]) -> tuple[_M, Tensor]:
            lane_copy = weight_sharing_copy(module)
            return lane_copy, Sequential().add_gradients(loss, lane_copy, part, count)

        parts = self._run(part_of_the_gradient, batch)
        for lane_copy, _ in parts:
            for parameter, shared in zip(module.parameters(), lane_copy.parameters(), strict=True):
                parameter.grad = sum_of_gradients(parameter.grad, shared.grad)
        return torch.cat([losses for _, losses in parts])

    def _run(self, work: Callable[[Sequence[Tensor]], _T], batch: Sequence[Tensor]) -> list[_T]:
        """Return the results of `work` on equal parts of the batch, in order."""
        lanes = min(self._threads, len(batch[0]))
        parts = zip(*(tensor.tensor_split(lanes) for tensor in batch), strict=True)
        with_gradients = torch.is_grad_enabled()

        def lane(part: Sequence[Tensor]) -> _T:
            torch.set_num_threads(self._threads // lanes)
            with torch.set_grad_enabled(with_gradients):  # grad mode belongs to each thread
                return work(part)

        try:
            with ThreadPoolExecutor(lanes) as pool:
                return list(pool.map(lane, parts))
        finally:
            # torch.get_num_threads() returns the last value set by any thread; restore the caller's.
            torch.set_num_threads(self._threads)


class Vmapped(Batching):
    """All episodes at once, as tensors with one more dimension (`torch.vmap`): fills a GPU.

    The work must consist of tensor operations only. Where memory runs out, fewer episodes are done at once.

    Args:
        device: the device whose memory is used.
        at_once: episodes to begin with; by default, as many as a device of this kind should hold.
    """

    def __init__(self, device: torch.device, at_once: int | None = None) -> None:
        self._size = BatchSize(device, at_once)

    def map(self, work: Callable[..., tuple[Tensor, ...]], module: _M, *batch: Tensor) -> tuple[Tensor, ...]:
        """See `metabench.api.Batching.map`."""

        def in_parts(size: int) -> tuple[Tensor, ...]:
            with vectorised():
                return torch.vmap(partial(work, module), chunk_size=size)(*batch)

        return self._size.fit(in_parts)

    def backward(self, loss: Callable[..., Tensor], module: _M, *batch: Tensor) -> Tensor:
        """See `metabench.api.Batching.backward`."""
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]

        def in_parts(size: int) -> tuple[Tensor, list[Tensor | None]]:
            losses: list[Tensor] = []
            sums: list[Tensor | None] = [None] * len(parameters)
            for part in zip(*(torch.split(tensor, size) for tensor in batch), strict=True):
                with vectorised():
                    values = torch.vmap(partial(loss, module))(*part)
                slopes = torch.autograd.grad(values.sum() / len(batch[0]), parameters, allow_unused=True)
                sums = [sum_of_gradients(total, slope) for total, slope in zip(sums, slopes, strict=True)]
                losses.append(values.detach())
            return torch.cat(losses), sums

        losses, sums = self._size.fit(in_parts)  # an attempt that ran out of memory has added nothing to the parameters
        for parameter, gradient in zip(parameters, sums, strict=True):
            parameter.grad = sum_of_gradients(parameter.grad, gradient)
        return losses


def batching_for(device: torch.device, functional: bool, inner_loop: bool) -> Batching:
    """Return the fastest batching for a device and an algorithm.

    Args:
        device: a CPU or a GPU.
        functional: see `metabench.api.Algorithm.functional`.
        inner_loop: see `metabench.api.Algorithm.inner_loop`.
    """
    if not functional:
        return Sequential()
    if device.type != "cpu":
        return Vmapped(device)
    # A network that embeds a whole episode at once is faster in several threads than several episodes in one each.
    threads = torch.get_num_threads()
    return Threaded(threads) if inner_loop and threads > 1 else Sequential()


def weight_sharing_copy(module: _M) -> _M:
    """Return a copy with the same weights in the same memory, but gradients of its own.

    Buffers are shared, optimisers are not copied. A thread may call ``backward`` on the copy unseen by other threads.
    """
    memo: dict[int, object] = {}
    for weight in module.parameters():
        memo[id(weight)] = nn.Parameter(weight.detach(), weight.requires_grad)
    memo |= {id(buffer): buffer for buffer in module.buffers()}
    for part in module.modules():
        values = vars(part).values()
        memo |= {id(value): value for value in values if isinstance(value, (Optimizer, LRScheduler, Batching))}
    return copy.deepcopy(module, memo)


def sum_of_gradients(gradient: Tensor | None, another: Tensor | None) -> Tensor | None:
    """Return the sum of two gradients; None stands for an unused parameter."""
    if gradient is None or another is None:
        return gradient if another is None else another
    return gradient + another
