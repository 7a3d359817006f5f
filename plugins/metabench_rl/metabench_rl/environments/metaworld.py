"""ML1 of Meta-World (Yu et al. 2019, https://arxiv.org/abs/1910.10897): one environment, with a hidden goal.

Neither Meta-World's registry nor its evaluation is used. The registry of 3.1.1 gives the test goals for ``ML1-train``,
and the evaluation counts the episodes that finish first, which are those that succeed. Goals come from the
environment's own distribution, as many as are asked for, from a seed of split and number.
"""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from metabench.jobs import CellFailed, derive_seed
from metabench_rl.api import Act, Metric, Seen, Size, Split, Step, Tasks
from metabench_rl.environments.names import META_WORLD_STEPS

#: Numbers of an observation that hold the goal, where it is shown.
_GOAL = 3
#: Width and height of a picture in pixels, and the steps between two.
_PICTURE, _STEPS_A_PICTURE = (240, 180), 4


class ML1:
    """The goals of one environment of Meta-World.

    Args:
        environment: name of the environment, e.g. ``"reach-v3"``.
        horizon: H, most steps of an episode; None takes all 500.

    Raises:
        CellFailed: Meta-World is not installed, or has no such environment.
    """

    metrics: ClassVar[Sequence[Metric]] = ("success", "return")
    at_once: ClassVar[int] = 10

    def __init__(self, environment: str, horizon: int | None = None) -> None:
        try:
            import metaworld
            from metaworld.env_dict import ALL_V3_ENVIRONMENTS
        except ImportError as error:
            raise CellFailed("Meta-World is not installed: pip install 'metabench-rl[metaworld]'") from error
        if environment not in ALL_V3_ENVIRONMENTS:
            raise CellFailed(f"Meta-World has no environment '{environment}', but {', '.join(ALL_V3_ENVIRONMENTS)}")
        if horizon is not None and horizon > META_WORLD_STEPS:
            raise CellFailed(f"the horizon of {horizon} is longer than Meta-World's {META_WORLD_STEPS} steps")
        self._name, self._task = environment, metaworld.Task
        self._class: Any = ALL_V3_ENVIRONMENTS[environment]
        self._simulators: list[Any] = []
        self._size = Size(39, 4, horizon or META_WORLD_STEPS)

    @property
    def size(self) -> Size:
        """See `metabench_rl.api.TaskFamily`."""
        return self._size

    @property
    def identity(self) -> dict[str, Any]:
        """See `metabench_rl.api.TaskFamily`."""
        return {"name": "ml1", "environment": self._name}

    def tasks(self, split: Split, numbers: Sequence[int]) -> Tasks:
        """See `metabench_rl.api.TaskFamily`."""
        goals = [self._drawn(derive_seed(number, f"{self._name}|{split}") % 2**31) for number in numbers]
        return Tasks(split, numbers, torch.from_numpy(np.stack(goals)))

    def environment(self, tasks: Tasks, trajectories: int) -> Robots:
        """See `metabench_rl.api.TaskFamily`."""
        count = len(tasks.numbers) * trajectories
        while len(self._simulators) < count:
            self._simulators.append(self._class())
        simulators = self._simulators[:count]
        for place, simulator in enumerate(simulators):
            self._set(simulator, tasks.goals[place // trajectories])
        return Robots(simulators, (len(tasks.numbers), trajectories), self.size)

    def expert(self, tasks: Tasks) -> Expert:
        """See `metabench_rl.api.TaskFamily`."""
        from metaworld.policies import ENV_POLICY_MAP

        robots = self.environment(tasks, 1)
        robots.reset()
        policies = [ENV_POLICY_MAP[self._name]() for _ in tasks.numbers]
        return Expert(policies, [simulator._target_pos.copy() for simulator in robots.simulators])

    def frames(self, tasks: Tasks, actions: Tensor) -> Sequence[npt.NDArray[np.uint8]]:
        """See `metabench_rl.api.TaskFamily`; nothing without the variable ``MUJOCO_GL``, by which MuJoCo renders.

        MuJoCo would try a window first, and software needs a third of a second a picture: who wants it says so.
        """
        if not os.environ.get("MUJOCO_GL"):
            return ()
        width, height = _PICTURE
        simulator = self._class(render_mode="rgb_array", camera_name="corner2", width=width, height=height)
        try:
            self._set(simulator, tasks.goals[0])
            simulator.reset()
            frames = [simulator.render()]
            for step, action in enumerate(actions[0, 0].clamp(-1, 1).double().numpy(), start=1):
                simulator.step(action)
                if step % _STEPS_A_PICTURE == 0:
                    frames.append(simulator.render())
        finally:
            simulator.close()
        # The cameras of Meta-World hang upside down.
        return [np.ascontiguousarray(frame[::-1, ::-1]) for frame in frames]

    def _drawn(self, seed: int) -> Any:
        """Return the random vector of a task: its goal, and the places of objects, as the environment accepts them."""
        if not self._simulators:
            self._simulators.append(self._class())
        simulator = self._simulators[0]
        self._set(simulator, torch.zeros(0))
        simulator.seed(seed)
        simulator._freeze_rand_vec, simulator.seeded_rand_vec = False, True
        simulator.reset()
        return simulator._last_rand_vec.copy()

    def _set(self, simulator: Any, goal: Tensor) -> None:
        """Give a simulator its task, with a hidden goal."""
        task = {"rand_vec": goal.numpy(), "env_cls": self._class, "partially_observable": True}
        simulator.set_task(self._task(env_name=self._name, data=pickle.dumps(task)))


class Robots:
    """Simulators that are stepped one after the other: several processes are slower on few cores.

    Args:
        simulators: the B · T simulators, with their tasks.
        shape: B and T.
        size: the sizes.
    """

    def __init__(self, simulators: Sequence[Any], shape: tuple[int, int], size: Size) -> None:
        self.simulators, self._shape, self._size = simulators, shape, size
        self._left = 0

    def reset(self) -> Tensor:
        """See `metabench_rl.api.Environment`.

        Raises:
            CellFailed: an observation shows the goal.
        """
        self._left = self._size.horizon
        return self._seen([simulator.reset()[0] for simulator in self.simulators])

    def step(self, action: Tensor) -> Step:
        """See `metabench_rl.api.Environment`; an episode ends at the horizon only, whether it succeeds or not."""
        actions = action.clamp(-1, 1).double().flatten(0, 1).numpy()
        answers = [simulator.step(one) for simulator, one in zip(self.simulators, actions, strict=True)]
        self._left -= 1
        return Step(
            self._seen([answer[0] for answer in answers]),
            torch.tensor([float(answer[1]) for answer in answers]).view(self._shape),
            torch.full(self._shape, self._left == 0),
            torch.tensor([answer[4]["success"] > 0 for answer in answers]).view(self._shape),
        )

    def _seen(self, observations: Sequence[Any]) -> Tensor:
        stacked = np.stack(observations)
        if stacked[:, -_GOAL:].any():
            raise CellFailed("an observation of Meta-World shows the goal, which must be hidden")
        return torch.from_numpy(stacked).float().view(*self._shape, self._size.observation)


@dataclass(frozen=True)
class Expert:
    """Meta-World's scripted policies, which see the goals.

    Attributes:
        policies: a policy for each of B tasks.
        goals: their goals.
    """

    policies: Sequence[Any]
    goals: Sequence[Any]
    memory: None = None

    def act(self, seen: Seen, memory: None) -> Act:
        """See `metabench_rl.api.Policy`."""
        means = torch.empty(*seen.observation.shape[:2], 4)
        with warnings.catch_warnings():
            # A policy tells when it asks for more than the largest action: no fault, the action is clipped.
            warnings.filterwarnings("ignore", "Constant.s. may be too high", UserWarning)
            for task, (policy, goal) in enumerate(zip(self.policies, self.goals, strict=True)):
                for place, observation in enumerate(seen.observation[task].double().numpy()):
                    shown = np.concatenate([observation[:-_GOAL], goal])
                    means[task, place] = torch.from_numpy(np.asarray(policy.get_action(shown))).float()
        return Act(means.clamp(-1, 1), torch.full((4,), -20.0))
