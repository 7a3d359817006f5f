"""Tables of all test classes, and of the pairs of classes that are mixed up most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from metabench.analysis.tables import Row
from metabench.records.runs import Runs
from metabench.records.tallies import Tallies

#: Number of pairs of classes that are listed.
_PAIRS = 15


@dataclass(frozen=True)
class Classes:
    """The classes of a table.

    Attributes:
        methods: names of the methods, a column each.
        rows: of each class its name, its number of episodes, and each method's accuracy in percent, mean over the
            seeds; None where a method has none.
        pairs: of each pair of classes that is mixed up most: class, other class, and of each method how many of
            the queries of the first were taken for the second, over all seeds.
        seeds: largest number of seeds of a method.
    """

    methods: Sequence[str]
    rows: Sequence[Sequence[str | int | float | None]]
    pairs: Sequence[Sequence[str | int]]
    seeds: int


def classes_of(rows: Sequence[Row], runs: Runs) -> Classes | None:
    """Return the classes of some methods of a table; None where no record has totals by class."""
    every = {row.name: [of for record in row.finished if (of := runs.tallies(record))] for row in rows}
    tallies = {name: found for name, found in every.items() if found}
    if not tallies:
        return None
    names = sorted({name for found in tallies.values() for of_seed in found for name in of_seed.names})
    accuracies = {method: _by_class(found) for method, found in tallies.items()}
    episodes: dict[str, int] = {}
    for found in tallies.values():
        for of_seed in found:
            for name, count in zip(of_seed.names, of_seed.episodes.tolist(), strict=True):
                episodes[name] = max(episodes.get(name, 0), count)
    return Classes(
        methods=list(tallies),
        rows=[[name, episodes[name], *(accuracies[method].get(name) for method in tallies)] for name in names],
        pairs=_pairs(tallies),
        seeds=max(map(len, tallies.values())),
    )


def _by_class(tallies: Sequence[Tallies]) -> dict[str, float]:
    """Return the accuracy of each class in percent, mean over the seeds."""
    by_class: dict[str, list[float]] = {}
    for of_seed in tallies:
        for name, accuracy in zip(of_seed.names, of_seed.accuracy.tolist(), strict=True):
            by_class.setdefault(name, []).append(accuracy)
    return {name: round(100 * float(np.mean(values)), 1) for name, values in by_class.items()}


def _pairs(tallies: Mapping[str, Sequence[Tallies]]) -> list[list[str | int]]:
    """Return the pairs of classes with the most wrong predictions of all methods together, the most first."""
    counts: dict[tuple[str, str], dict[str, int]] = {}
    for method, found in tallies.items():
        for of_seed in found:
            for true, predicted, count in of_seed.confusions.tolist():
                pair = counts.setdefault((of_seed.names[true], of_seed.names[predicted]), {})
                pair[method] = pair.get(method, 0) + count
    most = sorted(counts.items(), key=lambda item: (-sum(item[1].values()), item[0]))[:_PAIRS]
    return [[*pair, *(of_method.get(method, 0) for method in tallies)] for pair, of_method in most]
