"""Hooks that plugins implement with `metabench.specs.hookimpl`; see docs/plugins.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pluggy

from metabench.specs import (
    PROJECT,
    AlgorithmSpec,
    BackboneSpec,
    DatasetSpec,
    EngineSpec,
    ExecutorSpec,
    LoggerSpec,
    MetricSpec,
    PublishedResult,
    SuiteSpec,
)

hookspec = pluggy.HookspecMarker(PROJECT)


@hookspec
def metabench_algorithms() -> Iterable[AlgorithmSpec]:  # type: ignore[empty-body]
    """Return the algorithms that this plugin provides."""


@hookspec
def metabench_backbones() -> Iterable[BackboneSpec]:  # type: ignore[empty-body]
    """Return the backbones that this plugin provides."""


@hookspec
def metabench_datasets() -> Iterable[DatasetSpec]:  # type: ignore[empty-body]
    """Return the datasets that this plugin provides."""


@hookspec
def metabench_metrics() -> Iterable[MetricSpec]:  # type: ignore[empty-body]
    """Return the metrics that this plugin provides, which are computed for every cell of their kind of task."""


@hookspec
def metabench_engines() -> Iterable[EngineSpec]:  # type: ignore[empty-body]
    """Return the engines that this plugin provides: ways to plan suites and to run their cells."""


@hookspec
def metabench_executors() -> Iterable[ExecutorSpec]:  # type: ignore[empty-body]
    """Return the executors that this plugin provides: places where jobs run."""


@hookspec
def metabench_suites() -> Iterable[SuiteSpec]:  # type: ignore[empty-body]
    """Return the suites that this plugin provides."""


@hookspec
def metabench_loggers() -> Iterable[LoggerSpec]:  # type: ignore[empty-body]
    """Return the loggers that this plugin provides.

    ``metabench run --log NAME`` calls the event hooks of the logger NAME.
    """


@hookspec
def metabench_published_results() -> Iterable[PublishedResult]:  # type: ignore[empty-body]
    """Return published results for the leaderboard and the report."""


@hookspec
def metabench_run_started(output: Path, suite: Mapping[str, Any], cells: int) -> None:
    """Called when a run starts.

    Args:
        output: the output directory.
        suite: the resolved suite, as stored in ``suite.yaml``.
        cells: number of cells in the run, including those finished in earlier runs.
    """


@hookspec
def metabench_cell_finished(output: Path, record: Mapping[str, Any]) -> None:
    """Called when a cell has finished, failed or been skipped.

    The hook is not called for cells whose record is kept from an earlier run.

    Args:
        output: the output directory.
        record: the record as stored (docs/records.md); its status is ``"ok"``, ``"failed"`` or
            ``"skipped"``.
    """


@hookspec
def metabench_run_finished(output: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Called when every cell of a run has a record.

    The hook is not called after an interruption.

    Args:
        output: the output directory.
        records: one record for each selected cell, including those kept from earlier runs.
    """
