"""The notebook of the documentation runs from top to bottom, and is stored with small outputs."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import nbformat
import pytest

DOCS = Path(__file__).parent.parent / "docs"
NOTEBOOK = DOCS / "notebook.ipynb"


def printed(notebook: Any) -> list[str]:
    """Return the text of each cell that prints."""
    texts = [
        "".join(output.text for output in cell.get("outputs", []) if output.output_type == "stream")
        for cell in notebook.cells
    ]
    return [text for text in texts if text]


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(
    tmp_path: Path, glyphs_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.spec_from_file_location("notebook_outputs", DOCS / "notebook_outputs.py")
    assert spec is not None
    assert spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    monkeypatch.setenv("METABENCH_CACHE", str(glyphs_cache))
    monkeypatch.delenv("METABENCH_PLUGINS", raising=False)
    found, kept = printed(maker.executed(tmp_path)), printed(nbformat.read(NOTEBOOK, as_version=4))
    # The last digits depend on processor and torch; what the texts say does not.
    assert [len(text.splitlines()) for text in found] == [len(text.splitlines()) for text in kept]
    assert found[1] == kept[1], "the own loop on the same episodes, which trains nothing"
    assert "mine" in found[2]
    answered, in_the_run = found[3].split(" %, in the run ")
    assert answered == in_the_run.strip().removesuffix(" %")


def test_the_notebook_is_small_and_names_no_place_of_a_machine() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text) < 150_000
    for place in ("/tmp", "/home", "/root", "/Users", "site-packages"):
        assert place not in text
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
    counts = [cell.execution_count for cell in codes]
    assert counts == list(range(1, len(codes) + 1)), "run `python docs/notebook_outputs.py`"
    outputs = [output for cell in codes for output in cell.outputs]
    assert not any(output.output_type == "error" or output.get("name") == "stderr" for output in outputs)
