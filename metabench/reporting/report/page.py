"""Build the report; `page.html` lays out and escapes values."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from bokeh.resources import INLINE
from jinja2 import Environment

from metabench import __version__
from metabench.analysis.paired import ALPHA
from metabench.analysis.standings import Row, Table, common_episodes, difference_of, make_tables
from metabench.analysis.stats import Floats
from metabench.records.record import Record
from metabench.records.runs import Runs
from metabench.reporting import leaderboard
from metabench.reporting.report.plots import METHODS, Plot, draw
from metabench.specs import PublishedResult
from metabench.text import counted, shape_text, visible_lines

#: Number of tables with plots, paired differences and pictures; the other tables are listed among all methods only.
SECTIONS = 4


def render_page(runs: Runs, published: Sequence[PublishedResult] = ()) -> str:
    """Return the report as one self-contained HTML page.

    Args:
        runs: the records to show.
        published: published results to show beside them.
    """
    tables = make_tables(runs.records, runs, published)
    detailed = [table for table in tables if any(row.primary for row in table.rows)][:SECTIONS]
    script, plots = draw(detailed)
    folder = files("metabench.reporting.report")
    assets = {
        name: (folder / name).read_text(encoding="utf-8") for name in ("page.html", "page.css", "page.js", "plots.js")
    }
    columns = leaderboard.shown_columns(tables)
    records = runs.records
    more = f" Plots and details of the first {SECTIONS} of {len(tables)} tables." if len(tables) > SECTIONS else ""
    size = f"{counted(len(records), 'cell')} in {counted(len(tables), 'table')}"
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(assets["page.html"]).render(
        title=", ".join(dict.fromkeys(record.suite for record in records)),
        summary=f"{size}, by metabench {__version__}.{more}",
        css=assets["page.css"],
        js=assets["page.js"],
        plots_js=assets["plots.js"],
        plots_library="\n".join(INLINE.js_raw[:1]) if script else "",
        plots_script=script,
        columns=[_Heading("task", True), *(_Heading(column.title, column.left) for column in columns)],
        rows=[_cells(table, row, columns) for table in tables for row in table.rows],
        notes=[*leaderboard.legend(columns), *leaderboard.devices(tables)],
        remarks=[(table.title, _remarks(table)) for table in tables if _remarks(table)],
        sources=[_published(table, row) for table in tables for row in table.rows if row.published and row.primary],
        sections=[_section(table, drawn, runs) for table, drawn in zip(detailed, plots, strict=True)],
        environments=_environments(records),
        suites=[{"name": name, "text": visible_lines(text)} for name, text in runs.suites().items()],
    )


@dataclass(frozen=True)
class _Heading:
    title: str
    left: bool


@dataclass(frozen=True)
class _Cell:
    """One entry of the table of all methods.

    Attributes:
        text: the text shown.
        left: whether the text is aligned left.
        value: sort key; None sorts by the text.
    """

    text: str
    left: bool = False
    value: float | str | None = None


def _remarks(table: Table) -> list[str]:
    """Return the accuracy of guessing, and the remarks of the leaderboard."""
    chance = [] if table.chance is None else [f"chance: {100 * table.chance:.2f} %"]
    return [*chance, *leaderboard.remarks(table)]


def _cells(table: Table, row: Row, columns: Sequence[leaderboard.Column]) -> list[_Cell]:
    cells = [_Cell(table.task, True)]
    for column in columns:
        value = column.value(row) if column.value else None
        text = column.text(row)
        cells.append(_Cell(text, column.left, "" if column.value and value is None else value))
    return cells


def _section(table: Table, plots: Sequence[Plot], runs: Runs) -> dict[str, Any]:
    methods = [_method(row, runs) for row in table.rows if row.primary][:METHODS]
    regression = table.rows[0].records[0].task == "regression"
    return {
        "title": table.title,
        "plots": plots,
        "pairs": _pairs(table),
        "methods": [method for method in methods if method["worst"] or method["picture"]],
        "details": "The fitted curves of each method"
        if regression
        else "Worst classes, and the worst episode of each method",
    }


def _method(row: Row, runs: Runs) -> dict[str, Any]:
    """Return the first seed's worst classes and worst episode."""
    record = row.finished[0]
    image = runs.picture(record)
    return {
        "name": row.name + (f", seed {record.seed}" if len(row.finished) > 1 else ""),
        "worst": [
            {"name": worst.name, "accuracy": f"{worst.accuracy * 100:.1f}", "episodes": worst.episodes}
            for worst in record.worst_classes
        ],
        "picture": base64.b64encode(image).decode() if image else "",
        **(_caption(row, runs.values(record)) if image else {}),
    }


def _caption(row: Row, values: Floats) -> dict[str, str]:
    """Return the caption of the first seed's picture, and a text in its place."""
    metric = row.metric
    worst = float((values if metric.sign > 0 else -values).min()) * metric.sign * metric.scale
    if row.finished[0].task == "regression":
        return {
            "alt": f"Three episodes of {row.name}: support points, the true curve and the fitted one",
            "caption": f"The first two episodes, and the worst one ({metric.title} {worst:.3g}): support points, the "
            "true curve in grey, the fitted one in blue.",
        }
    return {
        "alt": f"The worst episode of {row.name}, one row per class: support images, then misclassified queries",
        "caption": f"The worst episode ({worst:.1f} %). Each row is a class: its number, its support images, and, "
        "framed in red, its misclassified queries with the number of the predicted class below.",
    }


def _pairs(table: Table) -> dict[str, Any] | None:
    """Return the matrix of paired differences of the best methods.

    A difference is marked where its p-value, adjusted for all pairs as in the table, is significant: no tie of the
    table is marked as a difference here. Returns None with fewer than two comparable methods.
    """
    compared = [row for row in table.rows if row.rank is not None and row.values is not None]
    rows = compared[:METHODS]
    common = common_episodes(compared)
    if len(rows) < 2:
        return None
    lines = []
    for row in rows:
        cells = [_pair(row, other, common) if other is not row else {"text": "", "verdict": ""} for other in rows]
        lines.append({"name": row.name, "cells": cells})
    more = f"The best {len(rows)} of {len(compared)} methods." if len(compared) > len(rows) else ""
    points = ", in points" if rows[0].metric.unit == "%" else ""
    title = rows[0].metric.title
    measured = f"{title[0].upper()}{title[1:]} of the row minus the column{points}"
    return {"measured": measured, "names": [row.name for row in rows], "lines": lines, "more": more}


def _pair(row: Row, other: Row, episodes: int) -> dict[str, str]:
    interval = difference_of(row, other, episodes)
    clear = row.p_holm[other.name] <= ALPHA
    text = leaderboard.shown_difference(row.metric, interval.mean, interval.ci95) + (" *" if clear else "")
    return {"text": text, "verdict": ("better" if interval.mean * row.metric.sign > 0 else "worse") if clear else ""}


def _published(table: Table, row: Row) -> dict[str, Any]:
    assert row.published is not None
    assert row.primary is not None
    result = row.published.result
    return {
        "method": row.name,
        "task": f"{table.dataset} {shape_text(table.way, table.shot)}",
        "measured": leaderboard.shown(row.metric, row.primary.mean, row.primary.ci95),
        "published": leaderboard.published_accuracy(result),
        "source": result.source,
        "link": result.link if result.link.startswith(("https://", "http://")) else "",
        "differences": row.published.differences,
    }


def _environments(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return facts and number of cells of each environment."""
    by_environment: dict[str, list[Record]] = {}
    for record in records:
        key = str([record.device, sorted((name, str(value)) for name, value in record.environment.items())])
        by_environment.setdefault(key, []).append(record)
    environments = []
    for members in by_environment.values():
        data = sorted({(record.dataset, record.dataset_fingerprint) for record in members})
        facts = [("finished", max(record.finished for record in members))]
        facts += [(f"sha256 of {dataset}", fingerprint) for dataset, fingerprint in data]
        facts += [(name, _shown(value)) for name, value in members[0].environment.items()]
        environments.append({"title": f"{members[0].device}: {counted(len(members), 'cell')}", "facts": facts})
    return environments


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {part}" for name, part in value.items())
    return "none" if value is None else str(value)
