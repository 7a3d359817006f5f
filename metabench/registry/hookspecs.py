"""The hooks. A plugin implements any of them with `metabench.specs.hookimpl`; see docs/plugins.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pluggy

from metabench.specs import PROJECT, AlgorithmSpec, BackboneSpec, DatasetSpec, LoggerSpec, PublishedResult, SuiteSpec

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
def metabench_suites() -> Iterable[SuiteSpec]:  # type: ignore[empty-body]
    """Return the suites that this plugin provides."""


@hookspec
def metabench_loggers() -> Iterable[LoggerSpec]:  # type: ignore[empty-body]
    """Return the loggers that this plugin provides; ``metabench run --log NAME`` makes one hear of the run."""


@hookspec
def metabench_published_results() -> Iterable[PublishedResult]:  # type: ignore[empty-body]
    """Return published accuracies, which the leaderboard and the report show beside the measured ones."""


@hookspec
def metabench_run_started(output: Path, suite: Mapping[str, Any], cells: int) -> None:
    """Be told that a run begins.

    Args:
        output: the output directory.
        suite: the resolved suite, as it is stored.
        cells: how many cells the run has, finished ones included.
    """


@hookspec
def metabench_cell_finished(output: Path, record: Mapping[str, Any]) -> None:
    """Be told that a cell was run and has a record, also when its status is ``"failed"``.

    It is not called for cells whose record is kept from an earlier run.

    Args:
        output: the output directory.
        record: the record as it is stored (docs/records.md).
    """


@hookspec
def metabench_run_finished(output: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Be told that a run is over, all its cells having a record; not called after an interruption.

    Args:
        output: the output directory.
        records: one for each cell that was to run, kept ones included.
    """
