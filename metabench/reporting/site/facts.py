"""The facts of a method by which readers choose rows: what it used, and where it ran."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from metabench.analysis.parameters import limits
from metabench.analysis.tables import Row
from metabench.records.record import Record
from metabench.text import counted

#: The facts of a row, with the titles of their lists.
TITLES = {"method": "Method", "run": "Run", "machine": "Machine", "data": "Data used", "tuned": "Tuned"}
#: The facts that have a column where they vary; else a line above the table says them once.
COLUMNS = ("data", "machine")

#: The values of a row by fact: several where its seeds differ, none where it has no results.
Facts = Mapping[str, Sequence[str]]


def facts_of(row: Row, runs: Sequence[str]) -> Facts:
    """Return the facts of a row.

    Args:
        row: the row.
        runs: names of the runs that it is from.
    """
    return {
        "method": [row.records[0].algorithm],
        "run": runs,
        "machine": sorted({str(record.machine) for record in row.records}),
        "data": sorted({data_used(record) for record in row.finished}),
        "tuned": sorted({tuned(record) for record in row.finished}),
    }


def data_used(record: Record) -> str:
    """Return what the training of a record saw, e.g. ``"omniglot (classes 20), pretrained on ImageNet"``.

    Of results of other code, nothing is known.
    """
    if record.external:
        return "not known"
    parts = [f"pretrained on {record.pretrained_on}"] if record.pretrained_on else []
    if record.train:
        limited = ", ".join(f"{name.removeprefix('train.')} {value}" for name, value in limits(record).items())
        parts.insert(0, (record.trained_on or record.dataset) + (f" ({limited})" if limited else ""))
    return ", ".join(parts) or "none"


def tuned(record: Record) -> str:
    """Return how many trials on validation found the parameters of a record, e.g. ``"20 trials"``."""
    if record.trials is None:
        return "not stated"
    return counted(record.trials, "trial") if record.trials else "nothing to search"


def values_of(facts: Iterable[Facts], fact: str) -> list[str]:
    """Return all values of a fact, sorted."""
    return sorted({value for one in facts for value in one[fact]})
