"""Algorithms trained by an outer optimiser on a loss."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor, nn
from torch.optim.lr_scheduler import StepLR

from metabench.api.algorithms import Algorithm, Metrics, Setup
from metabench.api.config import Config
from metabench.api.episodes import Episodes


class AlgorithmConfig(Config):
    """Parameters of `OptimisedAlgorithm`, whose outer optimiser is Adam.

    Attributes:
        lr: learning rate of Adam.
        weight_decay: L2 penalty of Adam.
        halve_lr_every: number of steps after which the learning rate is halved; 0 keeps it.
        clip: largest norm of the gradient, which is scaled down to it; None never scales.
    """

    lr: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 0.0
    halve_lr_every: int = Field(default=0, ge=0)
    clip: PositiveFloat | None = None


class OptimisedAlgorithm(Algorithm):
    """An algorithm trained by Adam on `episode_loss`; subclasses define `episode_scores`.

    `Algorithm.training_batching` accumulates the gradients over the episodes of a meta-batch, so that memory does not
    grow with it.
    """

    Config: ClassVar[type[Config]] = AlgorithmConfig

    def __init__(self, config: AlgorithmConfig, setup: Setup) -> None:
        super().__init__(config, setup)
        self._optimiser: torch.optim.Optimizer | None = None
        self._schedule: StepLR | None = None

    @abc.abstractmethod
    def episode_scores(self, support_x: Tensor, support_y: Tensor, query_x: Tensor, way: int) -> Tensor:
        """Return the [M, N] scores of the queries of one episode.

        `predict` calls this under `torch.no_grad`. Take inner gradients by `metabench.api.gradients`, which enables
        them for its loss, or enable them by `torch.enable_grad`.

        Args:
            support_x: [N·K, C, H, W] support images.
            support_y: [N·K] support labels 0 … N-1.
            query_x: [M, C, H, W] queries.
            way: N.
        """

    def episode_loss(self, support_x: Tensor, support_y: Tensor, query_x: Tensor, query_y: Tensor, way: int) -> Tensor:
        """Return the scalar loss of one training episode; by default, the scores' cross-entropy."""
        return nn.functional.cross_entropy(self.episode_scores(support_x, support_y, query_x, way), query_y)

    @torch.no_grad()
    def predict(self, support_x: Tensor, support_y: Tensor, query_x: Tensor, way: int) -> Tensor:
        """See `Algorithm.predict`."""
        self.eval()

        def scores(learner: OptimisedAlgorithm, *episode: Tensor) -> tuple[Tensor]:
            support_x, support_y, query_x = episode
            return (learner.episode_scores(support_x, support_y, query_x, way),)

        return self.batching.map(scores, self, support_x, support_y, query_x)[0]

    def meta_step(self, episodes: Episodes) -> Metrics:
        """Make one step of Adam on the mean loss of the episodes."""
        self.train()
        optimiser = self._adam()
        optimiser.zero_grad(set_to_none=True)

        def loss(learner: OptimisedAlgorithm, *episode: Tensor) -> Tensor:
            support_x, support_y, query_x, query_y = episode
            return learner.episode_loss(support_x, support_y, query_x, query_y, episodes.way)

        batch = episodes.support_x, episodes.support_y, episodes.query_x, episodes.query_y
        losses = self.training_batching.backward(loss, self, *batch)
        if self.config.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters(), self.config.clip)
        optimiser.step()
        if self._schedule is not None:
            self._schedule.step()
        return {"loss": losses.mean()}

    def training_state(self) -> dict[str, Any]:
        """Return the state of Adam and its learning-rate schedule."""
        optimiser = self._adam().state_dict()
        return {"optimiser": optimiser, "schedule": self._schedule.state_dict() if self._schedule else {}}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Restore the result of `training_state`."""
        self._adam().load_state_dict(state["optimiser"])
        if self._schedule is not None:
            self._schedule.load_state_dict(state["schedule"])

    def _adam(self) -> torch.optim.Optimizer:
        """Return Adam, created on first use.

        The constructor is too early: subclasses add parameters after it, and the engine then moves them to the device.
        """
        if self._optimiser is None:
            # Fused: in a small network, one call per weight would take longer than the computation.
            self._optimiser = torch.optim.Adam(
                self.parameters(), lr=self.config.lr, weight_decay=self.config.weight_decay, fused=True
            )
            if self.config.halve_lr_every:
                self._schedule = StepLR(self._optimiser, self.config.halve_lr_every, gamma=0.5)
        return self._optimiser
