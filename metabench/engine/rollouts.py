"""Test adapted learners by what they do."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np

from metabench.analysis.metrics import Measure
from metabench.analysis.stats import Floats
from metabench.api import Algorithm
from metabench.engine.asking import Adapted
from metabench.engine.progress import Interrupted, Watcher
from metabench.engine.sources import SourceStream
from metabench.engine.streams import Stream
from metabench.errors import CellFailed
from metabench.records.measured import EngineCost
from metabench.specs import Metric


class RolloutTest:
    """The rollouts of a test (`metabench.api.Rollouts`), which grows with its episodes; nothing without rollouts.

    Args:
        algorithm: the trained algorithm.
        stream: the test episodes.
        seed: seed of the algorithm's random draws.
        watcher: sees the progress, and may ask to stop.

    Attributes:
        measures: the metrics, the one that ranks first; none without rollouts.
    """

    def __init__(self, algorithm: Algorithm, stream: Stream, seed: int, watcher: Watcher) -> None:
        self._algorithm, self._seed, self._watcher = algorithm, seed, watcher
        self._stream = stream if isinstance(stream, SourceStream) else None
        self._rollouts = self._stream.rollouts if self._stream else None
        self.measures = [Measure.of(spec, Metric()) for spec in (self._rollouts.metrics if self._rollouts else ())]
        self._known: Mapping[str, Floats] = {}
        self._seconds = 0.0
        self._parts: dict[str, list[Floats]] = {measure.name: [] for measure in self.measures}

    def begin(self, known: Mapping[str, Floats], otherwise: Measure) -> Measure:
        """Go on from the values of earlier episodes; return the metric that ranks.

        Args:
            known: values by name of a metric; empty begins anew.
            otherwise: the metric that ranks without rollouts.
        """
        self._known = known
        return self.measures[0] if self.measures else otherwise

    def ranking_values(self, otherwise: Floats) -> Floats:
        """Return the values of the metric that ranks, of all episodes so far; `otherwise` without rollouts."""
        if not self.measures:
            return otherwise
        name = self.measures[0].name
        return np.concatenate([np.empty(0), self._known.get(name, np.empty(0)), *self._parts[name]])

    def extend(self, first: int, last: int) -> None:
        """Roll out the learners of the episodes `first` … `last - 1`.

        Raises:
            CellFailed: an answer is not finite, or the values are not as they must be.
            Interrupted: the watcher asked to stop.
        """
        if self._rollouts is None or self._stream is None:
            return
        self._watcher.phase("roll out", last, first)
        begun = time.perf_counter()
        for start in range(first, last, self._rollouts.at_once):
            count = min(self._rollouts.at_once, last - start)
            learners = Adapted(self._algorithm, self._stream.batch(start, count), self._seed, start)
            values = self._rollouts.measure(learners, self._stream.uniform(start, count), self._stream.name)
            for name, part in self._parts.items():
                part.append(_checked(name, values.get(name), count))
            so_far = self.measures[0].declaration.short(float(self.ranking_values(np.empty(0)).mean()))
            self._watcher.advance(start + count, so_far)
            if self._watcher.should_stop():
                raise Interrupted
        self._seconds += time.perf_counter() - begun

    def costs(self) -> dict[str, EngineCost]:
        """Return the seconds of the rollouts since `begin`, as a column; none without rollouts."""
        summary = "seconds in which learners adapted and acted in rollouts; of a test that has grown, its last part"
        cost = EngineCost(title="rollouts s", value=self._seconds, summary=summary)
        return {"rollout_seconds": cost} if self.measures else {}

    def figures(self) -> dict[str, Floats]:
        """Return the values of each metric, by name, of the episodes since `begin`."""
        return {name: np.concatenate(part) for name, part in self._parts.items() if part}


def _checked(name: str, values: object, count: int) -> Floats:
    """Return the values of a metric as float64.

    Raises:
        CellFailed: they are not `count` finite numbers.
    """
    array = np.asarray(values, dtype=np.float64) if values is not None else np.empty(0)
    if array.shape != (count,) or not np.isfinite(array).all():
        raise CellFailed(f"the rollouts returned a {name} that is not {count} finite numbers, one of each episode")
    return array
