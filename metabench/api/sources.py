"""Sources: episodes that are made, not drawn from rows."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from metabench.api.config import Config
from metabench.api.episodes import Episodes
from metabench.api.tasks import Regression


class EpisodeSource(abc.ABC):
    """Makes each episode from random numbers that the harness draws: a dataset without rows.

    The harness draws the numbers of episode i from the split's name, the sizes of the episode, the seed and i, so that
    every method has the same episodes. A source keeps no state, and draws nothing itself.

    Attributes:
        task: the task of every episode; set by the class or the constructor.
        input_shape: the shape of one input, (D,) of a vector; set by the class or the constructor.

    Args:
        config: an instance of `Config`.
    """

    Config: ClassVar[type[Config]] = Config
    task: Regression
    input_shape: tuple[int, ...]

    def __init__(self, config: Any) -> None:
        self.config = config

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
            shot: S, the number of support points.
            queries: M, the number of queries.

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

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return the shape of one input."""
        return self.source.input_shape
