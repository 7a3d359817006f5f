"""The section of a table: plots, paired differences, classes and pictures; and published results."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metabench.analysis.stats import Floats
from metabench.analysis.tables import Row, Table
from metabench.records.runs import Runs
from metabench.reporting.figures import published_accuracy, shown
from metabench.reporting.report.classes import Classes, classes_of
from metabench.reporting.report.drawing import METHODS, Drawn, Styles
from metabench.reporting.report.pairs import Pairs, pairs_of
from metabench.reporting.report.styles import Style


@dataclass(frozen=True)
class Section:
    """What the report shows of a table.

    Attributes:
        title: title of the table.
        plots: its plots.
        methods: styles of the methods in the plots, by name.
        pairs: paired differences; None with fewer than two methods.
        classes: all classes; None where the records do not count them.
        worst: of each method the worst classes, where the records know no others.
        pictures: of each method name, PNG in base64, text in its place and caption.
        details: summary of the pictures.
    """

    title: str
    plots: Sequence[Drawn]
    methods: Mapping[str, Style]
    pairs: Pairs | None
    classes: Classes | None
    worst: Sequence[Mapping[str, Any]]
    pictures: Sequence[Mapping[str, str]]
    details: str


def section_of(table: Table, plots: Sequence[Drawn], runs: Runs, styles: Styles) -> Section:
    """Return the section of a table."""
    rows = [row for row in table.rows if row.primary][:METHODS]
    classes = classes_of(rows, runs)
    regression = table.rows[0].records[0].task == "regression"
    return Section(
        title=table.title,
        plots=plots,
        methods={row.name: styles[row.name] for row in rows},
        pairs=pairs_of(table),
        classes=classes,
        worst=[] if classes else [_worst(row) for row in rows if row.finished[0].worst_classes],
        pictures=[picture for row in rows if (picture := _picture(row, runs))],
        details=_details(rows, regression),
    )


def _first_seed(row: Row) -> str:
    return row.name + (f", seed {row.finished[0].seed}" if len(row.finished) > 1 else "")


def _worst(row: Row) -> dict[str, Any]:
    """Return the worst classes of the first seed."""
    classes = [
        {"name": worst.name, "accuracy": f"{worst.accuracy * 100:.1f}", "episodes": worst.episodes}
        for worst in row.finished[0].worst_classes
    ]
    return {"name": _first_seed(row), "classes": classes}


def _details(rows: Sequence[Row], regression: bool) -> str:
    """Return the summary of the pictures."""
    if any(row.finished[0].pictured for row in rows):
        return "A picture of each method"
    return "The fitted curves of each method" if regression else "The worst episode of each method"


def _picture(row: Row, runs: Runs) -> dict[str, str] | None:
    """Return the picture of the first seed; None if there is none."""
    record = row.finished[0]
    image = runs.picture(record)
    if not image:
        return None
    return {
        "name": _first_seed(row),
        "png": base64.b64encode(image).decode(),
        **_caption(row, runs.values(record)),
    }


def _caption(row: Row, values: Floats) -> dict[str, str]:
    """Return the caption of the first seed's picture, and a text in its place."""
    if row.finished[0].pictured:
        return {"alt": f"A picture of {row.name}", "caption": row.finished[0].pictured}
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
        "caption": f"The worst episode ({worst:.1f} %). Each row is a class, with its support images and, framed in "
        "red, its misclassified queries with the number of the predicted class below.",
    }


def published_results(tables: Sequence[Table]) -> list[dict[str, Any]]:
    """Return the published results beside the measured ones."""
    return [_published(table, row) for table in tables for row in table.rows if row.published and row.primary]


def _published(table: Table, row: Row) -> dict[str, Any]:
    assert row.published is not None
    assert row.primary is not None
    result = row.published.result
    return {
        "method": row.name,
        "task": f"{table.dataset} {table.shape}",
        "measured": shown(row.metric, row.primary.mean, row.primary.ci95),
        "published": published_accuracy(result),
        "source": result.source,
        "link": result.link if result.link.startswith(("https://", "http://")) else "",
        "differences": row.published.differences,
    }
