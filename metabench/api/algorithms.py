"""Few-shot learners."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from metabench.api.backbones import Backbone
from metabench.api.batching import Batching, Sequential, carries_state_between_episodes
from metabench.api.config import Config
from metabench.api.episodes import Episodes

#: What `meta_step` reports: scalar tensors, still on the device, so that nothing waits for it.
Metrics = Mapping[str, Tensor]


@dataclass(frozen=True)
class Setup:
    """What an algorithm is told about the cell that it is built for.

    Attributes:
        backbone: the feature extractor; the algorithm owns it from now on.
        way: N of the test episodes.
        train_way: N of the training episodes.
        train_steps: how many times `meta_step` will be called.
    """

    backbone: Backbone
    way: int
    train_way: int
    train_steps: int


class Algorithm(nn.Module, abc.ABC):
    """A few-shot learner.

    The harness calls `train()` before `meta_step`, and `eval()` before `predict`. Randomness comes from torch's
    default generator, which it seeds before both: a step is then a function of the weights, the optimiser's
    state and the episodes alone.

    Args:
        config: an instance of `Config`.
        setup: the backbone, and what is known of the cell.
    """

    Config: ClassVar[type[Config]] = Config
    #: Whether the work on an episode is a function of weights and episode alone, made of tensor operations: it draws no
    #: random numbers, keeps nothing, does not look into tensors (``.item()``, ``if``), and takes inner gradients with
    #: `gradients`. The harness may then do several episodes at once: vectorised on a GPU.
    functional: bool = False
    #: Whether it learns within an episode, by operations too small to keep several cores busy. If it is functional,
    #: too, episodes are done side by side on a CPU.
    inner_loop: bool = False
    #: How the episodes of a batch are worked through; the engine sets what suits the device.
    batching: Batching = Sequential()

    def __init__(self, config: Any, setup: Setup) -> None:
        super().__init__()
        self.config = config
        self.backbone = setup.backbone

    @property
    def training_batching(self) -> Batching:
        """Return how the episodes of a meta-batch are worked through: in order where one leaves traces for the next."""
        return self.batching if self.functional and not carries_state_between_episodes(self.backbone) else Sequential()

    @abc.abstractmethod
    def meta_step(self, episodes: Episodes) -> Metrics:
        """Make one outer update from a meta-batch, and report at least ``{"loss": scalar}``."""

    @abc.abstractmethod
    def predict(self, support_x: Tensor, support_y: Tensor, query_x: Tensor, way: int) -> Tensor:
        """Classify the queries of B episodes; each episode on its own.

        It leaves parameters, buffers and optimiser state as they were, bit for bit.

        Args:
            support_x: [B, N·K, C, H, W].
            support_y: [B, N·K] labels 0 … N-1.
            query_x: [B, M, C, H, W]; there are no query labels here.
            way: N.

        Returns:
            [B, M, N] scores; the largest is the prediction. They must not depend on the batch that an episode
            is in: an algorithm that draws random numbers here takes a generator of its own for each episode.
        """

    def predict_alone(self, support_x: Tensor, support_y: Tensor, query_x: Tensor, way: int) -> Tensor:
        """Classify each query as if it were the only one of its episode; the rest is as in `predict`.

        Another implementation than this one returns the same, in less time: it may learn from the support set once for
        all queries of an episode.
        """
        queries = query_x.shape[1]
        scores = self.predict(
            support_x.repeat_interleave(queries, dim=0),
            support_y.repeat_interleave(queries, dim=0),
            query_x.flatten(0, 1).unsqueeze(1),
            way,
        )
        return scores.reshape(len(query_x), queries, way)

    def training_state(self) -> dict[str, Any]:
        """Return what a checkpoint needs beyond `state_dict` (optimisers, counters): plain data and tensors."""
        return {}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `training_state` returned."""
