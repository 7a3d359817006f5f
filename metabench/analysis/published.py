"""Match published results with records, and list differences of protocol."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from metabench.analysis.parameters import limits
from metabench.records.record import Record
from metabench.specs import PublishedResult


@dataclass(frozen=True)
class Comparison:
    """A published result for a record.

    Attributes:
        result: the published result.
        differences: one sentence for each difference between its protocol and the record's.
    """

    result: PublishedResult
    differences: tuple[str, ...]

    @property
    def same_protocol(self) -> bool:
        """Return whether no difference of protocol is known."""
        return not self.differences


def compare_published(record: Record, results: Iterable[PublishedResult]) -> Comparison | None:
    """Return the published result with the nearest protocol; none for a regression, since they are accuracies.

    A result matches where algorithm, dataset, way, shot and variant are the record's.

    Args:
        record: the record.
        results: published results of any algorithm.

    Returns:
        The match with the fewest differences of protocol; None where no result matches.
    """
    limited = [f"{name}: all there, {value} here" for name, value in limits(record).items()]
    matches = [
        Comparison(result, (*_differences(_settings(record), result.protocol), *limited, *result.notes))
        for result in results
        if record.task == "classification" and _matches(record, result)
    ]
    return min(matches, key=lambda comparison: len(comparison.differences), default=None)


def _settings(record: Record) -> dict[str, Any]:
    """Return the identity of a record with its number of test episodes, which grows."""
    test = {**record.identity.get("test", {}), **({"episodes": record.primary.episodes} if record.primary else {})}
    return {**record.identity, "test": test}


def _matches(record: Record, result: PublishedResult) -> bool:
    identity = record.identity
    return (
        (result.way, result.shot) == (record.way, record.shot)
        and result.algorithm == _at(identity, "algorithm.name")
        and result.dataset == _at(identity, "dataset.name")
        and not _differences(identity, result.variant)
    )


def _differences(identity: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    differences = []
    for path, published in settings.items():
        measured = _at(identity, path)
        if measured != published:
            differences.append(f"{path}: {published} there, {measured} here")
    return differences


def _at(identity: Mapping[str, Any], path: str) -> Any:
    """Return the value at a dotted path, or None."""
    value: Any = identity
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
