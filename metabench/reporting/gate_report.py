"""Render comparisons as text, Markdown, JUnit XML and JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from xml.etree import ElementTree

from tabulate import tabulate

from metabench.analysis.gate import Change, Verdict, shown_p
from metabench.reporting.rendering import escape_markdown

_TITLES = ["verdict", "cell", "base %", "candidate %", "difference", "p"]
_ALIGNMENT = ["left", "left", "right", "right", "right", "right"]


def render_text(verdicts: Sequence[Verdict], changes: Sequence[Change]) -> str:
    """Return the comparison as text for a terminal."""
    parts = [_table(verdicts, changes, "simple")]
    parts += [f"{verdict.word.upper()}  {verdict.cell}: {verdict.reason}" for verdict in verdicts if verdict.breaks]
    parts += [str(change) for change in changes]
    return "\n".join([parts[0], "", *parts[1:], conclusion(verdicts, changes)]) + "\n"


def render_markdown(verdicts: Sequence[Verdict], changes: Sequence[Change]) -> str:
    """Return the comparison in Markdown, for pull requests."""
    lines = [f"**{conclusion(verdicts, changes)}**", ""]
    for verdict in verdicts:
        if verdict.breaks:
            lines.append(f"- **{verdict.word}** {escape_markdown(verdict.cell)}: {escape_markdown(verdict.reason)}")
    lines += [f"- {escape_markdown(str(change))}" for change in changes]
    return "\n".join([*lines, "", _table(verdicts, changes, "github")]) + "\n"


def render_json(verdicts: Sequence[Verdict], changes: Sequence[Change]) -> str:
    """Return the comparison as one JSON object."""
    comparison = {
        "passed": not breaks(verdicts, changes),
        "cells": [{**asdict(verdict), "ratios": dict(verdict.ratios)} for verdict in verdicts],
        "changes": [{**asdict(change), "breaks": change.breaks} for change in changes],
    }
    return json.dumps(comparison, indent=1) + "\n"


def render_junit(verdicts: Sequence[Verdict], changes: Sequence[Change]) -> str:
    """Return the comparison as JUnit XML.

    Each cell and each cost is a test case, which fails where it fails the gate.
    """
    cases: list[tuple[str, str, str, bool]] = []
    cases += [(verdict.cell, verdict.word, verdict.reason, verdict.breaks) for verdict in verdicts]
    cases += [(change.name, "cost", str(change), change.breaks) for change in changes]
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


def breaks(verdicts: Sequence[Verdict], changes: Sequence[Change]) -> bool:
    """Return whether any cell or cost fails the gate."""
    return any(verdict.breaks for verdict in verdicts) or any(change.breaks for change in changes)


def conclusion(verdicts: Sequence[Verdict], changes: Sequence[Change]) -> str:
    """Return the outcome in one line."""
    counts: dict[str, int] = {}
    for verdict in verdicts:
        counts[verdict.word] = counts.get(verdict.word, 0) + 1
    words = ", ".join(f"{count} {word}" for word, count in counts.items())
    costly = sum(change.breaks for change in changes)
    costs = f", {costly} costs too high" if costly else ""
    return f"{'FAILED' if breaks(verdicts, changes) else 'passed'}: {words}{costs}"


def _table(verdicts: Sequence[Verdict], changes: Sequence[Change], style: str) -> str:
    escape = escape_markdown if style == "github" else str
    names = [change.name for change in changes]
    lines = []
    for verdict in verdicts:
        ratios = dict(verdict.ratios)
        lines.append(
            [
                verdict.word,
                escape(verdict.cell),
                _percent(verdict.base),
                _percent(verdict.candidate),
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


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value * 100:.2f}"


def _difference(verdict: Verdict) -> str:
    interval = verdict.difference
    return "" if interval is None else f"{interval.mean * 100:+.2f} ± {interval.ci95 * 100:.2f}".replace("-", "−")


def _legal(text: str) -> str:
    """Replace characters that are not allowed in XML."""
    return re.sub("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)
