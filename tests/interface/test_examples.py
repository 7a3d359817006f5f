"""The examples of docstrings and of docs/python.md do what they show."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, glyphs_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("METABENCH_CACHE", str(glyphs_cache))
    for name in ("METABENCH_DATA", "METABENCH_PLUGINS"):
        monkeypatch.delenv(name, raising=False)


def test_the_examples_of_docstrings_are_right() -> None:
    # In this order, since the later examples read the run of the first.
    for module in ("suites", "results", "datasets", "evaluation"):
        found = doctest.testmod(importlib.import_module(f"metabench.interface.{module}"))
        assert found.attempted > 2, f"{module} has no examples"
        assert found.failed == 0


def test_the_examples_of_the_page_are_right() -> None:
    found = doctest.testfile(str(DOCS / "python.md"), module_relative=False)
    assert found.attempted > 15
    assert found.failed == 0
