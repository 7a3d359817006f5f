"""Render ratios within rounds as text and JSON."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from contest import LineResult
from lines import BFLOAT16, MATMUL, METABENCH

#: Largest accepted difference between first results with the same weights and episodes.
TOLERANCE = 1e-3
_HEADER = ("line", "against", "metabench", "metabench bf16", "first results")
_MATMUL_ROW = "matmul 2048³"


def render_text(results: Sequence[LineResult], facts: Mapping[str, Any]) -> str:
    """Return the table with notes on accuracies and failures."""
    rows = [_HEADER, *(row for result in results for row in _rows(result))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    rows.insert(1, tuple("-" * width for width in widths))
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    legend = [
        "How many times as fast as the peer metabench is: median of the ratios within each round, with the smallest "
        "and the largest.",
        f"{_MATMUL_ROW}: metabench's floating-point operations per second as a share of this float32 product's; "
        "convolutions come from another library than the product, and may be faster.",
        f"first results: losses, probabilities or predicted labels with the same weights and episodes agree to "
        f"{TOLERANCE:g}, before anything is timed.",
        ", ".join(f"{name} {value}" for name, value in facts["conditions"].items()),
    ]
    return "\n".join([*table, "", *legend, *_notes(results, facts["missing"])])


def as_json(results: Sequence[LineResult], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return all measurements as plain data."""
    return {
        **facts,
        "lines": [
            {
                "name": result.line.name,
                "title": result.line.title,
                "against": [
                    {
                        "peer": peer,
                        **{label: _spread(result.ratios(label, peer)) for label in (METABENCH, BFLOAT16)},
                    }
                    for peer in result.peers
                ],
                "matmul_share": _spread(result.matmul_shares()),
                "check_differences": _differences(result),
                "accuracies": {label: _interval(values) for label, values in _accuracies(result).items()},
                "rates_per_round": result.rates,
                "problems": result.problems,
            }
            for result in results
        ],
    }


def _rows(result: LineResult) -> list[tuple[str, ...]]:
    rows = [
        (
            peer,
            _ratio_text(result.ratios(METABENCH, peer)),
            _ratio_text(result.ratios(BFLOAT16, peer)),
            _agreement(result, peer),
        )
        for peer in result.peers
    ]
    if shares := result.matmul_shares():
        low, middle, high = (f"{100 * share:.0f}" for share in (min(shares), statistics.median(shares), max(shares)))
        rows.append((_MATMUL_ROW, f"{middle} % ({low}–{high})", "", ""))
    for label in (METABENCH, BFLOAT16):
        if text := _agreement(result, label):
            rows.append((f"({label} itself)", "", "", text))
    title = result.line.title
    return [(title if number == 0 else "", *row) for number, row in enumerate(rows)] or [(title, "–", "", "", "")]


def _ratio_text(ratios: Sequence[float]) -> str:
    if not ratios:
        return "–"
    return f"{_three(statistics.median(ratios))}× ({_three(min(ratios))}–{_three(max(ratios))})"


def _three(value: float) -> str:
    """Format a number with about three digits."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _agreement(result: LineResult, label: str) -> str:
    if label == result.line.reference:
        return "the reference"
    difference = result.check_difference(label)
    if difference is None:
        return ""
    if difference <= TOLERANCE:
        return "agrees"
    return f"differs in {100 * difference:.1f} %" if result.line.compares_labels else f"differs by {difference:.2g}"


def _differences(result: LineResult) -> dict[str, float]:
    differences = {label: result.check_difference(label) for label in result.introductions}
    return {label: difference for label, difference in differences.items() if difference is not None}


def _accuracies(result: LineResult) -> dict[str, list[float]]:
    by_label = {label: introduction.get("accuracies") for label, introduction in result.introductions.items()}
    return {label: accuracies for label, accuracies in by_label.items() if accuracies and label != MATMUL}


def _interval(accuracies: Sequence[float]) -> dict[str, float]:
    """Return the mean accuracy with its 95 % interval."""
    half = 1.96 * statistics.stdev(accuracies) / len(accuracies) ** 0.5
    return {"mean": statistics.fmean(accuracies), "ci95": half, "episodes": len(accuracies)}


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)} if values else None


def _notes(results: Sequence[LineResult], missing: Mapping[str, str]) -> list[str]:
    notes = []
    for result in results:
        intervals = {label: _interval(values) for label, values in _accuracies(result).items()}
        if intervals:
            accuracies = ", ".join(
                f"{label} {100 * a['mean']:.1f} ± {100 * a['ci95']:.1f} %" for label, a in intervals.items()
            )
            notes.append(f"{result.line.name}, accuracy with the same random weights: {accuracies}")
        notes += [f"{result.line.name}: {label} did not take part: {why}" for label, why in result.problems.items()]
    return notes + [f"{package} is not installed: {why}" for package, why in missing.items()]
