"""Tests of what adapted learners do, beside what they answer."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from metabench.specs import MetricSpec

#: Answers m queries of each of B adapted learners: [B, m, *input_shape] float32 on the CPU to [B, m, outputs].
Answers = Callable[[Tensor], Tensor]


class Rollouts(abc.ABC):
    """Acts by the answers of adapted learners, e.g. in a simulator, and measures what comes of it.

    A query then follows from earlier answers. The learners of several episodes are asked in lockstep; each has adapted
    once, and is asked again and again.

    Attributes:
        metrics: the measured metrics, means over the episodes, of which the first ranks. Their `target` is not used.
        at_once: number of episodes in lockstep.
    """

    metrics: Sequence[MetricSpec]
    at_once: int = 10

    @abc.abstractmethod
    def measure(self, answers: Answers, uniform: Tensor, split: str) -> Mapping[str, Tensor]:
        """Return the [B] values of each metric, by name.

        Each is a pure function of the learner and the numbers of its episode, whatever episodes are in lockstep.

        Args:
            answers: asks the learners of B episodes.
            uniform: [B, draws] numbers of the episodes, see `metabench.api.EpisodeSource.episodes`.
            split: name of the split.

        Raises:
            CellFailed: it cannot be measured.
        """
