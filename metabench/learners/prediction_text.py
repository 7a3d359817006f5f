"""Predictions as a table, CSV and JSON."""

from __future__ import annotations

import csv
import io
from typing import Any

from tabulate import tabulate

from metabench.learners.prediction import Predictions
from metabench.records.record import Record
from metabench.reporting.json_text import to_json
from metabench.text import visible

FORMATS = ("table", "csv", "json")


def predictions_text(found: Predictions, record: Record, style: str) -> str:
    """Return predictions in one of the `FORMATS`.

    Args:
        found: the predictions.
        record: the record of the cell that predicts.
        style: ``"table"``, ``"csv"`` or ``"json"``.
    """
    if style == "csv":
        return _csv(found)
    return _json(found, record) if style == "json" else _table(found, record)


def notes(found: Predictions, record: Record) -> list[str]:
    """Return what a reader of predictions has to know, in sentences."""
    shots = ", ".join(f"{visible(name)} {shot}" for name, shot in zip(found.classes, found.shots, strict=True))
    lines = [f"support images: {shots}"]
    if found.has_truth:
        right, count = sum(found.right), len(found.right)
        lines.append(f"accuracy: {right} of {count} are right, {100 * right / count:.1f} %")
    elif any(query.folder for query in found.queries):
        lines.append("no folder of the queries has the name of a class: no accuracy")
    if record.temperature is not None:
        lines.append(f"probabilities are calibrated by the temperature of the run, {record.temperature.value:.4g}")
    lines.append(_about_known(found, record))
    return [*lines, *found.remarks]


def _about_known(found: Predictions, record: Record) -> str:
    """Return how to read `known`."""
    line = "known: the largest probability before calibration, low where a query is of none of these classes"
    if found.auroc is not None:
        strangers = len(found.queries) - len(found.right)
        line += f"; it tells the {strangers} of other folders with an AUROC of {found.auroc:.3f} (.5 by chance)"
    measured = [(name, estimate) for name, estimate in record.metrics.items() if name.startswith("auroc_") and estimate]
    for name, estimate in measured:
        title = record.declarations[name].title if name in record.declarations else name
        line += f"; {title} in the run: {estimate.value:.3f} ± {estimate.ci95:.3f}"
    return line if measured else f"{line}; the run has not measured how well (eval.strangers)"


def _table(found: Predictions, record: Record) -> str:
    rows = []
    for query, label, row, known in zip(found.queries, found.labels, found.probabilities, found.known, strict=True):
        true = query.folder if query.folder in found.classes else "other" if query.folder else ""
        right = ("yes" if label == query.folder else "no") if query.folder in found.classes else ""
        entry = {"query": visible(query.name), "prediction": visible(label), "probability": f"{row.max():.3f}"}
        entry |= {"known": f"{known:.3f}"}
        rows.append({**entry, "class": visible(true), "right": right} if found.has_truth else entry)
    aligned = {"probability": "right", "known": "right"}
    text = tabulate(
        rows, headers="keys", disable_numparse=True, colalign=[aligned.get(name, "left") for name in rows[0]]
    )
    return f"{text}\n\n" + "".join(f"{line}\n" for line in notes(found, record))


def _csv(found: Predictions) -> str:
    file = io.StringIO()
    lines = csv.writer(file, lineterminator="\n")
    lines.writerow(["query", "class", "prediction", "known", *(f"p.{name}" for name in found.classes)])
    for query, label, row, known in zip(found.queries, found.labels, found.probabilities, found.known, strict=True):
        truth = query.folder if found.has_truth else ""
        lines.writerow([query.name, truth, label, repr(float(known)), *(repr(float(value)) for value in row)])
    return file.getvalue()


def _json(found: Predictions, record: Record) -> str:
    queries: list[dict[str, Any]] = [
        {
            "query": query.name,
            "class": query.folder if found.has_truth else None,
            "prediction": label,
            "known": float(known),
            "probabilities": dict(zip(found.classes, map(float, row), strict=True)),
        }
        for query, label, row, known in zip(found.queries, found.labels, found.probabilities, found.known, strict=True)
    ]
    content = {
        "cell": record.cell,
        "algorithm": record.algorithm,
        "support": dict(zip(found.classes, found.shots, strict=True)),
        "temperature": record.temperature.value if record.temperature else None,
        "accuracy": sum(found.right) / len(found.right) if found.has_truth else None,
        "auroc": found.auroc,
        "remarks": list(found.remarks),
        "queries": queries,
    }
    return to_json(content, indent=2) + "\n"
