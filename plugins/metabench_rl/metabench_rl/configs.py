"""Parameters of the algorithms; this module imports no torch, so that a plan needs none."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt


class Config(BaseModel):
    """Parameters of an algorithm."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ScriptedConfig(Config):
    """The oracle has no parameters."""


class GradientConfig(Config):
    """Parameters of policies that adapt by policy-gradient steps.

    Attributes:
        hidden: units of each of the two hidden layers.
        tanh: whether the hidden layers are tanh, instead of ReLU.
        init_std: first standard deviation of the actions.
        inner_lr: rate of the first step of adaptation.
        later_inner_lr: rate of the later ones.
        discount: discount of a later reward.
        gae_lambda: λ of the generalised advantages.
    """

    hidden: PositiveInt = 100
    tanh: bool = False
    init_std: PositiveFloat = 1.0
    inner_lr: PositiveFloat = 0.5
    later_inner_lr: PositiveFloat = 0.25
    discount: float = Field(default=0.99, ge=0, le=1)
    gae_lambda: float = Field(default=1.0, ge=0, le=1)


class OuterConfig(Config):
    """Parameters of an outer loop of PPO.

    Attributes:
        tasks: tasks of an update.
        episodes: episodes of each task, before and after each step of adaptation.
        lr: rate of Adam.
        epochs: passes over the episodes of an update.
        clip: bound of PPO's ratio.
        max_grad_norm: bound of the norm of the gradient.
    """

    tasks: PositiveInt = 20
    episodes: PositiveInt = 20
    lr: PositiveFloat = 1e-3
    epochs: PositiveInt = 5
    clip: PositiveFloat = 0.2
    max_grad_norm: PositiveFloat = 1.0

    @property
    def episodes_per_task(self) -> int:
        """Return the number of episodes of each task in an update: MAML adapts from half of them."""
        return 2 * self.episodes


class RandomConfig(GradientConfig):
    """Parameters of the untrained policy."""


class MAMLConfig(GradientConfig, OuterConfig):
    """Parameters of MAML."""


class PretrainedConfig(GradientConfig, OuterConfig):
    """Parameters of the pretrained policy; `episodes` are doubled, so that an update has as many steps as MAML's."""


class RL2Config(OuterConfig):
    """Parameters of RL²: many small updates, since a memory learns slowly.

    Attributes:
        tasks: tasks of an update.
        episodes: trials of each task.
        hidden: units of the GRU.
        init_std: first standard deviation of the actions.
        trial: episodes of a trial, through which the memory goes on; the last one is not adapted to.
        discount: discount of a later reward, across episodes.
        gae_lambda: λ of the generalised advantages.
        entropy: weight of the entropy in the objective.
    """

    tasks: PositiveInt = 40
    episodes: PositiveInt = 2
    hidden: PositiveInt = 64
    init_std: PositiveFloat = 1.0
    trial: int = Field(default=2, ge=2)
    discount: float = Field(default=0.99, ge=0, le=1)
    gae_lambda: float = Field(default=1.0, ge=0, le=1)
    entropy: NonNegativeFloat = 0.0

    @property
    def episodes_per_task(self) -> int:
        """Return the number of episodes of each task in an update: `trial` in each of `episodes` trials."""
        return self.trial * self.episodes


#: Class of the parameters, and target of the algorithm, by name.
ALGORITHMS: dict[str, tuple[type[Config], str]] = {
    "maml-ppo": (MAMLConfig, "metabench_rl.algorithms.maml_ppo:MAML"),
    "pretrained": (PretrainedConfig, "metabench_rl.algorithms.pretrained:Pretrained"),
    "random": (RandomConfig, "metabench_rl.algorithms.untrained:Untrained"),
    "rl2": (RL2Config, "metabench_rl.algorithms.rl2:RL2"),
    "scripted": (ScriptedConfig, "metabench_rl.algorithms.scripted:Scripted"),
}
