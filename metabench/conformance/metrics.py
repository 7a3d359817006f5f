"""Check a metric against the contract of `metabench.specs.Metric`.

`metabench.testing.MetricChecks` runs these checks under pytest, `metabench plugin check` on the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from metabench.analysis.metrics import Measure, log_probabilities
from metabench.analysis.stats import Floats, Ints
from metabench.conformance.checks import NotConforming
from metabench.registry.manager import PluginManager
from metabench.specs import Metric, MetricSpec

#: Number of made-up episodes, and the ways and queries of each class.
EPISODES, SHAPES = 6, ((2, 3), (5, 15), (20, 1))


@dataclass(frozen=True)
class Subject:
    """The metric to check.

    Attributes:
        name: name of the metric, as its plugin announces it, or ``FILE.py:CLASS``.
        plugins: the plugin manager that provides the class.
    """

    name: str
    plugins: PluginManager = field(default_factory=PluginManager.from_environment)

    @property
    def spec(self) -> MetricSpec:
        """Return the declaration; that of a class in a file has no bounds."""
        return self.plugins.metrics().get(self.name, MetricSpec("metric", self.name, ""))

    def build(self) -> Metric:
        """Return a new metric."""
        return self.plugins.metric_class(self.name)()


def made_up(way: int, queries: int) -> tuple[Floats, Ints]:
    """Return log-probabilities and labels of `EPISODES` episodes."""
    generator = np.random.default_rng(way)
    targets = np.stack([generator.permutation(np.repeat(np.arange(way), queries)) for _ in range(EPISODES)])
    scores = 3 * generator.normal(size=(*targets.shape, way)) + 2 * (targets[..., None] == np.arange(way))
    return log_probabilities(scores), targets


def figures_of(metric: Metric, outputs: Floats, targets: npt.NDArray[Any]) -> Floats:
    """Return the figures of a metric.

    Raises:
        NotConforming: they are not finite, or neither [B] nor [B, k].
    """
    with np.errstate(all="ignore"):
        figures = np.asarray(metric.of_episode(outputs, targets), dtype=np.float64)
    count = len(targets)
    if figures.ndim not in (1, 2) or len(figures) != count or not figures.size:
        raise NotConforming(f"of_episode returned {figures.shape} figures of {count} episodes: return [B] or [B, k]")
    if not np.isfinite(figures).all():
        raise NotConforming("a figure of ordinary outputs is not finite")
    return figures


def value_of(metric: Metric, figures: Floats) -> float:
    """Return the value of a metric over all episodes."""
    return float(metric.pooled(figures.mean(axis=0))) if figures.ndim == 2 else float(figures.mean())


def _all_shapes(subject: Subject) -> Iterator[tuple[Floats, npt.NDArray[Any]]]:
    for way, queries in SHAPES:
        if subject.spec.task == "regression":
            yield made_up_numbers(way, queries)
            continue
        yield made_up(way, queries)


def made_up_numbers(outputs: int, queries: int) -> tuple[Floats, Floats]:
    """Return answers and targets of `EPISODES` episodes of regression."""
    generator = np.random.default_rng(outputs)
    targets = generator.normal(size=(EPISODES, queries, outputs))
    return targets + 0.5 * generator.normal(size=targets.shape), targets


def check_figures(subject: Subject) -> None:
    """`of_episode` returns finite [B] or [B, k] figures, for any way and number of queries."""
    for outputs, targets in _all_shapes(subject):
        figures_of(subject.build(), outputs, targets)


def check_episodes(subject: Subject) -> None:
    """The figures of an episode do not depend on other episodes, nor on earlier calls."""
    metric = subject.build()
    for outputs, targets in _all_shapes(subject):
        together = figures_of(metric, outputs, targets)
        alone = np.concatenate([figures_of(metric, outputs[i : i + 1], targets[i : i + 1]) for i in range(EPISODES)])
        if not np.allclose(together, alone, rtol=1e-9, atol=1e-12):
            raise NotConforming("the figures of an episode move with the episodes beside it: compute each on its own")


def check_arguments(subject: Subject) -> None:
    """Outputs and targets stay as they are."""
    for outputs, targets in _all_shapes(subject):
        before = outputs.copy(), targets.copy()
        figures_of(subject.build(), outputs, targets)
        if not (np.array_equal(before[0], outputs) and np.array_equal(before[1], targets)):
            raise NotConforming("of_episode changes its arguments, which other metrics read: work on copies")


def check_impossible_classes(subject: Subject) -> None:
    """Figures stay finite where a class that is not the true one has the log-probability -inf."""
    if subject.spec.task == "regression":
        return  # it has no classes
    for outputs, targets in _all_shapes(subject):
        impossible = outputs.copy()
        other = (targets + 1) % outputs.shape[-1]
        np.put_along_axis(impossible, other[..., None], -np.inf, axis=-1)
        try:
            figures_of(subject.build(), log_probabilities(impossible), targets)
        except NotConforming as error:
            raise NotConforming(
                f"with impossible classes: {error}: a product of probability 0 and log-probability -inf is no number"
            ) from error


def check_value(subject: Subject) -> None:
    """The value over all episodes is a finite number within the declared bounds."""
    metric = subject.build()
    declared = Measure.of(subject.spec, metric).declaration
    for outputs, targets in _all_shapes(subject):
        figures = figures_of(metric, outputs, targets)
        value = value_of(metric, figures)
        values = figures if figures.ndim == 1 else np.array([value])
        if not np.isfinite(value):
            raise NotConforming(f"pooled returned {value}")
        if not declared.admits(float(values.min()), float(values.max())):
            raise NotConforming(
                f"a value of {values.min():g} or {values.max():g} is not {declared.bounds}, as declared"
            )


CHECKS: dict[str, Callable[[Subject], None]] = {
    "figures": check_figures,
    "episodes": check_episodes,
    "arguments": check_arguments,
    "impossible classes": check_impossible_classes,
    "value": check_value,
}
