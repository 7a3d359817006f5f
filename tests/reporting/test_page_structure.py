"""The page as a screen reader meets it, without a browser."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from metabench.engine.pictures import episode_png
from metabench.records.record import EpisodeResults, Record
from metabench.records.runs import Runs
from metabench.records.store import Store
from metabench.records.tallies import Tallies
from metabench.reporting.report.page import render_page
from page_structure import Structure

Make = Callable[..., Record]


@pytest.fixture
def runs(tmp_path: Path, make_record: Make, make_results: Callable[..., EpisodeResults]) -> Runs:
    """Return two tables in which the ranks of the methods differ, with a failed and an unfinished cell."""
    images = np.linspace(0, 1, 5 * 64, dtype=np.float32).reshape(5, 1, 8, 8)
    picture = episode_png(images, range(5), images, range(5), [1, 1, 2, 3, 4], [f"class {n}" for n in range(5)])
    tallies = Tallies(
        ["one", "two"], np.array([3, 1]), np.array([0.5, 1.0]), np.array([[0, 1, 2]]), np.full((2, 3, 15), 30.0)
    )
    store, number = Store(tmp_path / "out"), 0
    for shot, accuracies in ((1, (0.9, 0.8, 0.7)), (5, (0.7, 0.8, 0.9))):
        for name, accuracy in zip(("first", "second", "third"), accuracies, strict=True):
            for seed in (0, 1):
                number += 1
                record = make_record(accuracy, algorithm=name, shot=shot, seed=seed, cell=f"{number:016}")
                store.write(record, replace(make_results(accuracy, noise=number), tallies=tallies), picture)
    store.write(make_record(None, algorithm="broken", cell="f" * 16))
    store.write_text("suite.yaml", "name: small\n")
    planned = {"cell": "e" * 16, "algorithm": "waiting", "dataset": "glyphs", "backbone": "conv4", "seed": "3"}
    store.write_text("plan.json", f"[{planned}]".replace("'", '"'))
    return Runs.read([store.path])


@pytest.fixture
def structure(runs: Runs) -> Structure:
    found = Structure()
    found.feed(render_page(runs).partition('<script type="application/octet-stream"')[0])
    return found


def test_headings_leave_out_no_level(structure: Structure) -> None:
    assert structure.levels[0] == 1
    assert structure.levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in zip(structure.levels, structure.levels[1:], strict=False))


def test_every_table_has_a_caption_and_headers_of_columns_and_rows(structure: Structure) -> None:
    assert len(structure.tables) > 5
    for table in structure.tables:
        assert table.caption.strip(), table
        assert set(table.heads) <= {"row", "col"}, table
        assert set(table.rows[0]) == {"th"}, table
        assert all(row[0] == "th" and "th" not in row[1:] for row in table.rows[1:]), table


def test_every_image_has_a_text_and_every_link_a_target(structure: Structure) -> None:
    assert structure.without_alt == 0
    assert len(structure.ids) == len(set(structure.ids))
    assert len(structure.targets) > 3
    assert set(structure.targets) <= set(structure.ids)


def test_a_method_has_one_colour_on_the_page_whatever_its_rank(structure: Structure) -> None:
    methods = {name: structure.marks[name] for name in ("first", "second", "third")}
    assert all(len(colours) == 1 for colours in methods.values())
    assert len({colour for colours in methods.values() for colour in colours}) == 3


def test_every_plot_is_told_in_words(runs: Runs) -> None:
    text = render_page(runs)
    figures = re.findall(r"<figure><figcaption>(.*?)</figcaption><p class=\"unseen\">(.*?)</p>", text)
    # Two tables: intervals, three costs, validations, distribution and two diagrams; one plot against shots.
    assert len(figures) == 2 * 8 + 1
    assert all("first" in description for _, description in figures)
    captions = " ".join(caption for caption, _ in figures)
    for word in ("Reliability", "against shots", "Pareto front", "each of 2 seeds a line", "at most this accuracy"):
        assert word in captions, word


def test_failed_and_unfinished_cells_are_listed(runs: Runs) -> None:
    text = render_page(runs)
    listed = text.partition('<h2 id="missing">')[2].partition("</section>")[0]
    assert re.findall(r'<th scope="row" class="left">(\w+)</th><td class="left">(\w+)</td>', listed) == [
        ("broken", "failed"),
        ("waiting", "unfinished"),
    ]
    assert "it broke" in listed
    assert "1 planned cell without a record" in listed


def test_equal_runs_make_equal_pages(runs: Runs) -> None:
    assert render_page(runs) == render_page(runs)


def test_a_report_imports_no_torch(runs: Runs, tmp_path: Path) -> None:
    script = (
        "import sys\nfrom metabench.cli import main\n"
        "try: main()\n"
        "except SystemExit as end:\n"
        "    sys.exit('imported torch' if 'torch' in sys.modules else end.code)\n"
    )
    command = [sys.executable, "-c", script, "report", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
