"""How the episodes of a batch are worked through: in order, side by side in threads, or as one on a GPU.

An algorithm says what is done with one episode, the engine says how it is done with many. All strategies compute the
same, but for the order in which rounded numbers are added.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from metabench.machine.memory import BatchSize

#: Named tensors, as of `nn.Module.named_parameters`.
Weights = Mapping[str, Tensor]

_M = TypeVar("_M", bound=nn.Module)
_T = TypeVar("_T")


class Strategy(abc.ABC):
    """Does the work of one episode for each of a batch.

    What is done is a function of a module and of the tensors of one episode. It must use the module that it is given:
    that may be a twin, with the same weights, but in a thread of its own.
    """

    @abc.abstractmethod
    def map(self, work: Callable[..., tuple[Tensor, ...]], module: _M, *batch: Tensor) -> tuple[Tensor, ...]:
        """Return ``work(module, *episode)`` of every episode, each of its tensors stacked.

        Args:
            work: what is done with one episode.
            module: its first argument.
            batch: [B, …] tensors, of which an episode is one row each.
        """

    @abc.abstractmethod
    def backward(self, loss: Callable[..., Tensor], module: _M, *batch: Tensor) -> Tensor:
        """Return the [B] losses ``loss(module, *episode)``, and add their mean's gradient to that of the parameters.

        However large the batch is, memory is needed for the graphs of a few episodes only.
        """


class InOrder(Strategy):
    """One episode after the other: the plain way, which the others are tested against."""

    def map(self, work: Callable[..., tuple[Tensor, ...]], module: _M, *batch: Tensor) -> tuple[Tensor, ...]:
        """See `Strategy.map`."""
        rows = [work(module, *episode) for episode in zip(*batch, strict=True)]
        return tuple(torch.stack(column) for column in zip(*rows, strict=True))

    def backward(self, loss: Callable[..., Tensor], module: _M, *batch: Tensor) -> Tensor:
        """See `Strategy.backward`."""
        return self.add_gradients(loss, module, batch, len(batch[0]))

    def add_gradients(self, loss: Callable[..., Tensor], module: _M, batch: Sequence[Tensor], count: int) -> Tensor:
        """Return the losses of a part of a batch of `count` episodes, and add their share of the mean's gradient."""
        losses = []
        for episode in zip(*batch, strict=True):
            value = loss(module, *episode)
            (value / count).backward()  # type: ignore[no-untyped-call]
            losses.append(value.detach())
        return torch.stack(losses)


class SideBySide(Strategy):
    """Several episodes at once on a CPU, each in a thread of its own.

    The tensors of one episode are too small to keep several cores busy. The number of threads decides the work of each,
    and what they found is put together in order: the same threads give the same result, to the last digit.

    Args:
        threads: in all.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def map(self, work: Callable[..., tuple[Tensor, ...]], module: _M, *batch: Tensor) -> tuple[Tensor, ...]:
        """See `Strategy.map`."""
        if len(batch[0]) == 1:
            return InOrder().map(work, module, *batch)
        parts = self._run(lambda part: InOrder().map(work, twin(module), *part), batch)
        return tuple(torch.cat(columns) for columns in zip(*parts, strict=True))

    def backward(self, loss: Callable[..., Tensor], module: _M, *batch: Tensor) -> Tensor:
        """See `Strategy.backward`."""
        count = len(batch[0])
        if count == 1:
            return InOrder().backward(loss, module, *batch)

        def part_of_the_gradient(part: Sequence[Tensor]) -> tuple[_M, Tensor]:
            own = twin(module)
            return own, InOrder().add_gradients(loss, own, part, count)

        parts = self._run(part_of_the_gradient, batch)
        for own, _ in parts:
            for parameter, copy in zip(module.parameters(), own.parameters(), strict=True):
                parameter.grad = added(parameter.grad, copy.grad)
        return torch.cat([losses for _, losses in parts])

    def _run(self, work: Callable[[Sequence[Tensor]], _T], batch: Sequence[Tensor]) -> list[_T]:
        """Return what `work` does with equal parts of the batch, in their order."""
        lanes = min(self._threads, len(batch[0]))
        parts = zip(*(tensor.tensor_split(lanes) for tensor in batch), strict=True)
        with_gradients = torch.is_grad_enabled()

        def lane(part: Sequence[Tensor]) -> _T:
            torch.set_num_threads(self._threads // lanes)
            with torch.set_grad_enabled(with_gradients):  # which is a matter of each thread
                return work(part)

        try:
            with ThreadPoolExecutor(lanes) as pool:
                return list(pool.map(lane, parts))
        finally:
            torch.set_num_threads(self._threads)  # whoever asks torch is told what was set last, in whatever thread


class Vectorised(Strategy):
    """All episodes at once, as tensors with one more dimension (`torch.vmap`): what fills a GPU.

    The work must be made of tensor operations alone. Where memory runs out, fewer episodes are done at once.

    Args:
        device: whose memory it is.
        at_once: how many episodes to begin with; by default, as many as a device of the kind should hold.
    """

    def __init__(self, device: torch.device, at_once: int | None = None) -> None:
        self._size = BatchSize(device, at_once)

    def map(self, work: Callable[..., tuple[Tensor, ...]], module: _M, *batch: Tensor) -> tuple[Tensor, ...]:
        """See `Strategy.map`."""
        found: tuple[Tensor, ...] = self._size.fit(
            lambda size: torch.vmap(partial(work, module), chunk_size=size)(*batch)
        )
        return found

    def backward(self, loss: Callable[..., Tensor], module: _M, *batch: Tensor) -> Tensor:
        """See `Strategy.backward`."""
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]

        def in_parts(size: int) -> tuple[Tensor, list[Tensor | None]]:
            losses: list[Tensor] = []
            sums: list[Tensor | None] = [None] * len(parameters)
            for part in zip(*(torch.split(tensor, size) for tensor in batch), strict=True):
                values = torch.vmap(partial(loss, module))(*part)
                found = torch.autograd.grad(values.sum() / len(batch[0]), parameters, allow_unused=True)
                sums = [added(total, gradient) for total, gradient in zip(sums, found, strict=True)]
                losses.append(values.detach())
            return torch.cat(losses), sums

        losses, sums = self._size.fit(in_parts)  # an attempt that ran out of memory has added nothing to the parameters
        for parameter, gradient in zip(parameters, sums, strict=True):
            parameter.grad = added(parameter.grad, gradient)
        return losses


def strategy_for(device: torch.device, functional: bool, inner_loop: bool) -> Strategy:
    """Return what suits a device and an algorithm.

    Args:
        device: a CPU or a GPU.
        functional: see `metabench.api.Algorithm.functional`.
        inner_loop: see `metabench.api.Algorithm.inner_loop`.
    """
    if not functional:
        return InOrder()
    if device.type != "cpu":
        return Vectorised(device)
    # Where a whole episode goes through a network at once, several threads for it are better than one each for several.
    threads = torch.get_num_threads()
    return SideBySide(threads) if inner_loop and threads > 1 else InOrder()


def is_vectorised() -> bool:
    """Return whether this is called within the work of an episode that `Vectorised` does for many at once."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def gradients(
    loss: Callable[[Weights], Tensor], weights: Weights, differentiable: bool = False
) -> tuple[dict[str, Tensor], Tensor]:
    """Return the gradients of a scalar loss within the work of an episode, and the loss itself.

    Args:
        loss: of the weights.
        weights: where the gradients are taken.
        differentiable: whether they will themselves be differentiated.
    """
    if is_vectorised():  # which autograd by itself does not see through
        found, value = torch.func.grad_and_value(loss)(dict(weights))
        return found if differentiable else {name: one.detach() for name, one in found.items()}, value.detach()
    # Weights of an earlier step that was not recorded start a graph of their own.
    own = {
        name: weight if weight.requires_grad else weight.detach().requires_grad_() for name, weight in weights.items()
    }
    with torch.enable_grad():
        value = loss(own)
        found = torch.autograd.grad(value, list(own.values()), create_graph=differentiable)
    return dict(zip(weights, found, strict=True)), value.detach()


def of_each(operation: str, *operands: list[Tensor] | float, **options: float) -> list[Tensor]:
    """Return what a function of torch, such as ``add``, makes of each of many tensors.

    Args:
        operation: its name.
        operands: lists of equally many tensors, the first one at least; a number goes with each of them.
        options: of the function.
    """
    if not is_vectorised():
        # One call for all the weights of a network takes a fraction of the time of a call for each.
        return list(getattr(torch, f"_foreach_{operation}")(*operands, **options))
    function = getattr(torch, operation)
    count = len(operands[0]) if isinstance(operands[0], list) else 0
    rows = [[operand[i] if isinstance(operand, list) else operand for operand in operands] for i in range(count)]
    return [function(*row, **options) for row in rows]


def leaves_traces(module: nn.Module) -> bool:
    """Return whether an episode in training may change what the next one meets: buffers, or the random generator."""
    dropouts = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
    return next(module.buffers(), None) is not None or any(isinstance(part, dropouts) for part in module.modules())


def twin(module: _M) -> _M:
    """Return a module with the same weights in the same memory, but gradients and submodules of its own.

    A thread may then swap weights in and out of it, and call ``backward``, without being seen by others.
    """
    parameters: dict[nn.Parameter, nn.Parameter] = {}
    modules: dict[nn.Module, nn.Module] = {}

    def twin_of_parameter(parameter: nn.Parameter) -> nn.Parameter:
        if parameter not in parameters:
            parameters[parameter] = nn.Parameter(parameter.detach(), parameter.requires_grad)
        return parameters[parameter]

    def twin_of(part: nn.Module) -> nn.Module:
        if part not in modules:
            # What nn.DataParallel copies modules with; recurrent layers keep a list of their weights, and mend it.
            own = modules[part] = part._replicate_for_data_parallel()  # type: ignore[no-untyped-call]
            for name, child in part._modules.items():
                own._modules[name] = None if child is None else twin_of(child)
            for name, parameter in part._parameters.items():
                setattr(own, name, None if parameter is None else twin_of_parameter(parameter))
        return modules[part]

    return twin_of(module)  # type: ignore[return-value]


def added(gradient: Tensor | None, another: Tensor | None) -> Tensor | None:
    """Return the sum of two gradients, where None is that of a parameter that was not used."""
    if gradient is None or another is None:
        return gradient if another is None else another
    return gradient + another
