"""End a training early that is worse than others were at the same step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from metabench.engine.progress import Curve
from metabench.tuning.trials import Trial

#: Number of complete trials before any is pruned, as in Optuna's `MedianPruner`.
_AT_LEAST = 5


@dataclass(frozen=True)
class MedianRule:
    """The `metabench.engine.progress.Judge` of a trial: the median stopping rule (Golovin et al. 2017).

    A training ends early if its best validation so far is worse than the median of the complete trials at the same
    step. Optuna has the rule, too, but its import would take seconds in the worker of each trial.

    Attributes:
        medians: the medians, by step; a step without one ends nothing.
        sign: 1 where high values are better, -1 where low ones are.
    """

    medians: Mapping[int, float]
    sign: int

    @classmethod
    def of(cls, trials: Sequence[Trial], training: int, sign: int) -> MedianRule:
        """Return the rule for one training of a trial.

        Args:
            trials: the trials before.
            training: number of the training within its trial.
            sign: 1 where high values are better, -1 where low ones are.
        """
        complete = [trial for trial in trials if trial.state == "complete" and len(trial.curves) > training]
        values: dict[int, list[float]] = {}
        for trial in complete if len(complete) >= _AT_LEAST else []:
            for step, value in trial.curves[training]:
                values.setdefault(step, []).append(value)
        return cls({step: median(known) for step, known in values.items()}, sign)

    def __call__(self, curve: Curve) -> bool:
        """Return whether a training with these validations so far is to end."""
        last = self.medians.get(curve[-1][0])
        return last is not None and max(self.sign * value for _, value in curve) < self.sign * last
