"""What a test has measured: declared metrics and their estimates."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from metabench.records.values import ROUNDING, Cost, Count, Line, Part, Share, Text, Width


class Place(Part):
    """The place of a metric on a curve, which the report draws, e.g. of a return after each round of adaptation.

    Attributes:
        curve: what all metrics of the curve measure, e.g. ``"return"``.
        axis: what they are drawn against, e.g. ``"rounds of adaptation"``.
        at: place on the axis.
    """

    curve: Line
    axis: Line
    at: float


class Declaration(Part):
    """What tables, plots and gates need to know of a metric; see `metabench.specs.MetricSpec`.

    Attributes:
        place: place of the metric on a curve; None of a metric that stands alone.
    """

    title: Line
    better: Literal["high", "low"] = "high"
    unit: Line = ""
    scale: Annotated[float, Field(gt=0)] = 1.0
    lowest: float | None = None
    highest: float | None = None
    summary: Line = ""
    place: Place | None = None

    @property
    def heading(self) -> str:
        """Return title and unit, e.g. ``"accuracy %"``."""
        return f"{self.title} {self.unit}".rstrip()

    @property
    def sign(self) -> int:
        """Return 1 where high values are better, -1 where low ones are."""
        return 1 if self.better == "high" else -1

    @property
    def bounds(self) -> str:
        """Return the bounds of the values as text."""
        low, high = self.lowest, self.highest
        if low is None or high is None:
            return "a number" + (
                f" from {low:g}" if low is not None else f" up to {high:g}" if high is not None else ""
            )
        return f"between {low:g} and {high:g}"

    def short(self, value: float) -> str:
        """Return title and value for a line of progress, e.g. ``"accuracy 81.20%"``."""
        scaled = value * self.scale
        return f"{self.title} {scaled:.2f}%" if self.unit == "%" else f"{self.title} {scaled:.3g} {self.unit}".rstrip()

    def admits(self, lowest: float, highest: float) -> bool:
        """Return whether values between two numbers are within the bounds; False for NaN."""
        above = -math.inf if self.lowest is None else self.lowest - ROUNDING
        below = math.inf if self.highest is None else self.highest + ROUNDING
        return above <= lowest and highest <= below


class Estimate(Part):
    """A metric over the test episodes.

    Attributes:
        value: the mean over the episodes, or the metric pooled over the queries of all episodes.
        ci95: half the 95 % interval over episodes: Student t of the mean (`metabench.analysis.stats.MeanInterval`), or
            a bootstrap of a pooled metric (`metabench.analysis.bootstrap`).
        std: standard deviation of the episodes; None for a pooled metric.
        episodes: number of episodes.
        data_ci95: half the 95 % interval about the data (`metabench.analysis.stats.DataIntervals`); None where there
            are too few classes, and for a pooled metric.
    """

    value: float
    ci95: Width
    std: Width | None = None
    episodes: Annotated[int, Field(ge=2, lt=2**31)]
    data_ci95: Width | None = None

    @property
    def is_pooled(self) -> bool:
        """Return whether the metric has no value for an episode."""
        return self.std is None


class EngineCost(Part):
    """A cost of a cell that only its engine knows, e.g. environment steps; shown as a column.

    Attributes:
        title: heading of the column.
        value: the cost.
        summary: explanation of the heading.
    """

    title: Line
    value: Cost
    summary: Line = ""


class Temperature(Part):
    """The temperature of the calibrated metrics, fitted on validation episodes.

    Attributes:
        value: the divisor of the scores.
        episodes: number of validation episodes.
    """

    value: Annotated[float, Field(gt=0)]
    episodes: Count


class ClassAccuracy(Part):
    """Accuracy on the queries of one test class.

    Attributes:
        name: name of the class.
        accuracy: fraction of its queries that were classified correctly.
        episodes: number of test episodes with this class.
    """

    name: Text
    accuracy: Share
    episodes: Count
