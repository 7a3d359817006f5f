"""Names of the rows of a table, and what tells namesakes apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from metabench.analysis.parameters import varying_parameters
from metabench.analysis.tables import Row
from metabench.text import value_text


def named(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with unique names; namesakes get what tells them apart."""
    namesakes: dict[str, list[Row]] = {}
    for row in rows:
        namesakes.setdefault(row.name, []).append(row)
    suffixes = {name: _distinction(group) for name, group in namesakes.items()}
    return [replace(row, name=row.name + suffixes[row.name](row)) for row in rows]


def _distinction(namesakes: Sequence[Row]) -> Callable[[Row], str]:
    """Return the words after a row's name that tell it from its namesakes."""
    if len({_domain(row) for row in namesakes}) == len(namesakes) > 1:
        return lambda row: f" (trained on {_domain(row)})"
    for key in ("profile", "suite", "device", "cell") if len(namesakes) > 1 else ():
        if len({getattr(row.records[0], key) for row in namesakes}) == len(namesakes):
            return lambda row, key=key: f" ({getattr(row.records[0], key) or 'no ' + key})"  # type: ignore[misc]
    return lambda row: ""


def method_of(row: Row) -> str:
    """Return the name of a method in several tables: its row's, without the id of a cell, which each table has anew."""
    record = row.records[0]
    if row.name != f"{record.algorithm} ({record.cell})" or not row.params:
        return row.name
    return f"{record.algorithm} ({', '.join(f'{name} {value_text(value)}' for name, value in row.params.items())})"


def with_domains(rows: Sequence[Row]) -> Sequence[Row]:
    """Return the rows with the datasets of their trainings, if one of them is another than that of the test."""
    if not any(row.records[0].trained_on for row in rows):
        return rows
    return [replace(row, trained_on=_domain(row)) for row in rows]


def _domain(row: Row) -> str:
    """Return the dataset of the training."""
    return row.records[0].trained_on or row.records[0].dataset


def with_params(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with the parameters in which they differ from others of their algorithm."""
    varying = varying_parameters([row.records[0] for row in rows])
    return [replace(row, params=params) for row, params in zip(rows, varying, strict=True)]
