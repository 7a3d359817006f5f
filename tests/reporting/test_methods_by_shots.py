"""The table of a paper."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from kept_results import KeptResults
from metabench.analysis.standings import make_tables
from metabench.analysis.tables import Table
from metabench.records.record import EpisodeResults, Record
from metabench.reporting.markup import escape_latex
from metabench.reporting.methods_by_shots import methods_by_shots
from metabench.reporting.rendering import render_latex
from metabench.reporting.sheets import render_sheets

Make = Callable[..., Record]
Tables = Callable[[list[Record]], list[Table]]

HOSTILE = '[x] * | \\input{y} # $ % & ~ ^ _ {z} " <b> é ł Ж → 数'


@pytest.fixture
def record(make_record: Make) -> Make:
    """Return a function that makes records with cells of their own."""
    number = itertools.count()

    def make(mean: float | None, **changes: object) -> Record:
        return make_record(mean, cell=f"{next(number):016x}", **changes)

    return make


@pytest.fixture
def tables_of(make_results: Callable[..., EpisodeResults]) -> Tables:
    """Return a function that makes tables; the noise of a record's episodes follows from its cell."""

    def read(record: Record) -> EpisodeResults:
        assert record.primary is not None
        return make_results(record.primary.value, noise=int(record.cell, 16))

    return lambda records: make_tables(records, KeptResults(read))


@pytest.fixture
def usual(record: Make) -> list[Record]:
    return [
        record(0.9, algorithm="best"),
        record(0.8999, algorithm="near"),
        record(0.5, algorithm="far", transductive=True),
        record(0.95, algorithm="best", shot=5),
        record(None, algorithm="near", shot=5, error="out of memory"),
        record(0.7, algorithm="only", shot=5),
    ]


def test_a_method_is_a_row_and_a_shot_a_column(usual: list[Record], tables_of: Tables) -> None:
    text = render_sheets(methods_by_shots(tables_of(usual)), "table")
    lines = text.splitlines()
    assert lines[0] == "glyphs · 5-way · conv4"
    assert lines[1].split() == ["method", "1-shot", "5-shot"]
    rows = {line.split("  ")[0]: re.split(r"  +", line)[1:] for line in lines[3:8]}
    best, near, only, far, chance = (re.sub(r"± \d\.\d\d", "±", " | ".join(row)) for row in rows.values())
    assert list(rows) == ["best", "near", "only", "far (T)", "chance"], "by their mean place"
    assert (best, near, far) == ("90.00 ± * | 95.00 ± *", "89.99 ± = | failed", "50.00 ± | –")
    assert (only, chance) == ("– | 70.00 ±", "20.00 | 20.00")
    assert "near, glyphs 5-way 5-shot, seed 0 failed: out of memory" in text


def test_the_caption_says_episodes_seeds_intervals_and_marks(usual: list[Record], tables_of: Tables) -> None:
    (sheet,) = methods_by_shots(tables_of(usual))
    text = render_sheets([sheet], "markdown")
    assert "Accuracy in % on 5-way episodes of glyphs, backbone conv4" in text
    assert "mean of 100 test episodes and 1 training seed ± half the 95 % interval over episodes" in text
    assert "Bold: best of a column; =: ties with it" in text
    assert "of these weights, not of the methods" in text
    assert re.search(r"\*\*90\.00 ± \d\.\d\d\*\*", text)
    assert re.search(r"89\.99 ± \d\.\d\d =", text)
    assert "<strong>90.00" in render_sheets([sheet], "html")


def test_three_seeds_give_intervals_over_seeds_and_episodes(record: Make, tables_of: Tables) -> None:
    records = [
        record(mean + 0.02 * seed, algorithm=name, seed=seed)
        for name, mean in (("one", 0.8), ("two", 0.6))
        for seed in range(3)
    ]
    (table,) = tables_of(records)
    text = render_sheets(methods_by_shots([table]), "table")
    assert "100 test episodes and 3 training seeds ± half the 95 % interval over training seeds and episodes" in text
    assert "(over training seeds and episodes)" in text
    half = table.rows[0].method_ci95
    assert half is not None
    assert f"82.00 ± {100 * half:.2f} *" in text
    of_weights = render_sheets(methods_by_shots(tables_of(records[:-1])), "table")
    assert "2/3 training seeds ± half the 95 % interval over episodes" in of_weights


def test_a_failed_seed_is_seen_in_its_entry(record: Make, tables_of: Tables) -> None:
    records = [record(0.8, algorithm="one", seed=seed) for seed in range(3)]
    text = render_sheets(methods_by_shots(tables_of([*records[:2], record(None, algorithm="one", seed=2)])), "table")
    assert "(2/3 seeds)" in text
    assert "one, glyphs 5-way 1-shot, seed 2 failed: it broke" in text


def test_datasets_and_ways_are_headings_above_the_shots(record: Make, tables_of: Tables) -> None:
    records = [
        record(0.8, algorithm="one", dataset=dataset, way=way, shot=shot)
        for dataset, way, shot in (("a", 5, 1), ("a", 5, 5), ("a", 20, 1), ("b", 5, 1))
    ]
    (sheet,) = methods_by_shots(tables_of(records))
    latex = render_sheets([sheet], "latex")
    assert r"\multicolumn{2}{c}{a 5-way} & \multicolumn{1}{c}{a 20-way} & \multicolumn{1}{c}{b 5-way} \\" in latex
    assert r"\cmidrule(lr){2-3} \cmidrule(lr){4-4} \cmidrule(lr){5-5}" in latex
    assert r"\label{tab:a-b-conv4}" in latex
    text = render_sheets([sheet], "table")
    assert re.split(r"  +", text.splitlines()[1]) == [
        "method", "a 5-way 1-shot", "a 5-way 5-shot", "a 20-way 1-shot", "b 5-way 1-shot"
    ]  # fmt: skip


def test_backbones_have_tables_of_their_own(record: Make, tables_of: Tables) -> None:
    sheets = methods_by_shots(tables_of([record(0.8), record(0.7, backbone="wide")]))
    assert [sheet.title for sheet in sheets] == ["glyphs · 5-way · conv4", "glyphs · 5-way · wide"]


def test_a_table_without_any_result_names_the_failures(record: Make, tables_of: Tables) -> None:
    text = render_sheets(methods_by_shots(tables_of([record(None)])), "table")
    assert re.search(r"one +failed", text)
    assert "seed 0 failed: it broke" in text


def test_latex_is_ascii_and_every_brace_is_closed(record: Make, tables_of: Tables) -> None:
    records = [
        record(0.8, algorithm=HOSTILE, dataset=HOSTILE, backbone=HOSTILE),
        record(None, dataset=HOSTILE, backbone=HOSTILE, error=HOSTILE),
    ]
    text = render_sheets(methods_by_shots(tables_of(records)), "latex")
    assert text.isascii()
    unescaped = re.sub(r"\\[{}]", "", text)
    assert unescaped.count("{") == unescaped.count("}")
    assert r"\input" not in text
    assert re.search(r"\\label\{tab:[a-z0-9-]+\}", text)


@pytest.mark.parametrize(
    ("text", "latex"), [("é", r"\'{e}"), ("Ł", r"\L{}"), ("[", "{[}"), ("±", r"$\pm$"), ("a_b", r"a\_b")]
)
def test_a_character_of_latex_is_escaped(text: str, latex: str) -> None:
    assert escape_latex(text) == latex


def test_the_latex_compiles_with_booktabs_alone(
    record: Make, usual: list[Record], tables_of: Tables, tmp_path: Path
) -> None:
    compiler = shutil.which("pdflatex")
    if compiler is None:
        pytest.skip("pdflatex is not installed: the LaTeX of the tables is not compiled")
    odd = [record(0.8, algorithm=HOSTILE, dataset=HOSTILE), record(0.7, algorithm=f"{HOSTILE}!", dataset=HOSTILE)]
    tables = tables_of([*usual, *odd])
    body = render_sheets(methods_by_shots(tables), "latex") + render_latex(tables)
    document = "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n" + body + "\\end{document}\n"
    (tmp_path / "tables.tex").write_text(document, encoding="utf-8")
    ended = subprocess.run(
        [compiler, "-halt-on-error", "-interaction=nonstopmode", "tables.tex"],
        cwd=tmp_path,
        capture_output=True,
        timeout=120,
        check=False,
    )
    log = ended.stdout.decode(errors="replace")
    assert ended.returncode == 0, log[-2000:]
    assert "! " not in log
    assert (tmp_path / "tables.pdf").stat().st_size > 1000
