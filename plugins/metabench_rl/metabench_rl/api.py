"""What a task family, a policy and an algorithm are.

Shapes: B tasks, T trajectories of each task, H steps of a trajectory, O numbers of an observation, A of an action.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel
from torch import Tensor, nn, optim

Split = Literal["train", "validation", "test"]
#: The sum of an episode's rewards, or whether its goal was reached at any step.
Metric = Literal["return", "success"]


@dataclass(frozen=True)
class Size:
    """Sizes of a task family.

    Attributes:
        observation: O, numbers of an observation.
        action: A, numbers of an action.
        horizon: H, most steps of an episode.
    """

    observation: int
    action: int
    horizon: int


@dataclass(frozen=True)
class Tasks:
    """Tasks of a family, each a pure function of split and number.

    Attributes:
        split: the split.
        numbers: the B numbers.
        goals: [B, G] numbers that make the tasks; [B, 0] where they are hidden.
    """

    split: Split
    numbers: Sequence[int]
    goals: Tensor

    def hidden(self) -> Tasks:
        """Return the tasks without their goals, as a method sees them."""
        return replace(self, goals=self.goals.new_empty(len(self.numbers), 0))


class Seen(NamedTuple):
    """What a policy sees at a step.

    Attributes:
        observation: [B, T, O] observation.
        action: [B, T, A] action of the step before; 0 at the first step of an episode.
        reward: [B, T] reward of the step before; 0 at the first step of an episode.
        first: whether it is the first step of an episode.
    """

    observation: Tensor
    action: Tensor
    reward: Tensor
    first: bool


class Act(NamedTuple):
    """The distribution of an action, a diagonal Gaussian.

    Attributes:
        mean: [B, T, A] means.
        log_std: logarithm of the standard deviations, broadcastable to [B, T, A].
        memory: what the policy remembers.
    """

    mean: Tensor
    log_std: Tensor
    memory: Any = None


class Policy(Protocol):
    """A policy for each of B tasks."""

    @property
    def memory(self) -> Any:
        """Return the memory at the first step, broadcastable to T trajectories."""

    def act(self, seen: Seen, memory: Any) -> Act:
        """Return the distribution of the next action."""


class Step(NamedTuple):
    """What an environment answers.

    Attributes:
        observation: [B, T, O] next observation.
        reward: [B, T] reward.
        ended: [B, T] whether the episode has ended.
        success: [B, T] whether the goal is reached at this step.
    """

    observation: Tensor
    reward: Tensor
    ended: Tensor
    success: Tensor


class Environment(Protocol):
    """T copies of each of B tasks, stepped together."""

    def reset(self) -> Tensor:
        """Return the [B, T, O] first observations of new episodes."""

    def step(self, action: Tensor) -> Step:
        """Make a step; actions beyond [-1, 1] are clipped. Copies whose episode has ended stay as they are."""


class TaskFamily(Protocol):
    """Tasks that share observations and actions, and differ in a goal that no observation shows.

    Attributes:
        metrics: the metrics of an episode, of which the first ranks.
        at_once: tasks of which a test steps the environments together.
    """

    metrics: ClassVar[Sequence[Metric]]
    at_once: ClassVar[int]

    @property
    def size(self) -> Size:
        """Return the sizes."""

    @property
    def identity(self) -> dict[str, Any]:
        """Return what makes the tasks, as plain data: the key of goals and noise."""

    def tasks(self, split: Split, numbers: Sequence[int]) -> Tasks:
        """Return the tasks of some numbers; no task of a split is one of another split."""

    def environment(self, tasks: Tasks, trajectories: int) -> Environment:
        """Return an environment of each task, T times."""

    def expert(self, tasks: Tasks) -> Policy:
        """Return a policy that knows the goals."""

    def frames(self, tasks: Tasks, actions: Tensor) -> Sequence[npt.NDArray[np.uint8]]:
        """Return pictures of an episode whose actions are taken again, for an animation.

        Args:
            tasks: one task.
            actions: [1, 1, H, A] actions.

        Returns:
            [height, width, 3] pictures of equal size; none where nothing is rendered.
        """


@dataclass(frozen=True)
class Trajectories:
    """T episodes of each of B tasks.

    Attributes:
        observations: [B, T, H, O] observations.
        actions: [B, T, H, A] actions, not clipped.
        rewards: [B, T, H] rewards; 0 after the end of an episode.
        log_probs: [B, T, H] log-probabilities of the actions under the policy that acted.
        alive: [B, T, H] 1 until the episode has ended, then 0.
        success: [B, T] whether the goal was reached at any step.
        memory: what the policy remembers after the last step.
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    log_probs: Tensor
    alive: Tensor
    success: Tensor
    memory: Any = None

    @property
    def mean_return(self) -> float:
        """Return the mean sum of rewards."""
        return self.rewards.sum(dim=2).mean().item()

    def measured(self, metric: Metric) -> Tensor:
        """Return the [B] means of a metric over the episodes, in float64."""
        values = self.rewards.double().sum(dim=2) if metric == "return" else self.success.double()
        return values.mean(dim=1)


class Collect(Protocol):
    """Collects episodes of the tasks at hand; every step is counted."""

    def __call__(self, policy: Policy, episodes: int) -> Trajectories:
        """Return `episodes` episodes of each task.

        Raises:
            CellFailed: in a test, the episodes are more than the round has left.
        """


@dataclass(frozen=True)
class Setup:
    """What an algorithm is made for.

    Attributes:
        family: the task family.
        episodes: episodes of a task that one round of adaptation may use.
        rounds: rounds of adaptation in a test.
    """

    family: TaskFamily
    episodes: int
    rounds: int


class Algorithm(nn.Module, abc.ABC):
    """Policies that adapt to a task; a subclass is one method.

    Attributes:
        config: the parameters.
        setup: what it is made for.
    """

    #: Whether it is trained.
    trains: ClassVar[bool] = True
    #: Whether it sees the goals: an oracle.
    sees_goals: ClassVar[bool] = False
    #: Training tasks of an update.
    tasks_per_update: int = 0
    #: Episodes of each task of an update.
    episodes_per_task: int = 0
    #: The optimiser, whose state is part of a checkpoint.
    optimiser: optim.Optimizer

    def __init__(self, config: BaseModel, setup: Setup) -> None:
        super().__init__()
        self.config, self.setup = config, setup

    @abc.abstractmethod
    def policy(self, tasks: Tasks) -> Policy:
        """Return the policies of some tasks before any adaptation.

        Args:
            tasks: the tasks, with hidden goals unless it `sees_goals`.
        """

    def shown(self, tasks: Tasks) -> Tasks:
        """Return tasks as this method may see them."""
        return tasks if self.sees_goals else tasks.hidden()

    def adapt(self, policy: Policy, collect: Collect, done: int) -> Policy:
        """Return the policies after one more round of adaptation.

        Args:
            policy: the policies of the tasks.
            collect: collects at most `Setup.episodes` episodes of each task.
            done: number of rounds before.
        """
        return policy

    def update(self, tasks: Tasks, collect: Collect) -> float:
        """Make an outer update from `episodes_per_task` episodes of each task; return its mean return.

        That is the mean return of the episodes that the update makes likelier or less likely: after adaptation, if the
        method adapts in training. Every algorithm that a suite trains overrides this method.
        """
        raise NotImplementedError(f"{type(self).__name__} is trained: define update(tasks, collect)")
