"""The example of somebody else's plugin, without installing it; `.ci/run` installs its wheel and runs its own tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from metabench.conformance.algorithms import CHECKS
from metabench.conformance.checks import run
from metabench.conformance.subjects import Subject

EXAMPLE = Path(__file__).parents[2] / "plugins" / "example_boil"

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("check", CHECKS)
def test_boil_keeps_all_rules(check: str) -> None:
    run(CHECKS[check], Subject(f"{EXAMPLE}/metabench_boil/algorithm.py:BOIL"))


def test_it_uses_the_public_api_alone() -> None:
    lines = (EXAMPLE / "metabench_boil" / "algorithm.py").read_text(encoding="utf-8").splitlines()
    ours = [line for line in lines if line.startswith(("from metabench", "import metabench"))]
    assert ours == ["from metabench.api import ("]
