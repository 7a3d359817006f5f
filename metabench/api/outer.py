"""The outer optimiser of algorithms that are trained on a loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor, nn
from torch.optim.lr_scheduler import StepLR

from metabench.api.config import Config
from metabench.errors import Unfit


class AlgorithmConfig(Config):
    """Parameters of an algorithm's outer optimiser, Adam.

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


class OuterOptimiser:
    """Adam with its learning-rate schedule and clipping.

    Args:
        parameters: the trained parameters.
        config: an `AlgorithmConfig`.

    Raises:
        TypeError: the config has no learning rate.
        Unfit: there is no trained parameter.
    """

    def __init__(self, parameters: Sequence[Tensor], config: Config) -> None:
        if not isinstance(config, AlgorithmConfig):
            raise TypeError(
                f"{type(config).__name__} is no metabench.api.AlgorithmConfig: subclass it, or override train_step, "
                "training_state and load_training_state"
            )
        if not parameters:
            raise Unfit("the backbone is frozen and the algorithm has no weights of its own: there is nothing to train")
        self._parameters = parameters
        self._clip = config.clip
        # Fused: in a small network, one call per weight would take longer than the computation.
        self._adam = torch.optim.Adam(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True)
        self._schedule = StepLR(self._adam, config.halve_lr_every, gamma=0.5) if config.halve_lr_every else None

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self._adam.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Clip the gradients, and make one step."""
        if self._clip is not None:
            nn.utils.clip_grad_norm_(self._parameters, self._clip)
        self._adam.step()
        if self._schedule is not None:
            self._schedule.step()

    def state(self) -> dict[str, Any]:
        """Return the state of Adam and of the schedule."""
        return {"optimiser": self._adam.state_dict(), "schedule": self._schedule.state_dict() if self._schedule else {}}

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore the result of `state`."""
        self._adam.load_state_dict(state["optimiser"])
        if self._schedule is not None:
            self._schedule.load_state_dict(state["schedule"])
