"""Descriptions that plugins announce; their classes are imported lazily."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pluggy

if TYPE_CHECKING:  # announcing must not import numpy
    import numpy as np
    import numpy.typing as npt

#: Entry-point group, and the name of the pluggy project.
PROJECT = "metabench"

#: The version of the plugin API: `metabench.api`, `metabench.specs` and the hooks. It goes up with every change that
#: breaks a working plugin.
API_VERSION = 2

#: Marks a plugin's function as the implementation of a hook of `metabench.registry.hookspecs`.
hookimpl = pluggy.HookimplMarker(PROJECT)


@dataclass(frozen=True)
class Spec:
    """Describes a class that a plugin provides.

    Attributes:
        name: the name that suites use, e.g. ``"protonet"``.
        target: the class, as ``"package.module:Class"``; imported on first use.
        summary: one line for `metabench list`.
        reference: author and year of the implemented paper, e.g. ``"Snell et al. 2017"``.
        link: URL of the paper.
        result_version: version of the results, compared instead of a hash of the code: change it whenever the code
            gives other results. Empty compares the code.
        requires: what to ``pip install`` for the optional imports of the class, e.g. ``"metabench[timm]"``.
        library: distribution that the class wraps, e.g. ``"timm"``: records hold its version, and results of another
            version are made again.
    """

    name: str
    target: str
    summary: str
    reference: str = ""
    link: str = ""
    result_version: str = ""
    requires: str = field(default="", kw_only=True)
    library: str = field(default="", kw_only=True)


@dataclass(frozen=True)
class AlgorithmSpec(Spec):
    """Announces a `metabench.api.Algorithm`.

    Attributes:
        floor: whether it is a floor, which methods must beat: a suite with ``floors: true`` tests it beside its own
            algorithms, without training, and tables do not rank it.
        differs: differences from the paper, a clause each, for the method's page.
    """

    floor: bool = False
    differs: Sequence[str] = ()


@dataclass(frozen=True)
class BackboneSpec(Spec):
    """Announces a `metabench.api.Backbone`."""


@dataclass(frozen=True)
class DatasetSpec(Spec):
    """Announces a `metabench.api.Dataset` or a `metabench.api.EpisodeSource`.

    Attributes:
        licence: licence of the data as its authors state it, e.g. ``"CC BY 4.0"``; empty where it is not known.
    """

    licence: str = field(default="", kw_only=True)


@dataclass(frozen=True)
class EngineSpec(Spec):
    """Announces a `metabench.contracts.Engine`, which plans and runs the suites that name it (``engine: NAME``)."""


@dataclass(frozen=True)
class ExecutorSpec(Spec):
    """Announces a `metabench.contracts.Executor`, which runs the jobs of ``metabench run --executor NAME``."""


@dataclass(frozen=True)
class LoggerSpec(Spec):
    """Announces a logger, which carries records to an experiment tracker.

    A logger is a class without constructor arguments whose methods implement the event hooks.
    """


class Metric:
    """A metric as two functions of numpy arrays, without state.

    The harness calls them; a method never sees its metric.
    """

    def of_episode(self, outputs: npt.NDArray[np.float64], targets: npt.NDArray[Any]) -> npt.NDArray[np.floating[Any]]:
        """Return the figures of each of B episodes, a function of that episode only.

        Every metric overrides this method.

        Args:
            outputs: [B, M, N] log-probabilities of the N classes for M queries; -inf for an impossible class. Of a
                regression, [B, M, D] numbers.
            targets: [B, M] labels; [B, M, D] numbers of a regression.

        Returns:
            [B] figures, of which the metric is the mean over all episodes; or [B, k] figures for `pooled`. A figure
            that is not finite makes the metric of the cell unknown.
        """
        raise NotImplementedError(f"{type(self).__name__} is a metric: define of_episode(outputs, targets)")

    def pooled(self, means: npt.NDArray[np.float64]) -> float:
        """Return the metric from the [k] means of the figures over all episodes.

        A metric whose `of_episode` returns [B, k] figures overrides this method; it is not called for other metrics.
        """
        raise NotImplementedError(f"{type(self).__name__} has several figures of an episode: define pooled(means)")


#: The kinds of tasks.
TaskKind = Literal["classification", "regression"]

#: The names of metrics are keys of records and parts of file names.
METRIC_NAME = r"^[a-z][a-z0-9_]*$"


@dataclass(frozen=True)
class MetricSpec(Spec):
    """Announces a `Metric`, which is computed for every cell of its kind of task from its test outputs.

    Attributes:
        title: heading of its column, e.g. ``"NLL"``; empty means `name`.
        better: whether high or low values are better.
        unit: unit of the values that tables show, e.g. ``"%"``.
        scale: factor from values to what tables show, e.g. 100 for fractions in percent.
        lowest: smallest possible value of the metric; None for no bound. A record beyond it is wrong.
        highest: largest possible value; None for no bound.
        calibrated: whether the outputs are softened by the temperature of the cell, which is fitted on validation
            episodes.
        task: the kind of tasks that it measures, ``"classification"`` or ``"regression"``.
    """

    title: str = ""
    better: Literal["high", "low"] = "high"
    unit: str = ""
    scale: float = 1.0
    lowest: float | None = None
    highest: float | None = None
    calibrated: bool = False
    task: TaskKind = "classification"

    def __post_init__(self) -> None:
        """Check the name, the direction and the scale.

        Raises:
            ValueError: one of them cannot be used.
        """
        if not re.fullmatch(METRIC_NAME, self.name):
            raise ValueError(f"the metric's name {self.name!r} must consist of a-z, 0-9 and _, and begin with a letter")
        if self.better not in ("high", "low"):
            raise ValueError(f"better of the metric '{self.name}' must be 'high' or 'low', not {self.better!r}")
        if self.task not in ("classification", "regression"):
            raise ValueError(
                f"task of the metric '{self.name}' must be 'classification' or 'regression', not {self.task!r}"
            )
        if not 0 < self.scale < float("inf"):
            raise ValueError(f"scale of the metric '{self.name}' must be a positive number, not {self.scale!r}")


@dataclass(frozen=True)
class Float:
    """A number that ``metabench tune`` searches for a parameter.

    Attributes:
        low: smallest value.
        high: largest value.
        log: whether equal factors, not equal steps, are equally likely; `low` is positive then.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        """Check the bounds; see `_check_bounds`."""
        _check_bounds(self.low, self.high, self.log)

    def __str__(self) -> str:
        """Return a text for people, e.g. ``"0.001 … 0.1, log"``."""
        return f"{self.low:g} … {self.high:g}{', log' if self.log else ''}"

    def contains(self, value: object) -> bool:
        """Return whether the search may find a value."""
        return isinstance(value, (int, float)) and not isinstance(value, bool) and self.low <= value <= self.high


@dataclass(frozen=True)
class Integer:
    """A whole number that ``metabench tune`` searches for a parameter; attributes as of `Float`."""

    low: int
    high: int
    log: bool = False

    def __post_init__(self) -> None:
        """Check the bounds; see `_check_bounds`."""
        _check_bounds(self.low, self.high, self.log)

    def __str__(self) -> str:
        """Return a text for people, e.g. ``"1 … 10"``."""
        return f"{self.low} … {self.high}{', log' if self.log else ''}"

    def contains(self, value: object) -> bool:
        """Return whether the search may find a value."""
        return isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high


@dataclass(frozen=True)
class OneOf:
    """Values of which ``metabench tune`` searches one for a parameter.

    Attributes:
        values: numbers, texts, booleans or None; at least two.
    """

    values: Sequence[float | str | bool | None]

    def __post_init__(self) -> None:
        """Check the number of values.

        Raises:
            ValueError: there are fewer than two.
        """
        if len(self.values) < 2:
            raise ValueError("there is nothing to search among fewer than two values")

    def __str__(self) -> str:
        """Return a text for people, e.g. ``"UN, L2N or CL2N"``."""
        *first, last = map(str, self.values)
        return f"{', '.join(first)} or {last}"

    def contains(self, value: object) -> bool:
        """Return whether the search may find a value."""
        return any(type(value) is type(other) and value == other for other in self.values)


#: What is searched for one parameter (`metabench.api.Config.search_space`).
SearchRange = Float | Integer | OneOf


def _check_bounds(low: float, high: float, log: bool) -> None:
    """Check the bounds of a search.

    Raises:
        ValueError: they are not in order, or a logarithm has no lower bound.
    """
    if not low < high:
        raise ValueError(f"the lower bound of a search ({low}) must be below the upper one ({high})")
    if log and low <= 0:
        raise ValueError(f"a logarithmic search begins above 0, not at {low}")


@dataclass(frozen=True)
class PublishedResult:
    """A published accuracy, shown beside the measured one.

    Attributes:
        algorithm: name of the algorithm, as its plugin announces it.
        dataset: name of the dataset.
        way: classes of a test episode (N).
        shot: support images of each class (K).
        accuracy: mean accuracy as a fraction.
        source: citation, e.g. ``"Snell et al. 2017, table 1"``.
        ci95: half the published 95 % interval, as a fraction; None where the source gives none.
        link: URL of the source.
        variant: values that a cell must have to show this result, by dotted path in its identity
            (``{"algorithm.params.first_order": True}``).
        protocol: further settings of the published experiment, by dotted path, or ``test.episodes``; a cell with
            another value shows the result with "*" and lists the difference.
        notes: differences that no setting of a cell expresses.
    """

    algorithm: str
    dataset: str
    way: int
    shot: int
    accuracy: float
    source: str
    ci95: float | None = None
    link: str = ""
    variant: Mapping[str, Any] = field(default_factory=dict)
    protocol: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Check the types and ranges of the fields.

        Raises:
            ValueError: an accuracy is not a fraction, settings are not a mapping, or a name is not text.
        """
        for name, value in (("accuracy", self.accuracy), ("ci95", 0.0 if self.ci95 is None else self.ci95)):
            if not (isinstance(value, (int, float)) and 0 <= value <= 1):
                raise ValueError(f"{name} of a published result must be a fraction between 0 and 1, not {value!r}")
        for name in ("variant", "protocol"):
            if not isinstance(getattr(self, name), Mapping):
                raise ValueError(f"{name} of a published result must be a mapping of settings to values")
        for name in ("algorithm", "dataset", "source", "link"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} of a published result must be text")


@dataclass(frozen=True)
class SuiteSpec:
    """Announces a suite, which `metabench run NAME` finds from anywhere.

    Attributes:
        name: the suite's name on the command line.
        path: the YAML file.
    """

    name: str
    path: Path
