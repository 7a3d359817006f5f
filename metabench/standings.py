"""Records become tables: one row a method, its training seeds together, ranked and compared on identical episodes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

import numpy as np

from metabench.paired import Contest, PairedDifference, compare
from metabench.published import Comparison, compare_published
from metabench.record import EpisodeResults, Record
from metabench.specs import PublishedFigure
from metabench.stats import DataIntervals, Floats, MeanInterval, mean_interval, seed_ci95

#: Reads the per-episode results of a record.
ReadEpisodes = Callable[[Record], EpisodeResults]


@dataclass(frozen=True)
class Row:
    """One method in one table.

    Attributes:
        records: one a training seed; failed ones too.
        accuracy: over episodes, of the mean over the seeds; None where all failed.
        data_ci95: half the interval about the data (`metabench.stats.DataIntervals`).
        seed_ci95: half the interval between training seeds; None for a single one.
        inductive: mean accuracy where each query is classified without sight of the others.
        rank: in its table; those tied with the best share its rank. None where all failed.
        tie: whether these episodes do not tell it from the best.
        versus_best: less the best, on identical episodes; None for the best, and where the episodes differ.
        published: the published figure for it, and how its protocol differed.
        episodes: the per-episode accuracies, mean over the seeds, with the groups of the classes.
    """

    records: Sequence[Record]
    accuracy: MeanInterval | None = None
    data_ci95: float | None = None
    seed_ci95: float | None = None
    inductive: float | None = None
    rank: int | None = None
    tie: bool = False
    versus_best: PairedDifference | None = None
    published: Comparison | None = None
    episodes: EpisodeResults | None = field(default=None, repr=False)

    @property
    def algorithm(self) -> str:
        """Return the method's name in its suite."""
        return self.records[0].algorithm

    @property
    def finished(self) -> list[Record]:
        """Return the records that did not fail."""
        return [record for record in self.records if record.status == "ok"]


@dataclass(frozen=True)
class Table:
    """All methods on one dataset with one backbone, way and shot, the most accurate first, failed ones last."""

    dataset: str
    backbone: str
    way: int
    shot: int
    rows: Sequence[Row]

    @property
    def title(self) -> str:
        """Return a line for people."""
        counts = sorted({row.accuracy.episodes for row in self.rows if row.accuracy})
        episodes = f" · {'/'.join(map(str, counts))} test episodes" if counts else ""
        return f"{self.dataset} · {self.way}-way {self.shot}-shot · {self.backbone}{episodes}"


def make_tables(records: Iterable[Record], read: ReadEpisodes, figures: Sequence[PublishedFigure] = ()) -> list[Table]:
    """Return the tables of some records, by dataset, backbone, way and shot.

    Args:
        records: of one run or of several.
        read: finds the per-episode results of a record.
        figures: published accuracies.
    """
    ordered = sorted(records, key=lambda record: (*_table_of(record), _method_of(record), record.seed))
    tables = []
    for (dataset, backbone, way, shot), members in groupby(ordered, key=_table_of):
        rows = [_row(list(group), read, figures) for _, group in groupby(members, key=_method_of)]
        tables.append(Table(dataset, backbone, way, shot, _sorted(rows)))
    contests = compare([_contest(table.rows) for table in tables])
    return [
        replace(table, rows=_ranked(table.rows, differences))
        for table, differences in zip(tables, contests, strict=True)
    ]


def _table_of(record: Record) -> tuple[str, str, int, int]:
    return record.dataset, record.backbone, record.way, record.shot


def _method_of(record: Record) -> tuple[str, str]:
    """Return what the records of one method's training seeds have in common, and no others."""
    identity = {key: value for key, value in record.identity.items() if key != "seed"}
    return record.algorithm, json.dumps([identity, record.dataset_fingerprint], sort_keys=True)


def _row(records: Sequence[Record], read: ReadEpisodes, figures: Sequence[PublishedFigure]) -> Row:
    published = compare_published(records[0], figures)
    finished = [record for record in records if record.status == "ok"]
    if not finished:
        return Row(records, published=published)
    results = [read(record) for record in finished]
    accuracies = np.mean([result.accuracies for result in results], axis=0)
    inductive = [record.inductive_accuracy.mean for record in finished if record.inductive_accuracy]
    return Row(
        records,
        accuracy=mean_interval(accuracies),
        data_ci95=_data_ci95(finished, accuracies, results[0]),
        seed_ci95=seed_ci95([record.accuracy.mean for record in finished if record.accuracy]),
        inductive=float(np.mean(inductive)) if inductive else None,
        published=published,
        episodes=EpisodeResults(accuracies, results[0].groups),
    )


def _data_ci95(records: Sequence[Record], accuracies: Floats, results: EpisodeResults) -> float | None:
    """Return the interval about the data, which a single training has in its record."""
    if len(records) == 1 and records[0].accuracy and records[0].accuracy.data_ci95 is not None:
        return records[0].accuracy.data_ci95
    return DataIntervals(results.groups).ci95(accuracies)


def _sorted(rows: Sequence[Row]) -> list[Row]:
    """Return the rows, the most accurate first and the failed ones last."""

    def key(row: Row) -> tuple[float, str]:
        return (-row.accuracy.mean if row.accuracy else 1.0, row.algorithm)

    return sorted(rows, key=key)


def _comparable(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that were tested on the episodes of the best, without it."""
    return [row for row in rows[1:] if row.episodes and episodes_of(row) == episodes_of(rows[0])]


def _contest(rows: Sequence[Row]) -> Contest:
    """Return who is to be compared with the best."""
    best = rows[0].episodes
    if best is None:
        return Contest(np.zeros(0), [])
    others = [row.episodes.accuracies for row in _comparable(rows) if row.episodes]
    return Contest(best.accuracies, others, best.groups)


def _ranked(rows: Sequence[Row], differences: Sequence[PairedDifference]) -> list[Row]:
    """Return the sorted rows with their ranks; `differences` are those of the comparable ones to the best."""
    versus = {id(row): difference for row, difference in zip(_comparable(rows), differences, strict=True)}
    ranked = []
    for place, row in enumerate(rows, 1):
        difference = versus.get(id(row))
        tie = difference is not None and difference.tie
        rank = None if row.accuracy is None else 1 if tie else place
        ranked.append(replace(row, rank=rank, tie=tie, versus_best=difference))
    return ranked


def episodes_of(row: Row) -> str:
    """Return what determines the test episodes of a row: rows with the same can be compared pairwise."""
    record = row.records[0]
    identity = record.identity
    dataset = {key: identity.get("dataset", {}).get(key) for key in ("name", "params")}
    episodes = row.accuracy.episodes if row.accuracy else 0
    seed = identity.get("test", {}).get("seed")
    what = [dataset, record.dataset_fingerprint, record.way, record.shot, record.queries, seed, episodes]
    return json.dumps(what, sort_keys=True)
