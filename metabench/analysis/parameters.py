"""Find the parameters in which the methods of a table differ, and the limits of their trainings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from metabench.records.record import Record
from metabench.text import one_line


def varying_parameters(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return each record's parameters that differ between records of its algorithm, and all its limits.

    Args:
        records: one record of each method of a table.

    Returns:
        Values by name: that of the algorithm's parameter, ``backbone.`` and that of the backbone's, or ``train.`` and
        that of a limit.
    """
    parameters = [_parameters(record) for record in records]
    uses = [_use(record) for record in records]
    by_use: dict[str, list[dict[str, Any]]] = {}
    for use, values in zip(uses, parameters, strict=True):
        by_use.setdefault(use, []).append(values)
    varying = {use: _varying(members) for use, members in by_use.items()}
    return [
        {name: value for name, value in values.items() if name in varying[use]} | limits(record)
        for record, use, values in zip(records, uses, parameters, strict=True)
    ]


def limits(record: Record) -> dict[str, int]:
    """Return the limits of what a record's training saw, e.g. ``{"train.classes": 20}``."""
    subset = _part(record.identity, "subset")
    return {one_line(f"train.{name}"): value for name, value in subset.items() if isinstance(value, int)}


def _varying(parameters: Sequence[Mapping[str, Any]]) -> set[str]:
    """Return the names whose values differ."""
    names = {name for values in parameters for name in values}
    return {name for name in names if len({json.dumps(values.get(name), sort_keys=True) for values in parameters}) > 1}


def _use(record: Record) -> str:
    """Return the plugin's name of a record's algorithm."""
    return str(_part(record.identity, "algorithm").get("name", record.algorithm))


def _parameters(record: Record) -> dict[str, Any]:
    """Return the parameters of a record's algorithm and backbone, by name in one line."""
    values = {}
    for kind, prefix in (("algorithm", ""), ("backbone", "backbone.")):
        for name, value in _part(_part(record.identity, kind), "params").items():
            values[one_line(f"{prefix}{name}")] = value
    return values


def _part(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a mapping within settings; empty if it is none, as in a record of other software."""
    part = settings.get(name)
    return part if isinstance(part, Mapping) else {}
