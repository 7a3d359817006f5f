"""Episodes of demonstrations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metabench.api import Episodes, EpisodeSource, Pack, Regression
from metabench_rl.imitation.config import DemonstrationsConfig

#: Numbers of an observation and of an action.
OBSERVATION, ACTION = 39, 4


@dataclass(frozen=True)
class Task:
    """A demonstrated task.

    Attributes:
        environment: name of the environment.
        number: number of the task among those of the environment and the split.
    """

    environment: str
    number: int


class DemonstratedTasks(EpisodeSource):
    """Imitate an expert in a task: some of its demonstrations are the support set, others the queries.

    A shot is a demonstration of H steps; a point is an observation, which does not show the goal, and the expert's
    action.

    Args:
        config: the parameters.
        pack: the demonstrations, a class a task.
    """

    Config = DemonstrationsConfig
    task = Regression(outputs=ACTION)
    input_shape = (OBSERVATION,)

    def __init__(self, config: DemonstrationsConfig, pack: Pack) -> None:
        from metabench_rl.imitation.rollouts import TaskRollouts

        super().__init__(config)
        self.points, self.at_most = config.horizon, config.demonstrations
        self._tasks: dict[str, list[Task]] = {"train": [], "val": [], "test": []}
        places: dict[str, list[int]] = {split: [] for split in self._tasks}
        for place, name in enumerate(pack.class_names):
            environment, split, number = name.split("/")
            self._tasks[split].append(Task(environment, int(number)))
            places[split].append(place)
        shape = (-1, config.demonstrations, config.horizon, OBSERVATION + ACTION)
        rows = torch.from_numpy(pack.images).view(shape)
        self._rows = {split: rows[chosen] for split, chosen in places.items()}
        self.rollouts = TaskRollouts(config, self)

    def tasks(self, split: str) -> int:
        """See `metabench.api.EpisodeSource.tasks`."""
        return len(self._tasks[split])

    def named(self, uniform: Tensor, split: str) -> list[Task]:
        """Return the tasks of [B, draws] numbers of episodes."""
        return [self._tasks[split][place] for place in self._places(uniform, split).tolist()]

    def draws(self, shot: int, queries: int) -> int:
        """Return the number of the task, and those that choose a demonstration for each shot and query."""
        return 1 + shot + queries

    def episodes(self, uniform: Tensor, split: str, shot: int, queries: int) -> Episodes:
        """See `metabench.api.EpisodeSource.episodes`."""
        places = self._places(uniform, split).unsqueeze(1)
        chosen = self._rows[split][places, _without_repeats(uniform[:, 1:], self.config.demonstrations)]
        x, y = chosen[..., :OBSERVATION], chosen[..., OBSERVATION:]
        support_x, query_x = x[:, :shot].flatten(1, 2), x[:, shot:].flatten(1, 2)
        support_y, query_y = y[:, :shot].flatten(1, 2), y[:, shot:].flatten(1, 2)
        return Episodes(support_x, support_y, query_x, query_y, self.task)

    def _places(self, uniform: Tensor, split: str) -> Tensor:
        return (uniform[:, 0] * self.tasks(split)).long()


def _without_repeats(uniform: Tensor, count: int) -> Tensor:
    """Return [B, k] different numbers below `count` in each row, made from [B, k] uniform numbers in order."""
    left = torch.arange(count).repeat(len(uniform), 1)
    chosen = []
    for column in range(uniform.shape[1]):
        place = (uniform[:, column] * (count - column)).long().unsqueeze(1)
        chosen.append(left.gather(1, place))
        keep = torch.arange(left.shape[1]) != place
        left = left[keep].view(len(uniform), -1)
    return torch.cat(chosen, dim=1)
