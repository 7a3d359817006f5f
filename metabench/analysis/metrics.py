"""Metrics, and how to compute them from outputs."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from metabench.analysis.stats import Floats, Ints
from metabench.errors import UsageError, in_one_line
from metabench.records.measured import Declaration
from metabench.specs import Metric, MetricSpec

#: Number of outputs whose metrics are computed at once: their arrays stay in the cache of a core.
OUTPUTS_AT_ONCE = 2**17


# ------------------------------------------------------------------------------------------ the metrics


class Accuracy(Metric):
    """The share of queries that are classified correctly."""

    def of_episode(self, outputs: Floats, targets: Ints) -> Floats:
        """Return the [B] accuracies."""
        accuracies: Floats = class_accuracies(outputs, targets).mean(axis=1)
        return accuracies


class NegativeLogLikelihood(Metric):
    """The mean negative log-probability of the true class, in nats."""

    def of_episode(self, outputs: Floats, targets: Ints) -> Floats:
        """Return the [B] means over the queries; infinite where a true class has the probability 0."""
        means: Floats = -_at(outputs, targets).mean(axis=1)
        return means


class Brier(Metric):
    """The squared distance of the probabilities to the true class, summed over the classes (Brier 1950)."""

    def of_episode(self, outputs: Floats, targets: Ints) -> Floats:
        """Return the [B] means over the queries."""
        probabilities = np.exp(outputs)
        distances = np.square(probabilities).sum(axis=-1) - 2 * _at(probabilities, targets) + 1
        means: Floats = distances.mean(axis=1)
        return means


class CalibrationError(Metric):
    """The expected calibration error of the top label, over 15 bins of equal width (Guo et al. 2017).

    The bins are filled by the queries of all episodes: an episode has too few for a bin.
    """

    BINS: ClassVar[int] = 15

    def of_episode(self, outputs: Floats, targets: Ints) -> Floats:
        """Return the [B, 15] sums of correctness minus confidence in each bin, divided by the number of queries."""
        confidence = np.exp(outputs.max(axis=-1))
        bins = np.minimum((confidence * self.BINS).astype(np.int64), self.BINS - 1)
        gaps: Floats = _sums(credit(outputs, targets) - confidence, bins, self.BINS) / targets.shape[1]
        return gaps

    def pooled(self, means: Floats) -> float:
        """Return the mean over queries of a bin's gap between accuracy and confidence."""
        return float(np.abs(means).sum())


class SquaredError(Metric):
    """The mean squared error of the predicted numbers."""

    def of_episode(self, outputs: Floats, targets: Floats) -> Floats:
        """Return the [B] means over the queries, and the numbers of each."""
        means: Floats = np.square(outputs - targets).mean(axis=(1, 2))
        return means


def credit(outputs: Floats, targets: Ints) -> Floats:
    """Return 1 for each correct prediction, 0 for a wrong one.

    Classes that tie for the largest output share the credit: constant outputs earn 1/N for any labels.

    Args:
        outputs: [B, M, N] outputs.
        targets: [B, M] labels.

    Returns:
        [B, M] credits.
    """
    best = outputs == outputs.max(axis=-1, keepdims=True)
    shares: Floats = _at(best, targets) / best.sum(axis=-1)
    return shares


def class_accuracies(outputs: Floats, targets: Ints) -> Floats:
    """Return the [B, N] credits (`credit`) of each class, divided by the mean number of queries of a class.

    That is the accuracy of the class where all classes have as many queries; the mean of a row is in any case the share
    of the queries that are classified correctly.
    """
    ways = outputs.shape[-1]
    accuracies: Floats = _sums(credit(outputs, targets), targets, ways) / (targets.shape[1] / ways)
    return accuracies


def log_probabilities(scores: npt.NDArray[np.floating[Any]], temperature: float = 1.0) -> Floats:
    """Return [B, M, N] log-probabilities of scores: log-probabilities up to a constant for each query.

    Args:
        scores: [B, M, N] scores, finite or -inf, not all -inf for one query.
        temperature: divides the scores.
    """
    # One plane of memory for each class: reductions over few classes are then three times as fast.
    planes = np.ascontiguousarray(np.moveaxis(scores, -1, 0), dtype=np.float64)
    shifted = (planes - planes.max(axis=0)) / temperature
    return np.moveaxis(shifted - np.log(np.exp(shifted).sum(axis=0)), 0, -1)


def _at(values: npt.NDArray[Any], targets: Ints) -> npt.NDArray[Any]:
    """Return the [B, M] entries of [B, M, N] values at [B, M] labels."""
    return np.take_along_axis(values, targets[..., None], axis=-1)[..., 0]


def _sums(values: Floats, bins: Ints, count: int) -> Floats:
    """Return the [B, count] sums of [B, M] values in the bins of each row."""
    rows = np.arange(len(bins))[:, None] * count
    sums = np.bincount((rows + bins).ravel(), values.ravel(), len(bins) * count).astype(np.float64, copy=False)
    return sums.reshape(len(bins), count)


# --------------------------------------------------------------------------------------- declarations


@dataclass(frozen=True)
class Measure:
    """A metric with its declaration.

    Attributes:
        name: its name.
        declaration: the declaration, as a record carries it.
        metric: the two functions.
        calibrated: whether it reads outputs at the temperature of the cell.
    """

    name: str
    declaration: Declaration
    metric: Metric
    calibrated: bool = False

    @classmethod
    def of(cls, spec: MetricSpec, metric: Metric) -> Measure:
        """Return the measure that a spec declares."""
        declaration = Declaration(
            title=spec.title or spec.name,
            better=spec.better,
            unit=spec.unit,
            scale=spec.scale,
            lowest=spec.lowest,
            highest=spec.highest,
            summary=spec.summary,
        )
        return cls(spec.name, declaration, metric, spec.calibrated)


def _declare(metric: type[Metric], name: str, summary: str, **fields: Any) -> Measure:
    return Measure.of(MetricSpec(name, f"{__name__}:{metric.__name__}", summary, **fields), metric())


_CALIBRATED = "at one temperature, fitted on validation episodes"

#: The metrics of classification, the one that ranks first.
CLASSIFICATION: tuple[Measure, ...] = (
    _declare(
        Accuracy,
        "accuracy",
        "mean over the test episodes",
        title="accuracy",
        unit="%",
        scale=100.0,
        lowest=0.0,
        highest=1.0,
    ),
    _declare(
        NegativeLogLikelihood,
        "nll",
        "negative log-likelihood of the true class, in nats",
        title="NLL",
        better="low",
        lowest=0.0,
    ),
    _declare(
        NegativeLogLikelihood,
        "nll_calibrated",
        f"NLL {_CALIBRATED}",
        title="NLL cal",
        better="low",
        lowest=0.0,
        calibrated=True,
    ),
    _declare(
        Brier,
        "brier",
        "Brier score, summed over the classes",
        title="Brier",
        better="low",
        lowest=0.0,
        highest=2.0,
    ),
    _declare(
        Brier,
        "brier_calibrated",
        f"Brier score {_CALIBRATED}",
        title="Brier cal",
        better="low",
        lowest=0.0,
        highest=2.0,
        calibrated=True,
    ),
    _declare(
        CalibrationError,
        "ece",
        "expected calibration error of the top label, 15 bins of the queries of all episodes",
        title="ECE",
        better="low",
        unit="%",
        scale=100.0,
        lowest=0.0,
        highest=1.0,
    ),
    _declare(
        CalibrationError,
        "ece_calibrated",
        f"ECE {_CALIBRATED}",
        title="ECE cal",
        better="low",
        unit="%",
        scale=100.0,
        lowest=0.0,
        highest=1.0,
        calibrated=True,
    ),
)

#: The metric that ranks methods of classification.
RANKED_BY = CLASSIFICATION[0].name

#: The metrics of regression, the one that ranks first.
REGRESSION: tuple[Measure, ...] = (
    _declare(
        SquaredError,
        "mse",
        "mean squared error over the queries, then over the test episodes",
        title="MSE",
        better="low",
        lowest=0.0,
    ),
)

#: The built-in metrics, by kind of task, each with the one that ranks first.
OF_TASK: Mapping[str, tuple[Measure, ...]] = {"classification": CLASSIFICATION, "regression": REGRESSION}


def own_metric(name: str) -> Metric:
    """Return a metric of metabench, to pool the figures of records.

    Raises:
        UsageError: it is a plugin's, whose code is not imported to show records.
    """
    own = by_name(CLASSIFICATION + REGRESSION).get(name)
    if own is None:
        raise UsageError(
            f"the metric '{name}' pools all episodes, and only metabench's own of this kind are compared: leave it out"
        )
    return own.metric


# ------------------------------------------------------------------------------------------- computing


class Counting(Protocol):
    """Counts queries, e.g. `metabench.analysis.tally.Tally`."""

    def add(self, outputs: Floats, calibrated: Floats | None, targets: Ints) -> None:
        """Add episodes: [B, M, N] log-probabilities, the same at the temperature, and [B, M] labels."""


class Collector:
    """Computes the figures of episodes, chunk by chunk.

    A metric that fails, or whose figures have a wrong shape, is dropped; the others go on.

    Args:
        measures: the metrics.
        temperature: the temperature of the cell; None drops the calibrated metrics.
        tally: counts the queries, too; None counts none.

    Attributes:
        problems: by name of a metric, why it is dropped.
    """

    def __init__(self, measures: Iterable[Measure], temperature: float | None, tally: Counting | None = None) -> None:
        self._temperature, self._tally = temperature, tally
        self._measures = list(measures)
        self._figures: dict[str, list[Floats]] = {measure.name: [] for measure in self._measures}
        self.problems: dict[str, str] = {}
        if temperature is None:
            for measure in self._measures:
                if measure.calibrated:
                    self.problems[measure.name] = (
                        "no temperature: the validation split is too small, or a true class scores -inf there"
                    )

    def add(self, outputs: Floats, targets: npt.NDArray[Any]) -> None:
        """Add the figures of B further episodes.

        Args:
            outputs: [B, M, N] log-probabilities; [B, M, D] numbers of a regression.
            targets: [B, M] labels; [B, M, D] numbers of a regression.
        """
        calibrated = None if self._temperature is None else log_probabilities(outputs, self._temperature)
        if self._tally is not None:
            self._tally.add(outputs, calibrated, targets)
        for measure in self._measures:
            if measure.name in self.problems:
                continue
            try:
                read = calibrated if measure.calibrated and calibrated is not None else outputs
                self._figures[measure.name].append(_checked(measure.metric.of_episode(read, targets), len(targets)))
            except (Exception, SystemExit) as error:  # a plugin may raise anything
                self.problems[measure.name] = in_one_line(error)

    def figures(self) -> dict[str, Floats]:
        """Return the [n] or [n, k] figures of all episodes, by name of the metric.

        Metrics with a figure that is not finite are left out, and become problems.
        """
        joined = {name: np.concatenate(parts) for name, parts in self._figures.items() if name not in self.problems}
        for name, values in joined.items():
            wrong = int((~np.isfinite(values.reshape(len(values), -1)).all(axis=1)).sum())
            if wrong:
                self.problems[name] = (
                    f"it is not finite in {wrong} of {len(values)} episodes, as where the true class has probability 0"
                )
            elif values.ndim == 2:
                self._try_pooling(name, values)
        return {name: values for name, values in joined.items() if name not in self.problems}

    def _try_pooling(self, name: str, values: Floats) -> None:
        """Drop a metric that cannot be pooled."""
        try:
            pooled = float(by_name(self._measures)[name].metric.pooled(values.mean(axis=0)))
            if not np.isfinite(pooled):
                self.problems[name] = f"pooled returned {pooled}"
        except (Exception, SystemExit) as error:  # a plugin may raise anything
            self.problems[name] = in_one_line(error)


def _checked(figures: Any, episodes: int) -> Floats:
    """Return the figures of a metric as float64.

    Raises:
        ValueError: they are neither [B] nor [B, k].
    """
    array = np.asarray(figures, dtype=np.float64)
    if array.ndim not in (1, 2) or len(array) != episodes or not array.size:
        raise ValueError(f"of_episode must return [{episodes}] or [{episodes}, k] figures, not {array.shape}")
    return array


def by_name(measures: Iterable[Measure]) -> Mapping[str, Measure]:
    """Return the measures by name."""
    return {measure.name: measure for measure in measures}


def remarks_on(problems: Mapping[str, str]) -> list[str]:
    """Return a remark for each reason why metrics were not measured.

    Args:
        problems: the reasons, by name of the metric.
    """
    reasons = dict.fromkeys(problems.values())
    names = {reason: [name for name, why in problems.items() if why == reason] for reason in reasons}
    return [f"not measured: {', '.join(names[reason])} ({reason})" for reason in reasons]


def without_remark_on(remark: str, names: Collection[str]) -> str:
    """Return a remark of `remarks_on` without some metrics; empty if none is left. Other remarks stay."""
    match = re.fullmatch(r"not measured: ([a-z0-9_, ]+) (\(.*\))", remark, re.DOTALL)
    if not match:
        return remark
    left = [name for name in match[1].split(", ") if name not in names]
    return f"not measured: {', '.join(left)} {match[2]}" if left else ""
