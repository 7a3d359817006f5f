"""Which published result belongs beside a record, and how its protocol differed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from metabench.records.record import Record
from metabench.specs import PublishedResult


@dataclass(frozen=True)
class Comparison:
    """A published result beside a measured one.

    Attributes:
        result: what was published.
        differences: how its protocol differed from the record's; empty where it was the same.
    """

    result: PublishedResult
    differences: tuple[str, ...]

    @property
    def same_protocol(self) -> bool:
        """Return whether nothing is known to differ."""
        return not self.differences


def compare_published(record: Record, results: Iterable[PublishedResult]) -> Comparison | None:
    """Return the published result for a record's algorithm, dataset, way and shot; None where there is none.

    Of several, the one whose protocol is nearest.
    """
    found = [
        Comparison(result, (*_differences(record.identity, result.protocol), *result.notes))
        for result in results
        if _is_about(record, result)
    ]
    return min(found, key=lambda comparison: len(comparison.differences), default=None)


def _is_about(record: Record, result: PublishedResult) -> bool:
    identity = record.identity
    return (
        (result.way, result.shot) == (record.way, record.shot)
        and result.algorithm == _at(identity, "algorithm.name")
        and result.dataset == _at(identity, "dataset.name")
        and not _differences(identity, result.variant)
    )


def _differences(identity: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    found = []
    for path, published in settings.items():
        here = _at(identity, path)
        if here != published:
            found.append(f"{path}: {published} there, {here} here")
    return found


def _at(identity: Mapping[str, Any], path: str) -> Any:
    """Return the value at a dotted path; None where there is none."""
    value: Any = identity
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
