"""A dataset whose source reads its pack: walkers on a line imitate demonstrations of a goal that they do not see."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from pydantic import NonNegativeInt
from torch import Tensor

from metabench.api import (
    Answers,
    ClassImages,
    Config,
    Dataset,
    DatasetFiles,
    Episodes,
    EpisodeSource,
    Pack,
    Progress,
    Regression,
    Rollouts,
    SourceSplit,
)
from metabench.specs import MetricSpec

#: Steps of a demonstration, and demonstrations of a task.
STEPS, DEMONSTRATIONS = 5, 3


class StrollsConfig(Config):
    """Parameters of `Strolls`: numbers of tasks, and of walkers in lockstep."""

    train: NonNegativeInt = 12
    test: NonNegativeInt = 6
    at_once: int = 4


class Arriving(Rollouts):
    """Walks from 0, and measures whether the goal is reached, and the distance that is left."""

    metrics = (
        MetricSpec("arrived", "", "share of walkers that arrive", unit="%", scale=100.0, lowest=0.0, highest=1.0),
        MetricSpec("gap", "", "distance that is left", better="low", lowest=0.0),
    )

    def __init__(self, source: Walkers, at_once: int) -> None:
        self._source, self.at_once = source, at_once

    def measure(self, answers: Answers, uniform: Tensor, split: str) -> Mapping[str, Tensor]:
        goals = self._source.goals(uniform, split)
        place = torch.zeros(len(goals), 1, 1)
        for _ in range(STEPS):
            place = place + answers(place)
        gap = (place[:, 0, 0] - goals).abs()
        return {"arrived": (gap < 0.2).double(), "gap": gap}


class Walkers(EpisodeSource):
    """Episodes of demonstrations, of which the points are a place and a step."""

    task = Regression(1)
    input_shape = (1,)
    points, at_most = STEPS, DEMONSTRATIONS

    def __init__(self, config: StrollsConfig, pack: Pack) -> None:
        super().__init__(config)
        self._splits = [name.split("/")[0] for name in pack.class_names]
        self._rows = torch.from_numpy(pack.images.copy()).view(-1, DEMONSTRATIONS, STEPS, 2)
        self.rollouts = Arriving(self, config.at_once)

    def tasks(self, split: str) -> int:
        return self._splits.count(split)

    def goals(self, uniform: Tensor, split: str) -> Tensor:
        """Return the [B] goals: where a demonstrated step would be 0."""
        first = self._of(uniform, split)[:, 0, 0]
        return first[:, 0] + 2 * first[:, 1]

    def draws(self, shot: int, queries: int) -> int:
        return 1 + shot + queries

    def episodes(self, uniform: Tensor, split: str, shot: int, queries: int) -> Episodes:
        shown = self._of(uniform, split)[:, : shot + queries]
        x, y = shown[..., :1], shown[..., 1:]
        parts = (part.flatten(1, 2) for part in (x[:, :shot], y[:, :shot], x[:, shot:], y[:, shot:]))
        return Episodes(*parts, task=self.task)

    def _of(self, uniform: Tensor, split: str) -> Tensor:
        return self._rows[self._splits.index(split) + (uniform[:, 0] * self.tasks(split)).long()]


class Strolls(Dataset):
    """Demonstrations: each step goes half of the way to the goal."""

    Config = StrollsConfig
    makes_episodes = True

    def pack(self, files: DatasetFiles, progress: Progress) -> Iterator[ClassImages]:
        rng = np.random.default_rng(0)
        for split, count in (("train", self.config.train), ("val", 4), ("test", self.config.test)):
            for number in range(count):
                goal, place = rng.uniform(-1, 1), rng.uniform(-1, 1, DEMONSTRATIONS)
                rows = np.empty((DEMONSTRATIONS, STEPS, 2), np.float32)
                for step in range(STEPS):
                    rows[:, step] = np.stack([place, (goal - place) / 2], axis=1)
                    place = (place + goal) / 2
                yield ClassImages(f"{split}/{number:02d}", rows.reshape(-1, 2))

    def split(self, pack: Pack) -> Mapping[str, SourceSplit]:
        return SourceSplit.each(Walkers(self.config, pack))
