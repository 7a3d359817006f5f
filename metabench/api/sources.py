"""Sources: episodes that are made, not drawn from rows."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from metabench.api.config import Config
from metabench.api.episodes import Episodes
from metabench.api.rollouts import Rollouts
from metabench.api.tasks import Regression


class EpisodeSource(abc.ABC):
    """Makes each episode from random numbers that the harness draws: a dataset without rows.

    The harness draws the numbers of episode i from the split's name, the sizes of the episode, the seed and i, so that
    every method has the same episodes. A source keeps no state, and draws nothing itself.

    Attributes:
        task: the task of every episode; set by the class or the constructor.
        input_shape: the shape of one input, (D,) of a vector; set by the class or the constructor.
        points: number of points that a shot consists of, and a query, e.g. the steps of a demonstration.
        at_most: most shots and queries of an episode together; None for any number.
        rollouts: a test of what the adapted learners do, beside their answers; None without one.

    Args:
        config: an instance of `Config`.
    """

    Config: ClassVar[type[Config]] = Config
    makes_episodes: ClassVar[bool] = True
    task: Regression
    input_shape: tuple[int, ...]
    points: int = 1
    at_most: int | None = None
    rollouts: Rollouts | None = None

    def __init__(self, config: Any) -> None:
        self.config = config

    def tasks(self, split: str) -> int | None:
        """Return n, the number of tasks that the episodes of a split are of; None for any number.

        Of n tasks, each comes once in n episodes, in random order: the first number of a row is that of its task, more
        than t / n and less than (t + 1) / n for the task t.
        """
        return None

    @abc.abstractmethod
    def draws(self, shot: int, queries: int) -> int:
        """Return the number of random numbers that an episode is made from; it grows with the queries."""

    @abc.abstractmethod
    def episodes(self, uniform: Tensor, split: str, shot: int, queries: int) -> Episodes:
        """Make B episodes, each a pure function of its row of numbers.

        The queries take the last numbers of a row: an episode with more queries begins with the same numbers, and has
        the same support set.

        Args:
            uniform: [B, `draws`] float64 random numbers, uniform in [0, 1).
            split: ``"train"``, ``"val"`` or ``"test"``.
            shot: number of shots; S, the number of support points, is `points` times as large.
            queries: number of queries; M is `points` times as large.

        Returns:
            The episodes: float32 inputs [B, S, *input_shape] and [B, M, *input_shape], and targets [B, S, outputs] and
            [B, M, outputs], on the device of `uniform`.
        """


@dataclass(frozen=True)
class SourceSplit:
    """A split of a source: an endless sequence of episodes.

    Attributes:
        source: the source.
        name: ``"train"``, ``"val"`` or ``"test"``.
        content: hash of what the episodes follow from, beside the numbers: class, code and parameters.
    """

    source: EpisodeSource
    name: str
    content: str = ""

    def misfit(self, shot: int, queries: int) -> str:
        """Return why the split has no episodes of these sizes, as a clause; empty if it has."""
        if self.source.tasks(self.name) == 0:
            return f"the {self.name} split has no tasks: ask for some in the parameters of the dataset"
        at_most = self.source.at_most
        if at_most is not None and shot + queries > at_most:
            return (
                f"{shot} shots and {queries} queries of a task are more than the {at_most} that it has: lower shots or "
                "queries, or ask for more in the parameters of the dataset"
            )
        return ""

    @classmethod
    def each(cls, source: EpisodeSource) -> dict[str, SourceSplit]:
        """Return the three splits of a source, for `metabench.api.Dataset.split`."""
        return {name: cls(source, name) for name in ("train", "val", "test")}

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return the shape of one input."""
        return self.source.input_shape
