"""Few-shot learners."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from metabench.api.backbones import Backbone
from metabench.api.batching import Batching, Sequential
from metabench.api.config import Config
from metabench.api.episodes import Episodes

#: The metrics of `Algorithm.meta_step`: scalar tensors, left on the device so that the host need not wait.
Metrics = Mapping[str, Tensor]


@dataclass(frozen=True)
class Setup:
    """The parts of a cell that its algorithm needs.

    Attributes:
        backbone: the feature extractor, which the algorithm then owns.
        way: N of the test episodes.
        train_way: N of the training episodes.
        train_steps: number of calls of `Algorithm.meta_step`.
    """

    backbone: Backbone
    way: int
    train_way: int
    train_steps: int


# No base `abc.ABC`: libraries that subclass it with a base of their own put ABC before Module, or after it.
class Algorithm(nn.Module, metaclass=abc.ABCMeta):
    """A few-shot learner.

    The engine calls `train()` before `meta_step` and `eval()` before `predict`, and seeds torch's default generator
    before each. Draw all randomness from that generator: a step is then a function of the weights, the optimiser state
    and the episodes.

    Args:
        config: an instance of `Config`.
        setup: the backbone, and the sizes of the cell.
    """

    Config: ClassVar[type[Config]] = Config
    #: Whether the result for an episode is a function of the weights and the episode, made of tensor operations: no
    #: random numbers, no state, no control flow on tensor values (``.item()``, ``if``), and inner gradients taken with
    #: `gradients`. The engine may then vectorise over episodes on a GPU.
    functional: bool = False
    #: Whether the algorithm learns within an episode, in operations too small to keep several cores busy. If it is also
    #: `functional`, the engine runs episodes in several threads on a CPU.
    inner_loop: bool = False
    #: The batching of test episodes; the engine sets the fastest one for the device.
    batching: Batching = Sequential()
    #: Whether `predict` draws random numbers; the engine tries it, and then asks for one episode at a time.
    draws: bool = False
    #: The batching of training episodes; in order if an episode draws random numbers or changes the next one.
    training_batching: Batching = Sequential()

    def __init__(self, config: Any, setup: Setup) -> None:
        super().__init__()
        self.config = config
        self.backbone = setup.backbone

    @abc.abstractmethod
    def meta_step(self, episodes: Episodes) -> Metrics:
        """Make one outer update from a meta-batch; return at least ``{"loss": scalar}``."""

    @abc.abstractmethod
    def predict(self, support_x: Tensor, support_y: Tensor, query_x: Tensor, way: int) -> Tensor:
        """Classify the queries of B episodes, each episode on its own.

        Parameters, buffers and optimiser state must stay as they were, bit for bit.

        Args:
            support_x: [B, N·K, C, H, W] support images.
            support_y: [B, N·K] support labels 0 … N-1.
            query_x: [B, M, C, H, W] queries, without their labels.
            way: N.

        Returns:
            [B, M, N] finite scores; the largest score of a query is its prediction. The scores of an episode must not
            depend on the rest of the batch.
        """

    def predict_alone(self, support_x: Tensor, support_y: Tensor, query_x: Tensor, way: int) -> Tensor:
        """Classify each query of one episode as if it were the only one.

        Takes and returns the same as `predict`, with B = 1. Override it only to return the same scores faster, e.g.
        by learning from the support set once for all queries.
        """
        scores = [self.predict(support_x, support_y, query, way) for query in torch.split(query_x, 1, dim=1)]
        return torch.cat(scores, dim=1)

    def training_state(self) -> dict[str, Any]:
        """Return the state that `state_dict` lacks (optimisers, counters), as plain data and tensors."""
        return {}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Restore the result of `training_state`."""
