"""Builds the page: what is in it is decided here, how it looks in `page.html`, which escapes all that is put in."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from bokeh.resources import INLINE
from jinja2 import Environment

from metabench import __version__, leaderboard
from metabench.record import Record
from metabench.report.plots import draw
from metabench.runs import Runs
from metabench.specs import PublishedFigure
from metabench.standings import Row, Table, episodes_of
from metabench.stats import mean_interval

#: Tables with plots, paired differences and pictures; further ones are only in the table of all methods.
SECTIONS = 4
#: Methods in a matrix of paired differences, and with a picture: the best ones.
METHODS = 8


def render_page(runs: Runs, figures: Sequence[PublishedFigure] = ()) -> str:
    """Return the page as HTML."""
    tables = runs.tables(figures)
    detailed = [table for table in tables if any(row.accuracy for row in table.rows)][:SECTIONS]
    script, plots = draw(detailed)
    folder = files("metabench.report")
    read = {
        name: (folder / name).read_text(encoding="utf-8") for name in ("page.html", "page.css", "page.js", "plots.js")
    }
    columns = leaderboard.shown_columns(tables)
    records = runs.records
    more = f" Plots and details of the first {SECTIONS} of {len(tables)} tables." if len(tables) > SECTIONS else ""
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(read["page.html"]).render(
        title=", ".join(dict.fromkeys(record.suite for record in records)),
        summary=f"{len(records)} trainings in {len(tables)} tables, by metabench {__version__}.{more}",
        css=read["page.css"],
        js=read["page.js"],
        plots_js=read["plots.js"],
        plots_library="\n".join(INLINE.js_raw[:1]) if script else "",
        plots_script=script,
        columns=[_Heading("task", True), *(_Heading(column.title, column.left) for column in columns)],
        rows=[_cells(table, row, columns) for table in tables for row in table.rows],
        notes=[*leaderboard.legend(columns), *leaderboard.devices(tables)],
        sources=[_published(table, row) for table in tables for row in table.rows if row.published and row.accuracy],
        sections=[_section(table, drawn, runs.picture) for table, drawn in zip(detailed, plots, strict=True)],
        environments=_environments(records),
        suites=[{"name": name, "text": text} for name, text in runs.suites().items()],
    )


@dataclass(frozen=True)
class _Heading:
    title: str
    left: bool


@dataclass(frozen=True)
class _Cell:
    """A cell of the table of all methods; `value` is what it is sorted by, where that is not its text."""

    text: str
    left: bool = False
    value: float | str | None = None


def _cells(table: Table, row: Row, columns: Sequence[leaderboard.Column]) -> list[_Cell]:
    cells = [_Cell(table.title.rpartition(" · ")[0] or table.title, True)]
    for column in columns:
        value = column.value(row) if column.value else None
        text = column.text(row)
        cells.append(_Cell(text, column.left, "" if column.value and value is None else value))
    return cells


def _section(table: Table, plots: Sequence[Any], picture: Callable[[Record], bytes | None]) -> dict[str, Any]:
    methods = []
    for row in [row for row in table.rows if row.accuracy][:METHODS]:
        record = row.finished[0]
        image = picture(record)
        methods.append(
            {
                "name": row.algorithm,
                "worst": [
                    {"name": worst.name, "accuracy": f"{worst.accuracy * 100:.1f}", "episodes": worst.episodes}
                    for worst in record.worst_classes
                ],
                "picture": base64.b64encode(image).decode() if image else "",
                "lowest": f"{row.episodes.accuracies.min() * 100:.1f}" if row.episodes else "",
            }
        )
    return {
        "title": table.title + leaderboard.seeds(table),
        "remarks": [*leaderboard.failures(table), *leaderboard.ties(table)],
        "plots": plots,
        "pairs": _pairs(table),
        "methods": [method for method in methods if method["worst"] or method["picture"]],
    }


def _pairs(table: Table) -> dict[str, Any] | None:
    """Return the matrix of paired differences of the best methods; None where there is nothing to compare."""
    done = [row for row in table.rows if row.episodes]
    rows = [row for row in done if episodes_of(row) == episodes_of(done[0])][:METHODS]
    if len(rows) < 2:
        return None
    accuracies = [row.episodes.accuracies for row in rows if row.episodes]
    lines = []
    for i, row in enumerate(rows):
        cells = []
        for j in range(len(rows)):
            if i == j:
                cells.append({"text": "", "verdict": ""})
                continue
            difference = mean_interval(accuracies[i] - accuracies[j])
            clear = abs(difference.mean) > difference.ci95
            verdict = ("better" if difference.mean > 0 else "worse") if clear else ""
            text = f"{difference.mean * 100:+.2f} ± {difference.ci95 * 100:.2f}".replace("-", "−")
            cells.append({"text": text, "verdict": verdict})
        lines.append({"name": row.algorithm, "cells": cells})
    more = f"The best {len(rows)} of {len(done)} methods." if len(done) > len(rows) else ""
    return {"names": [row.algorithm for row in rows], "lines": lines, "more": more}


def _published(table: Table, row: Row) -> dict[str, Any]:
    assert row.published is not None
    assert row.accuracy is not None
    figure = row.published.figure
    interval = "" if figure.ci95 is None else f" ± {figure.ci95 * 100:.2f}"
    return {
        "method": row.algorithm,
        "task": f"{table.dataset} {table.way}-way {table.shot}-shot",
        "measured": f"{row.accuracy.mean * 100:.2f} ± {row.accuracy.ci95 * 100:.2f}",
        "published": f"{figure.accuracy * 100:.1f}{interval}",
        "source": figure.source,
        "link": figure.link if figure.link.startswith(("https://", "http://")) else "",
        "differences": row.published.differences,
    }


def _environments(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return each environment that records are from, with how many."""
    found: dict[str, tuple[Record, int]] = {}
    for record in records:
        key = str(sorted((name, str(value)) for name, value in record.environment.items()))
        found[key] = (record, found.get(key, (record, 0))[1] + 1)
    return [
        {
            "title": f"{record.device}: {count} trainings",
            "facts": [
                ("finished", record.finished),
                ("data (sha256)", record.dataset_fingerprint),
                *((name, _shown(value)) for name, value in record.environment.items()),
            ],
        }
        for record, count in found.values()
    ]


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {part}" for name, part in value.items())
    return "none" if value is None else str(value)
