"""Choose the batchings of an algorithm by trying it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from metabench.api import Algorithm, Episodes
from metabench.api.batching import Batching, Sequential
from metabench.engine.asking import predict
from metabench.engine.batching import InOrder, Threaded, Vmapped
from metabench.engine.features import FEATURES_AT_ONCE
from metabench.machine.reproducible import generator_states

#: Images of the episodes that a CPU vectorises at once: more cost memory, fewer leave the calls unamortised.
IMAGES_AT_ONCE = 400

_M = TypeVar("_M", bound=nn.Module)
_T = TypeVar("_T")


def batching_for(
    device: torch.device, functional: bool, inner_loop: bool, embedded: bool = False, vectors: bool = False
) -> Batching:
    """Return the fastest batching for a device and an algorithm.

    Args:
        device: a CPU or a GPU.
        functional: see `metabench.api.Algorithm.functional`.
        inner_loop: see `metabench.api.Algorithm.inner_loop`.
        embedded: whether episodes consist of features.
        vectors: whether episodes consist of vectors that are no features.
    """
    if not functional:
        return InOrder()
    if device.type != "cpu":
        return Vmapped(device)
    # An episode of vectors is mostly calls: MAML's step on 25 sinusoids takes 4 ms of a core instead of 17, and 3
    # instead of 12 with first-order gradients.
    if vectors or (embedded and not inner_loop):
        return Vmapped(device, FEATURES_AT_ONCE)
    # Without an inner loop, an episode is one large batch of images: several threads per image batch are faster than
    # one thread per episode.
    threads = torch.get_num_threads()
    return Threaded(threads) if inner_loop and threads > 1 else InOrder()


def vectorised_on_cpu(device: torch.device, images: int) -> Batching:
    """Return the batching of second-order training on a CPU, where the backbone vectorises.

    Args:
        device: the CPU.
        images: number of images of an episode.
    """
    within, threads = Vmapped(device, max(1, IMAGES_AT_ONCE // images)), torch.get_num_threads()
    return Threaded(threads, within) if threads > 1 else within


def _vectorises(algorithm: Algorithm) -> bool:
    # First-order inner loops are faster one by one; products rounded to bfloat16 have not been measured.
    backbone = algorithm.backbone
    return algorithm.second_order and backbone.vectorises and backbone.autocast is None


@dataclass(frozen=True)
class Purity:
    """Whether results are functions of weights and episode, as tried on some episodes.

    Attributes:
        training: whether a training episode neither draws random numbers nor changes a buffer (running averages).
        testing: the same of a test episode.
    """

    training: bool = False
    testing: bool = False


def purity_of(algorithm: Algorithm, episodes: Episodes, trains: bool = True) -> Purity:
    """Let a copy of the algorithm train on episodes and predict them, in order.

    Args:
        algorithm: the algorithm, before its training.
        episodes: a few training episodes.
        trains: whether it will be trained; else, or if it trains on images, it only predicts.
    """
    trains = trains and algorithm.trains_on == "episodes"
    training, testing = _Trial(), _Trial()
    try:
        tried = copy.deepcopy(algorithm)
        tried.batching, tried.training_batching = testing, training
        tried.train()
        if trains:
            tried.train_step(episodes)
        predict(tried, episodes, 0, 0)
    except Exception:  # it cannot be copied, or the same error will end the cell with its own message
        return Purity()
    return Purity(training.pure and trains, testing.pure)


def set_batchings(algorithm: Algorithm, episodes: Episodes, trains: bool = True) -> None:
    """Set the fastest batchings that keep results functions of weights and episode.

    Args:
        algorithm: the algorithm, before its training.
        episodes: a few episodes.
        trains: whether it will be trained.
    """
    x, embedded = episodes.support_x, episodes.embedded
    vectors = x.ndim == 3 and not embedded
    fastest = batching_for(x.device, algorithm.functional, algorithm.inner_loop, embedded, vectors)
    in_training = fastest
    if isinstance(fastest, InOrder | Threaded) and algorithm.functional and _vectorises(algorithm):
        in_training = vectorised_on_cpu(x.device, x.shape[1] + episodes.query_x.shape[1])
    purity = purity_of(algorithm, episodes, trains)
    algorithm.training_batching = in_training if purity.training else InOrder()
    algorithm.batching = fastest if purity.testing else InOrder()


class _Trial(Sequential):
    """Work in order; note whether episodes draw random numbers or change a buffer.

    Attributes:
        pure: whether no episode did.
    """

    def __init__(self) -> None:
        self.pure = True

    def map(self, work: Callable[..., tuple[Tensor, ...]], module: _M, *batch: Tensor) -> tuple[Tensor, ...]:
        """See `metabench.api.Batching.map`."""
        return super().map(self._watched(work), module, *batch)

    def add_gradients(self, loss: Callable[..., Tensor], module: _M, part: Sequence[Tensor], count: int) -> Tensor:
        """See `metabench.api.batching.Sequential.add_gradients`."""
        return super().add_gradients(self._watched(loss), module, part, count)

    def _watched(self, work: Callable[..., _T]) -> Callable[..., _T]:
        def watched(module: nn.Module, *episode: Tensor) -> _T:
            generators = generator_states()
            buffers = [buffer.clone() for buffer in module.buffers()]
            result = work(module, *episode)
            self.pure = self.pure and _equal([*generators, *buffers], [*generator_states(), *module.buffers()])
            return result

        return watched


def _equal(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    """Return whether two lists of tensors are equal, bit for bit."""
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
