"""Verifications as text and JSON."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate

from metabench.reporting.json_text import to_json
from metabench.text import counted
from metabench.verification.verdicts import CellVerdict, Verdict, Verification

_WORDS: dict[Verdict | None, str] = {
    "exact": "holds to the digit",
    "rounding": "holds within rounding",
    "differs": "DIFFERS",
    "other data": "OTHER DATA",
    "other weights": "OTHER WEIGHTS",
    "undecided": "UNDECIDED",
    "altered": "ALTERED",
    "unverifiable": "not verifiable",
    None: "files agree, not drawn",
}
#: What no verdict is about.
LIMITS = (
    "Not verified: times, memory, energy and other costs, how often the test was looked at, and how the weights were "
    "made: they are taken as they are."
)


def verification_text(found: Verification) -> str:
    """Return a verification as text for a terminal."""
    rows = [(_WORDS[cell.verdict], cell.record.cell, cell.title) for cell in found.cells]
    parts = [tabulate(rows, headers=["verdict", "cell", ""], tablefmt="simple", disable_numparse=True)] if rows else []
    parts.append("")
    for cell in found.cells:
        parts += [f"{_WORDS[cell.verdict]}  {cell.record.cell}: {reason}" for reason in cell.reasons]
    for note in dict.fromkeys(note for cell in found.cells for note in cell.notes):
        parts.append(f"note  {_of(found.cells, note)}: {note}")
    parts += [f"ALTERED  {line}" for line in found.tables]
    if found.checked_tables and not found.tables:
        parts.append(f"{' and '.join(found.checked_tables)} are those of the records")
    if found.without_results:
        parts.append(f"{counted(found.without_results, 'cell')} failed or skipped, without results to verify")
    parts += [LIMITS, conclusion(found)]
    return "\n".join(parts) + "\n"


def verification_json(found: Verification) -> str:
    """Return a verification as one JSON object."""
    content = {
        "passed": found.passed,
        "conclusion": conclusion(found),
        "run": found.source,
        "seed": found.seed,
        "cells": [
            {
                "cell": cell.record.cell,
                "title": cell.title,
                "verdict": cell.verdict or "agrees",
                "drawn": cell.drawn,
                "reasons": list(cell.reasons),
                "notes": list(cell.notes),
            }
            for cell in found.cells
        ],
        "tables": {"compared": list(found.checked_tables), "problems": list(found.tables)},
        "without_results": found.without_results,
    }
    return to_json(content, indent=1) + "\n"


def conclusion(found: Verification) -> str:
    """Return one sentence: what holds, or why the verification fails."""
    drawn, able = found.drawn, [cell for cell in found.cells if cell.drawn or cell.verdict is None]
    tested = f"{len(drawn)} of {counted(len(able), 'verifiable cell')} tested again (--seed {found.seed})"
    if found.contradictions:
        return f"FAILED: {found.source} contradicts itself or what was computed here; {tested}"
    if not drawn:
        return f"FAILED: no cell of {found.source} could be tested again"
    if not found.passed:
        return f"FAILED: nothing contradicts, but not all figures of {found.source} could be shown to hold; {tested}"
    exact = all(cell.verdict == "exact" for cell in drawn)
    return f"HOLDS {'to the digit' if exact else 'within rounding'}: {found.source}; {tested}"


def _of(cells: Sequence[CellVerdict], note: str) -> str:
    """Return the cells of a note: their number, or the id of the only one."""
    having = [cell.record.cell for cell in cells if note in cell.notes]
    return having[0] if len(having) == 1 else counted(len(having), "cell")
