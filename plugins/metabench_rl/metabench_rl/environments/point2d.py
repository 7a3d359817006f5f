"""2-D navigation (Finn et al. 2017, section 5.3.1): a point moves to a goal that it does not see.

As in the paper's code: the point starts at (0, 0), goals are uniform in [-0.5, 0.5]², an action moves it by at most 0.1
in each direction, the reward is the negative distance, and an episode ends within 0.01 of the goal in both directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from metabench_rl.api import Act, Metric, Seen, Size, Split, Step, Tasks
from metabench_rl.drawing import uniforms
from metabench_rl.environments.names import NAVIGATION_STEPS

#: Largest step in each direction.
_STEP = 0.1
#: Distance in each direction within which the goal is reached.
_REACHED = 0.01


class Point2D:
    """The tasks of 2-D navigation.

    Args:
        horizon: H, most steps of an episode.
    """

    metrics: ClassVar[Sequence[Metric]] = ("return",)
    at_once: ClassVar[int] = 20

    def __init__(self, horizon: int | None = None) -> None:
        self._size = Size(2, 2, horizon or NAVIGATION_STEPS)

    @property
    def size(self) -> Size:
        """See `metabench_rl.api.TaskFamily`."""
        return self._size

    @property
    def identity(self) -> dict[str, Any]:
        """See `metabench_rl.api.TaskFamily`."""
        return {"name": "point2d"}

    def tasks(self, split: Split, numbers: Sequence[int]) -> Tasks:
        """See `metabench_rl.api.TaskFamily`."""
        drawn = uniforms(f"point2d|{split}", numbers, 2)
        return Tasks(split, numbers, torch.from_numpy(drawn - 0.5).float())

    def environment(self, tasks: Tasks, trajectories: int) -> Navigation:
        """See `metabench_rl.api.TaskFamily`."""
        return Navigation(tasks.goals, trajectories)

    def expert(self, tasks: Tasks) -> Straight:
        """See `metabench_rl.api.TaskFamily`."""
        return Straight(tasks.goals)

    def frames(self, tasks: Tasks, actions: Tensor) -> Sequence[npt.NDArray[np.uint8]]:
        """Return nothing: paths in the plane say more than an animation."""
        return ()


class Navigation:
    """Points on their way to the goals.

    Args:
        goals: [B, 2] goals.
        trajectories: T, points of each goal.
    """

    def __init__(self, goals: Tensor, trajectories: int) -> None:
        self._goals = goals.unsqueeze(1)
        self._shape = (len(goals), trajectories)
        self.reset()

    def reset(self) -> Tensor:
        """See `metabench_rl.api.Environment`."""
        self._place = torch.zeros(*self._shape, 2)
        self._ended = torch.zeros(self._shape, dtype=torch.bool)
        return self._place

    def step(self, action: Tensor) -> Step:
        """See `metabench_rl.api.Environment`."""
        moved = self._place + _STEP * action.clamp(-1, 1)
        self._place = torch.where(self._ended.unsqueeze(-1), self._place, moved)
        distance = self._place - self._goals
        success = (distance.abs() < _REACHED).all(dim=-1)
        self._ended = self._ended | success
        return Step(self._place, -distance.norm(dim=-1), self._ended, success)


@dataclass(frozen=True)
class Straight:
    """The expert: it goes straight to the goal.

    Attributes:
        goals: [B, 2] goals.
    """

    goals: Tensor
    memory: None = None

    def act(self, seen: Seen, memory: None) -> Act:
        """See `metabench_rl.api.Policy`."""
        left = (self.goals.unsqueeze(1) - seen.observation) / _STEP
        return Act(left, torch.full((2,), -20.0))
