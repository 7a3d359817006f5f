"""Batchings: in order, in threads on a CPU, by `torch.vmap` on a GPU."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from metabench.api.batching import Batching, Sequential, episode_seed
from metabench.api.gradients import vectorised
from metabench.api.outer import OuterOptimiser
from metabench.machine.memory import BatchSize
from metabench.machine.reproducible import seed_generators

#: Attributes of a module that its copies share.
_NOT_COPIED = (OuterOptimiser, Optimizer, LRScheduler, Batching)

_M = TypeVar("_M", bound=nn.Module)
_T = TypeVar("_T")


class InOrder(Sequential):
    """Work on one episode after the other, each with random draws of its own.

    Args:
        seeds: seeds of torch's generator for each episode of a batch; by default, from the episode's number in the
            batch and the generator's seed before the batch.
    """

    def __init__(self, seeds: Sequence[int] | None = None) -> None:
        self._seeds = seeds

    def map(self, work: Callable[..., tuple[Tensor, ...]], module: _M, *batch: Tensor) -> tuple[Tensor, ...]:
        """See `metabench.api.Batching.map`."""
        return super().map(self._seeded(work), module, *batch)

    def add_gradients(self, loss: Callable[..., Tensor], module: _M, part: Sequence[Tensor], count: int) -> Tensor:
        """See `metabench.api.batching.Sequential.add_gradients`."""
        return super().add_gradients(self._seeded(loss), module, part, count)

    def _seeded(self, work: Callable[..., _T]) -> Callable[..., _T]:
        """Return a function of one episode that seeds torch's generator at each call."""
        before = torch.initial_seed()
        numbered = (episode_seed(before, number) for number in itertools.count())
        seeds = numbered if self._seeds is None else iter(self._seeds)

        def seeded(*arguments: Any) -> _T:
            seed_generators(next(seeds))
            return work(*arguments)

        return seeded


class Threaded(Batching):
    """Work on several episodes at once on a CPU, in threads.

    The tensors of one episode are too small to keep several cores busy. Each thread works on a fixed part of the batch,
    and the results are joined in order: the same number of threads gives bit-identical results.

    Args:
        threads: number of threads that torch may use in total.
        within: the batching of a thread's part; by default, in order.

    Raises:
        RuntimeError: an episode draws random numbers: the threads would draw them in any order.
    """

    def __init__(self, threads: int, within: Sequential | Vmapped | None = None) -> None:
        self._threads, self._within = threads, within or Sequential()

    def map(self, work: Callable[..., tuple[Tensor, ...]], module: _M, *batch: Tensor) -> tuple[Tensor, ...]:
        """See `metabench.api.Batching.map`."""
        if len(batch[0]) == 1:
            return self._within.map(work, module, *batch)
        parts = self._run(lambda part: self._within.map(work, weight_sharing_copy(module), *part), batch)
        return tuple(torch.cat(columns) for columns in zip(*parts, strict=True))

    def backward(self, loss: Callable[..., Tensor], module: _M, *batch: Tensor) -> Tensor:
        """See `metabench.api.Batching.backward`."""
        count = len(batch[0])
        if count == 1:
            return self._within.backward(loss, module, *batch)

        def gradient_of_part(part: Sequence[Tensor]) -> tuple[_M, Tensor]:
            module_copy = weight_sharing_copy(module)
            return module_copy, self._within.add_gradients(loss, module_copy, part, count)

        parts = self._run(gradient_of_part, batch)
        for module_copy, _ in parts:
            for parameter, copied in zip(module.parameters(), module_copy.parameters(), strict=True):
                parameter.grad = sum_of_gradients(parameter.grad, copied.grad)
        return torch.cat([losses for _, losses in parts])

    def _run(self, work: Callable[[Sequence[Tensor]], _T], batch: Sequence[Tensor]) -> list[_T]:
        """Run `work` on equal parts of the batch; return its results in order."""
        count = min(self._threads, len(batch[0]))
        parts = zip(*(tensor.tensor_split(count) for tensor in batch), strict=True)
        with_gradients = torch.is_grad_enabled()

        def in_thread(part: Sequence[Tensor]) -> _T:
            torch.set_num_threads(self._threads // count)
            with torch.set_grad_enabled(with_gradients):  # grad mode belongs to each thread
                return work(part)

        generator = torch.get_rng_state()
        try:
            with ThreadPoolExecutor(count) as pool:
                results = list(pool.map(in_thread, parts))
            if not torch.equal(generator, torch.get_rng_state()):
                raise RuntimeError(
                    "an episode drew random numbers, which the first episode did not: several threads would draw them "
                    "in any order. Set `functional = False`"
                )
            return results
        finally:
            # torch.get_num_threads() returns the last value set by any thread; restore the caller's.
            torch.set_num_threads(self._threads)


class Vmapped(Batching):
    """Vectorise the work over the episodes (`torch.vmap`), to fill a GPU.

    The work must consist of tensor operations only. If memory runs out, fewer episodes are vectorised at once.

    Args:
        device: the device that holds the tensors.
        at_once: number of episodes to start with; by default, that of `metabench.machine.memory.BatchSize`.
    """

    def __init__(self, device: torch.device, at_once: int | None = None) -> None:
        self._size, self._is_cpu = BatchSize(device, at_once), device.type == "cpu"

    def map(self, work: Callable[..., tuple[Tensor, ...]], module: _M, *batch: Tensor) -> tuple[Tensor, ...]:
        """See `metabench.api.Batching.map`."""
        if self._is_cpu and len(batch[0]) == 1:
            # Nothing to vectorise: ten steps of MAML on a sinusoid take 5 ms instead of 32.
            return Sequential().map(work, module, *batch)

        def in_parts(size: int) -> tuple[Tensor, ...]:
            with vectorised():
                # Random numbers of a generator of the episode's own are the same in all episodes.
                return torch.vmap(partial(work, module), chunk_size=size, randomness="same")(*batch)

        return self._size.fit(in_parts)

    def backward(self, loss: Callable[..., Tensor], module: _M, *batch: Tensor) -> Tensor:
        """See `metabench.api.Batching.backward`."""
        return self.add_gradients(loss, module, batch, len(batch[0]))

    def add_gradients(self, loss: Callable[..., Tensor], module: _M, part: Sequence[Tensor], count: int) -> Tensor:
        """See `metabench.api.batching.Sequential.add_gradients`."""
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]

        def in_parts(size: int) -> tuple[Tensor, list[Tensor | None]]:
            losses: list[Tensor] = []
            sums: list[Tensor | None] = [None] * len(parameters)
            for episodes in zip(*(torch.split(tensor, size) for tensor in part), strict=True):
                with vectorised():
                    values = torch.vmap(partial(loss, module))(*episodes)
                gradients = torch.autograd.grad(values.sum() / count, parameters, allow_unused=True)
                sums = [sum_of_gradients(total, gradient) for total, gradient in zip(sums, gradients, strict=True)]
                losses.append(values.detach())
            return torch.cat(losses), sums

        # `in_parts` leaves the parameters alone, so that an attempt that runs out of memory adds no gradient to them.
        losses, sums = self._size.fit(in_parts)
        for parameter, gradient in zip(parameters, sums, strict=True):
            # As `backward` does: fused optimisers read weight and gradient in the order of memory.
            laid_out = None if gradient is None else torch.empty_like(parameter).copy_(gradient)
            parameter.grad = sum_of_gradients(parameter.grad, laid_out)
        return losses


def weight_sharing_copy(module: _M) -> _M:
    """Return a copy that shares the weights' memory but has its own gradients.

    Buffers are shared, too; optimisers, schedules and batchings are not copied. Threads may call ``backward`` each on
    its own copy at the same time.
    """
    memo: dict[int, object] = {}
    for weight in module.parameters():
        memo[id(weight)] = nn.Parameter(weight.detach(), weight.requires_grad)
    memo |= {id(buffer): buffer for buffer in module.buffers()}
    for part in module.modules():
        values = vars(part).values()
        memo |= {id(value): value for value in values if isinstance(value, _NOT_COPIED)}
    return copy.deepcopy(module, memo)


def sum_of_gradients(gradient: Tensor | None, other: Tensor | None) -> Tensor | None:
    """Return the sum of two gradients; None stands for an unused parameter."""
    if gradient is None or other is None:
        return gradient if other is None else other
    return gradient + other
