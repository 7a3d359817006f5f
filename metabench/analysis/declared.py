"""Collect the built-in metrics and the metrics of plugins."""

from __future__ import annotations

import logging
from typing import Any

from metabench.analysis.metrics import OF_TASK, Measure, by_name
from metabench.errors import PluginError, in_one_line
from metabench.registry.manager import PluginManager
from metabench.specs import Metric, MetricSpec


def measures_of(plugins: PluginManager, task: str) -> list[Measure]:
    """Return the built-in and the plugin metrics for a kind of task.

    A metric of a plugin cannot replace a built-in one: it is left out with a warning.

    Args:
        plugins: the provider of the classes.
        task: ``"classification"`` or ``"regression"``.
    """
    measures = list(OF_TASK[task])
    for name, spec in plugins.metrics().items():
        if spec.task != task:
            continue
        if name in by_name(OF_TASK[task]):
            logging.getLogger(__name__).warning(
                "the metric '%s' of %s is left out: metabench has one of this name",
                name,
                plugins.provider("metric", name),
            )
        else:
            measures.append(Measure.of(spec, _built(spec, plugins)))
    return measures


class _Unusable(Metric):
    """Stands for a metric whose class cannot be used: the reason becomes a remark of the cell."""

    def __init__(self, error: BaseException) -> None:
        self._problem = in_one_line(error)

    def of_episode(self, outputs: Any, targets: Any) -> Any:
        """Raise the reason."""
        raise PluginError(self._problem)


def _built(spec: MetricSpec, plugins: PluginManager) -> Metric:
    try:
        return plugins.metric_class(spec.name)()
    except (Exception, SystemExit) as error:  # a plugin may raise anything
        return _Unusable(error)
