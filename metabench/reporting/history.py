"""Render histories as text, JSON and one HTML page."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tabulate import tabulate

from metabench.analysis.gate import shown_p
from metabench.analysis.history import Change, Course, History, Point
from metabench.reporting.figures import shown, shown_difference
from metabench.reporting.json_text import to_json
from metabench.text import encodable

_TITLES = ["run", "result", "step", "p of the step", "since the pinned run", "p"]
_BARS = "▁▂▃▄▅▆▇█"


def render_text(history: History, encoding: str = "utf-8") -> str:
    """Return the changes and a table for each cell, for a terminal."""
    parts = ["\n".join(findings(history))]
    for course in history.courses:
        table = tabulate(
            _lines(history, course), headers=_TITLES, disable_numparse=True, colalign=["left", *["right"] * 5]
        )
        lines = [f"{course.cell} · {course.metric.heading}  {_bars(course, encoding)}", table]
        lines += [f"{history.names[run]}: {gap}" for run, gap in course.gaps.items()]
        parts.append("\n".join(line.rstrip() for line in lines))
    return encodable("\n\n".join([*parts, _how(history)]) + "\n", encoding)


def findings(history: History) -> list[str]:
    """Return a line for each step, and for each cell that has changed since the pinned run."""
    lines = []
    for course in history.courses:
        for point in course.steps:
            if point.step:
                names = f"{history.names[point.step.since]} to {history.names[point.run]}"
                lines.append(f"STEP   {course.cell}: {_said(course, point.step)}, from {names}")
        last, at = course.drift, course.drifted_at
        if last and last.since_pinned and at is not None:
            said = _said(course, last.since_pinned)
            lines.append(
                f"{'LOSS ' if _is_loss(course, last) else 'GAIN '}  {course.cell}: {said} since "
                f"{history.names[history.pinned]}, clear from {history.names[at]} on"
            )
    return lines or ["no step, and no change since the pinned run"]


def _is_loss(course: Course, point: Point) -> bool:
    return bool(point.since_pinned and point.since_pinned.difference.mean * course.metric.sign < 0)


def _said(course: Course, change: Change) -> str:
    unit = "points" if course.metric.unit == "%" else course.metric.unit
    interval = change.difference
    said = f"{shown_difference(course.metric, interval.mean, interval.ci95)} {unit}".rstrip()
    return f"{course.metric.title} {said} (p {shown_p(change.p)})"


def _lines(history: History, course: Course) -> list[list[str]]:
    def texts(change: Change | None) -> list[str]:
        if change is None:
            return ["", ""]
        interval = change.difference
        text = shown_difference(course.metric, interval.mean, interval.ci95) + (" *" if change.is_clear else "  ")
        return [text, shown_p(change.p).removeprefix("= ")]

    lines = []
    for point in course.points:
        primary = point.record.primary
        assert primary is not None, "a point has results"
        name = history.names[point.run] + (" (pinned)" if point.run == history.pinned else "")
        lines.append(
            [
                name,
                shown(course.metric, primary.value, primary.ci95),
                *texts(point.step),
                *texts(point.since_pinned),
            ]
        )
    return lines


def _bars(course: Course, encoding: str) -> str:
    """Return the values as bars from the lowest to the highest; empty where the terminal lacks them."""
    values = [point.record.primary.value for point in course.points if point.record.primary]
    low, high = min(values), max(values)
    bars = "".join(_BARS[round((value - low) / (high - low) * 7) if high > low else 3] for value in values)
    try:
        bars.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return ""
    return bars


def _how(history: History) -> str:
    return (
        f"Differences are paired on identical episodes, ± half the 95 % interval; * and p: two-sided t tests, adjusted "
        f"over all {history.comparisons} comparisons (Holm)."
    )


def render_json(history: History) -> str:
    """Return the history as one JSON object."""

    def of_change(change: Change | None) -> dict[str, Any] | None:
        if change is None:
            return None
        return {
            "since": history.names[change.since],
            "difference": asdict(change.difference),
            "p": change.p,
            "clear": change.is_clear,
        }

    def of_point(point: Point) -> dict[str, Any]:
        return {
            "run": history.names[point.run],
            "cell": point.record.cell,
            "finished": point.record.finished,
            "git_commit": point.record.environment.get("git_commit"),
            "result": point.record.primary and point.record.primary.model_dump(),
            "step": of_change(point.step),
            "since_pinned": of_change(point.since_pinned),
        }

    content = {
        "runs": list(history.names),
        "pinned": history.names[history.pinned],
        "findings": findings(history),
        "cells": [
            {
                "cell": course.cell,
                "metric": course.metric.model_dump(),
                "points": [of_point(point) for point in course.points],
                "gaps": {history.names[run]: gap for run, gap in course.gaps.items()},
            }
            for course in history.courses
        ],
    }
    return to_json(content, indent=1) + "\n"


#: The beginning of pages of this module, by which `metabench history` knows its own.
MARK = "<title>metabench history</title>"


def render_page(history: History) -> str:
    """Return one self-contained page: what was found, a plot and a table for each cell."""
    from bokeh.embed import components
    from bokeh.resources import INLINE

    script, plots = components([_plot(history, course) for course in history.courses])
    found = "".join(f"<li>{html.escape(line)}</li>" for line in findings(history))
    parts = []
    for course, plot in zip(history.courses, plots, strict=True):
        table = tabulate(_lines(history, course), headers=_TITLES, tablefmt="html", disable_numparse=True)
        gaps = "".join(f"<p>{html.escape(f'{history.names[run]}: {gap}')}</p>" for run, gap in course.gaps.items())
        name = html.escape(course.cell)
        wide = f'<div class="wide" role="region" tabindex="0" aria-label="The runs of {name}">{table}</div>'
        drawn = f'<div role="img" aria-label="{name}: the results of the runs below">{plot}</div>'
        parts.append(f"<h2>{name}</h2>{drawn}{wide}{gaps}")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{MARK}'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style>'
        f"<script>{INLINE.js_raw[0]}</script></head><body><main><h1>History</h1><ul>{found}</ul>"
        f"{''.join(parts)}<p>{html.escape(_how(history))}</p></main>{script}</body></html>\n"
    )


#: Plots keep a light ground on a dark page, because Bokeh draws their text in dark grey.
_STYLE = (
    ":root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;margin:0}"
    "main{max-width:60rem;margin:auto;padding:1rem}.wide{overflow-x:auto}table{border-collapse:collapse}"
    "td,th{padding:.2rem .7rem;border-bottom:1px solid #8886;white-space:nowrap}h2{font-size:1.1rem;margin-top:2rem}"
)


def _plot(history: History, course: Course) -> Any:
    """Return the plot of a cell: its values with intervals over episodes; steps are filled."""
    from bokeh.models import Range1d
    from bokeh.plotting import figure

    scale = course.metric.scale
    runs = [point.run for point in course.points]
    primaries = [point.record.primary for point in course.points if point.record.primary]
    values = [primary.value * scale for primary in primaries]
    halves = [primary.ci95 * scale for primary in primaries]
    plot = figure(
        height=260,
        sizing_mode="stretch_width",
        tools="",
        y_axis_label=course.metric.heading,
        x_range=Range1d(start=-0.5, end=len(history.names) - 0.5),
    )
    plot.toolbar_location = None
    plot.line(runs, values, color="#0072B2")
    low, high = _minus(values, halves, -1), _minus(values, halves, 1)
    plot.segment(runs, low, runs, high, color="#0072B2")
    plot.scatter(runs, values, size=8, color="#0072B2", fill_color="white")
    steps = [i for i, point in enumerate(course.points) if point in course.steps]
    plot.scatter([runs[i] for i in steps], [values[i] for i in steps], size=12, color="#D55E00", marker="triangle")
    plot.xaxis.ticker = list(range(len(history.names)))
    plot.xaxis.major_label_overrides = dict(enumerate(history.names))
    plot.xaxis.major_label_orientation = 0.6
    return plot


def _minus(values: Sequence[float], halves: Sequence[float], sign: int) -> list[float]:
    return [value + sign * half for value, half in zip(values, halves, strict=True)]
