"""Imitators act in the simulator."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from metabench.api import Answers, Rollouts
from metabench.specs import MetricSpec
from metabench_rl.drawing import noise
from metabench_rl.imitation.config import DemonstrationsConfig

if TYPE_CHECKING:
    from metabench_rl.environments.metaworld import ML1
    from metabench_rl.imitation.source import DemonstratedTasks


class TaskRollouts(Rollouts):
    """Success of learners in the tasks of their demonstrations.

    An episode has all its H steps, whether it succeeds or not. Its disturbances are a function of task and episode, so
    that all learners meet the same. Simulators are made at the first test, and used again.

    Args:
        config: the parameters.
        source: tells which tasks the episodes are of.
    """

    metrics = (
        MetricSpec(
            "success",
            "",
            "share of test episodes of a task in which its goal is reached at any step, over all tasks",
            title="success",
            unit="%",
            scale=100.0,
            lowest=0.0,
            highest=1.0,
            task="regression",
        ),
    )
    at_once = 10

    def __init__(self, config: DemonstrationsConfig, source: DemonstratedTasks) -> None:
        self._config, self._source = config, source
        self._families: dict[str, ML1] = {}

    def measure(self, answers: Answers, uniform: Tensor, split: str) -> Mapping[str, Tensor]:
        """See `metabench.api.Rollouts.measure`.

        Raises:
            CellFailed: Meta-World is not installed, or an observation shows the goal.
        """
        from metabench_rl.imitation.demonstrations import tasks_of

        horizon, count = self._config.horizon, self._config.episodes
        places: dict[str, list[int]] = defaultdict(list)
        tasks = self._source.named(uniform, split)
        for place, task in enumerate(tasks):
            places[task.environment].append(place)
        robots, draws = {}, torch.empty(len(tasks), count, horizon, 4)
        for environment, chosen in places.items():
            numbers = [tasks[place].number for place in chosen]
            family = self._family(environment)
            robots[environment] = family.environment(tasks_of(family, split, numbers), count)
            draws[chosen] = noise(f"rollout|{environment}|{split}", numbers, count, horizon, 4)
        observation = torch.empty(len(tasks), count, 39)
        for environment, chosen in places.items():
            observation[chosen] = robots[environment].reset()
        success = torch.zeros(len(tasks), count, dtype=torch.bool)
        for step in range(horizon):
            action = answers(observation).clamp(-1, 1) + self._config.disturbance * draws[:, :, step]
            for environment, chosen in places.items():
                after = robots[environment].step(action[chosen])
                observation[chosen] = after.observation
                success[chosen] |= after.success
        return {"success": success.double().mean(dim=1)}

    def _family(self, environment: str) -> ML1:
        from metabench_rl.environments.metaworld import ML1

        if environment not in self._families:
            self._families[environment] = ML1(f"{environment}-v3", self._config.horizon)
        return self._families[environment]
