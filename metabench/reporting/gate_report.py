"""Render comparisons as text, Markdown, JUnit XML and JSON."""

from __future__ import annotations

import math
import re
from dataclasses import asdict
from typing import Any
from xml.etree import ElementTree

from tabulate import tabulate

from metabench.analysis.gate import Comparison, Verdict, shown_p
from metabench.reporting.figures import rounded, shown_difference
from metabench.reporting.json_text import to_json
from metabench.reporting.markup import escape_markdown

_TITLES = ["verdict", "cell", "base", "candidate", "difference", "p"]
_ALIGNMENT = ["left", "left", "right", "right", "right", "right"]


def render_text(comparison: Comparison) -> str:
    """Return the comparison as text for a terminal."""
    parts = [_table(comparison, "simple"), ""]
    parts += [f"{verdict.word.upper()}  {verdict.cell}: {verdict.reason}" for verdict in _explained(comparison)]
    parts += [str(change) for change in comparison.changes]
    return "\n".join([*parts, *comparison.notes, conclusion(comparison)]) + "\n"


def render_markdown(comparison: Comparison) -> str:
    """Return the comparison in Markdown, for pull requests."""
    lines = [f"**{conclusion(comparison)}**", ""]
    for verdict in _explained(comparison):
        lines.append(f"- **{verdict.word}** {escape_markdown(verdict.cell)}: {escape_markdown(verdict.reason)}")
    lines += [f"- {escape_markdown(str(line))}" for line in (*comparison.changes, *comparison.notes)]
    return "\n".join([*lines, "", _table(comparison, "github")]) + "\n"


def render_json(comparison: Comparison) -> str:
    """Return the comparison as one JSON object; null for values that are no finite numbers."""
    content = {
        "passed": comparison.passed,
        "conclusion": conclusion(comparison),
        "notes": list(comparison.notes),
        "cells": [_json_verdict(verdict) for verdict in comparison.verdicts],
        "changes": [
            {**asdict(change), "breaks": change.breaks, "undecided": change.is_undecided}
            for change in comparison.changes
        ],
    }
    return to_json(content, indent=1) + "\n"


def _json_verdict(verdict: Verdict) -> dict[str, Any]:
    metric = verdict.metric and verdict.metric.model_dump()
    fields = {**vars(verdict), "difference": verdict.difference and asdict(verdict.difference)}
    return {**fields, "ratios": dict(verdict.ratios), "metric": metric}


def render_junit(comparison: Comparison) -> str:
    """Return the comparison as JUnit XML.

    Each cell and each cost is a test case, which fails where it fails the gate. A last case fails if no cell was
    compared.
    """
    cases: list[tuple[str, str, str, bool]] = []
    cases += [(verdict.cell, verdict.word, verdict.reason, verdict.breaks) for verdict in comparison.verdicts]
    cases += [(change.name, "cost", str(change), change.breaks) for change in comparison.changes]
    cases.append(("comparison", "gate", "; ".join([*comparison.notes, conclusion(comparison)]), comparison.is_empty))
    failures = sum(failed for *_, failed in cases)
    suite = ElementTree.Element(
        "testsuite", {"name": "metabench compare", "tests": str(len(cases)), "failures": str(failures)}
    )
    for name, word, reason, failed in cases:
        case = ElementTree.SubElement(suite, "testcase", {"classname": "metabench", "name": _legal(name)})
        if failed:
            ElementTree.SubElement(case, "failure", {"type": word, "message": _legal(f"{word}: {reason}")})
        else:
            ElementTree.SubElement(case, "system-out").text = _legal(f"{word}: {reason}")
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def conclusion(comparison: Comparison) -> str:
    """Return the outcome in one line."""
    counts: dict[str, int] = {}
    for verdict in comparison.verdicts:
        counts[verdict.word] = counts.get(verdict.word, 0) + 1
    words = ", ".join(f"{count} {word}" for word, count in counts.items())
    costly = sum(change.breaks for change in comparison.changes)
    costs = f", {costly} costs too high" if costly else ""
    empty = "; no cell was compared" if comparison.is_empty else ""
    return f"{'passed' if comparison.passed else 'FAILED'}: {words}{costs}{empty}"


def _explained(comparison: Comparison) -> list[Verdict]:
    """Return the verdicts whose reason the table does not show."""
    return [verdict for verdict in comparison.verdicts if not verdict.is_clear]


def _table(comparison: Comparison, style: str) -> str:
    escape = escape_markdown if style == "github" else str
    names = [change.name for change in comparison.changes]
    lines = []
    for verdict in comparison.verdicts:
        ratios = dict(verdict.ratios)
        lines.append(
            [
                verdict.word,
                escape(verdict.cell),
                _value(verdict, verdict.base),
                _value(verdict, verdict.candidate),
                _difference(verdict),
                "" if verdict.p is None else shown_p(verdict.p).removeprefix("= "),
                *(f"×{ratios[name]:.2f}" if name in ratios else "" for name in names),
            ]
        )
    return tabulate(
        lines,
        headers=[*_TITLES, *names],
        tablefmt=style,
        disable_numparse=True,
        colalign=[*_ALIGNMENT, *("right" for _ in names)],
    )


def _value(verdict: Verdict, value: float | None) -> str:
    """Return a value with the unit of its metric; without an interval, to three decimals if it is no percentage."""
    if value is None or verdict.metric is None or not math.isfinite(value):
        return ""
    return f"{rounded(verdict.metric, value, 0.0)} {verdict.metric.unit}".rstrip()


def _difference(verdict: Verdict) -> str:
    interval = verdict.difference
    if interval is None or verdict.metric is None:
        return ""
    return shown_difference(verdict.metric, interval.mean, interval.ci95)


def _legal(text: str) -> str:
    """Replace characters that are not allowed in XML."""
    return re.sub("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)
