"""The outer optimiser of algorithms that are trained on a loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from metabench.api.config import Config
from metabench.errors import Unfit
from metabench.specs import Float, SearchRange


class AlgorithmConfig(Config):
    """Parameters of an algorithm's outer optimiser.

    Attributes:
        optimiser: Adam, AdamW (decoupled weight decay) or SGD.
        lr: learning rate after the warm-up.
        momentum: momentum of SGD.
        nesterov: whether SGD's momentum is Nesterov's.
        weight_decay: L2 penalty of Adam and SGD; decay of AdamW.
        warm_up: number of steps in which the learning rate rises linearly to `lr`.
        schedule: the learning rate after the warm-up: constant, falling in steps, or falling to 0 along half a cosine
            until the last step of the training.
        decay_every: number of steps after which the schedule ``step`` multiplies the learning rate by `decay`, again
            and again.
        decay_at: parts of the training, e.g. ``[0.6, 0.8]``, after which the schedule ``step`` does so.
        decay: the factor of the schedule ``step``.
        clip: largest norm of the gradient, which is scaled down to it; None never scales.
    """

    search_space: ClassVar[Mapping[str, SearchRange]] = {"lr": Float(1e-4, 1e-2, log=True)}

    optimiser: Literal["adam", "adamw", "sgd"] = "adam"
    lr: PositiveFloat = 1e-3
    momentum: float = Field(default=0.0, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: NonNegativeFloat = 0.0
    warm_up: int = Field(default=0, ge=0)
    schedule: Literal["constant", "step", "cosine"] = "constant"
    decay_every: PositiveInt | None = None
    decay_at: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = ()
    decay: float = Field(default=0.5, gt=0, lt=1)
    clip: PositiveFloat | None = None

    @model_validator(mode="after")
    def _consistent(self) -> AlgorithmConfig:
        if self.optimiser != "sgd" and (self.momentum or self.nesterov):
            raise ValueError(f"momentum and nesterov are parameters of sgd, and the optimiser is {self.optimiser}")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum")
        if self.schedule == "step" and self.decay_every is None and not self.decay_at:
            raise ValueError("the schedule step needs decay_every (steps) or decay_at (parts of the training)")
        return self


def lr_factor(config: AlgorithmConfig, step: int, steps: int) -> float:
    """Return the factor of the learning rate in an outer update.

    Args:
        config: the schedule.
        step: number of updates made before.
        steps: number of updates of the training; 0 where none is known, for schedules that do not need it.
    """
    if step < config.warm_up:
        return (step + 1) / (config.warm_up + 1)
    if config.schedule == "cosine":
        done = (step - config.warm_up) / max(1, steps - config.warm_up)
        return (1 + math.cos(math.pi * min(1.0, done))) / 2
    if config.schedule == "step":
        falls = step // config.decay_every if config.decay_every else 0
        falls += sum(step >= part * steps for part in config.decay_at)
        return config.decay**falls
    return 1.0


class OuterOptimiser:
    """Adam, AdamW or SGD with a learning-rate schedule and clipping.

    Args:
        parameters: the trained parameters.
        config: an `AlgorithmConfig`.
        steps: number of outer updates of the training.
        multipliers: factors of the learning rate, one for each parameter; by default 1.

    Raises:
        TypeError: the config has no learning rate.
        Unfit: there is no trained parameter.
    """

    def __init__(
        self, parameters: Sequence[Tensor], config: Config, steps: int, multipliers: Sequence[float] | None = None
    ) -> None:
        if not isinstance(config, AlgorithmConfig):
            raise TypeError(
                f"{type(config).__name__} is no metabench.api.AlgorithmConfig: subclass it, or override train_step, "
                "training_state and load_training_state"
            )
        if not parameters:
            raise Unfit("the backbone is frozen and the algorithm has no weights of its own: there is nothing to train")
        self._parameters = parameters
        self._clip = config.clip
        self._optimiser = _optimiser(_groups(parameters, config.lr, multipliers), config)
        # A function of the step's number: a resumed training needs no other state of the schedule.
        changes = config.warm_up > 0 or config.schedule != "constant"
        self._schedule = LambdaLR(self._optimiser, lambda step: lr_factor(config, step, steps)) if changes else None

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self._optimiser.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Clip the gradients, and make one step."""
        if self._clip is not None:
            nn.utils.clip_grad_norm_(self._parameters, self._clip)
        self._optimiser.step()
        if self._schedule is not None:
            self._schedule.step()

    def state(self) -> dict[str, Any]:
        """Return the state of the optimiser and of the schedule."""
        schedule = self._schedule.state_dict() if self._schedule else {}
        return {"optimiser": self._optimiser.state_dict(), "schedule": schedule}

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore the result of `state`."""
        self._optimiser.load_state_dict(state["optimiser"])
        if self._schedule is not None:
            self._schedule.load_state_dict(state["schedule"])


def _groups(parameters: Sequence[Tensor], lr: float, multipliers: Sequence[float] | None) -> list[dict[str, Any]]:
    """Return torch's parameter groups, one for each learning rate."""
    groups: dict[float, list[Tensor]] = {}
    for parameter, factor in zip(parameters, multipliers or [1.0] * len(parameters), strict=True):
        groups.setdefault(factor, []).append(parameter)
    return [{"params": members, "lr": lr * factor} for factor, members in groups.items()]


def _optimiser(parameters: list[dict[str, Any]], config: AlgorithmConfig) -> torch.optim.Optimizer:
    # Fused: in a small network, one call per weight would take longer than the computation.
    shared: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay, "fused": True}
    if config.optimiser == "sgd":
        return torch.optim.SGD(parameters, momentum=config.momentum, nesterov=config.nesterov, **shared)
    return (torch.optim.AdamW if config.optimiser == "adamw" else torch.optim.Adam)(parameters, **shared)
