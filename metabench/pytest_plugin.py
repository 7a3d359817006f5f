"""Fixtures for the tests of other projects."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def assert_no_regression() -> Callable[..., None]:
    """Return a function that fails the test for worse runs.

    Its arguments are two output directories, ``base`` and ``candidate``, and ``tolerance``, the largest accepted loss
    of accuracy in percentage points; see `metabench.analysis.gate.compare_runs`.
    """

    def check(base: str | Path, candidate: str | Path, tolerance: float = 0.5) -> None:
        from metabench.analysis.gate import compare_runs
        from metabench.records.runs import Runs

        comparison = compare_runs(Runs.read([Path(base)]), Runs.read([Path(candidate)]), tolerance / 100)
        if not comparison.passed:
            broken = [verdict for verdict in comparison.verdicts if verdict.breaks or comparison.is_empty]
            pytest.fail(
                "\n".join(f"{verdict.word}  {verdict.cell}: {verdict.reason}" for verdict in broken), pytrace=False
            )

    return check
