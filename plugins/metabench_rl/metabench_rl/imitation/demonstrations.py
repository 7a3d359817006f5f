"""Demonstrations of Meta-World's scripted policies (Yu et al. 2019, https://arxiv.org/abs/1910.10897), as a dataset."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from metabench.api import CellFailed, ClassImages, DataError, Dataset, DatasetFiles, Pack, Progress, SourceSplit
from metabench_rl.api import Seen, Tasks
from metabench_rl.drawing import noise
from metabench_rl.environments.metaworld import ML1
from metabench_rl.imitation.config import DemonstrationsConfig
from metabench_rl.imitation.source import DemonstratedTasks

#: The splits, by the names that task families have for them.
SPLITS = {"train": "train", "val": "validation", "test": "test"}
#: Tasks that are demonstrated in lockstep.
_AT_ONCE = 10
#: Tasks that are tried for each one that is wanted: the expert fails in some.
_TRIED = 2


class Demonstrated(NamedTuple):
    """Demonstrations of B tasks.

    Attributes:
        rows: [B, D · H, 43] float32 observations, without the goal, and the expert's actions.
        solved: [B] whether the expert succeeded in all demonstrations.
    """

    rows: npt.NDArray[np.float32]
    solved: npt.NDArray[np.bool_]


class Demonstrations(Dataset):
    """Demonstrations by an expert who sees the goal, to learners who do not.

    A task is an environment with a goal and places of objects. Tasks of one split are none of another: all are drawn
    from the environment's own distribution, by seeds of split and number. A task in which the expert fails is replaced
    by the next one. The expert's actions are disturbed as they are executed and recorded without (Laskey et al. 2017,
    https://arxiv.org/abs/1703.09327), so that demonstrations of a task differ and show how to recover.
    """

    Config = DemonstrationsConfig
    makes_episodes = True
    #: What only a test uses.
    split_parameters = ("episodes",)
    config: DemonstrationsConfig

    def raw_files(self, files: DatasetFiles) -> Iterable[Path]:
        """Return no files: demonstrations are made."""
        return ()

    def pack(self, files: DatasetFiles, progress: Progress) -> Iterator[ClassImages]:
        """Yield the demonstrations of each task, a class a task.

        Raises:
            DataError: Meta-World is not installed, has no such environment, or its expert fails too often.
        """
        config = self.config
        total = len(config.environments) * (config.train + config.validation + config.test)
        done = 0
        for split in SPLITS:
            for environment in config.environments:
                for content in self._of(environment, split):
                    yield content
                    done += 1
                    progress(done, total, "demonstrating tasks")

    def split(self, pack: Pack) -> Mapping[str, SourceSplit]:
        """See `metabench.api.Dataset.split`."""
        return SourceSplit.each(DemonstratedTasks(self.config, pack))

    def _of(self, environment: str, split: str) -> Iterator[ClassImages]:
        """Yield the demonstrated tasks of an environment in a split."""
        wanted, found, first = self.config.tasks(split), 0, 0
        try:
            family = ML1(f"{environment}-v3", self.config.horizon)
            while found < wanted:
                if first >= _TRIED * wanted + _AT_ONCE:
                    raise DataError(
                        f"Meta-World's scripted policy solved {found} of {first} tasks of '{environment}' in "
                        f"{self.config.horizon} steps: raise the horizon, or lower the disturbance"
                    )
                numbers = range(first, first + min(_AT_ONCE, wanted - found))
                shown = demonstrated(family, environment, split, numbers, self.config)
                for number, rows, solved in zip(numbers, *shown, strict=True):
                    if solved:
                        yield ClassImages(f"{environment}/{split}/{number:05d}", rows)
                        found += 1
                first = numbers.stop
        except CellFailed as error:
            raise DataError(str(error)) from error


def demonstrated(
    family: ML1, environment: str, split: str, numbers: Sequence[int], config: DemonstrationsConfig
) -> Demonstrated:
    """Return demonstrations of tasks, each a function of environment, split and number.

    Args:
        family: the tasks of the environment.
        environment: its name.
        split: ``"train"``, ``"val"`` or ``"test"``.
        numbers: numbers of the tasks.
        config: the parameters.

    Raises:
        CellFailed: an observation shows the goal.
    """
    tasks, horizon, count = tasks_of(family, split, numbers), config.horizon, config.demonstrations
    expert = family.expert(tasks)  # first of all: it resets the simulators
    robots = family.environment(tasks, count)
    observation = robots.reset()
    draws = config.disturbance * noise(f"demonstration|{environment}|{split}", numbers, count, horizon, 4)
    rows: list[Tensor] = []
    solved = torch.zeros(len(numbers), count, dtype=torch.bool)
    unseen = torch.zeros(len(numbers), count)
    for step in range(horizon):
        action = expert.act(Seen(observation, unseen, unseen, step == 0), None).mean
        rows.append(torch.cat([observation, action], dim=-1))
        after = robots.step(action + draws[:, :, step])
        observation, solved = after.observation, solved | after.success
    stacked = torch.stack(rows, dim=2).flatten(1, 2)
    return Demonstrated(stacked.numpy(), solved.all(dim=1).numpy())


def tasks_of(family: ML1, split: str, numbers: Sequence[int]) -> Tasks:
    """Return tasks of a split, ``"train"``, ``"val"`` or ``"test"``."""
    return family.tasks(SPLITS[split], numbers)  # type: ignore[arg-type]
