"""Records become tables: one row a method, its training seeds together, ranked and compared on identical episodes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

import numpy as np

from metabench.analysis.paired import Contest, PairedDifference, compare
from metabench.analysis.published import Comparison, compare_published
from metabench.analysis.stats import DataIntervals, Floats, MeanInterval, mean_interval, seed_ci95
from metabench.records.record import EpisodeResults, Record
from metabench.specs import PublishedResult

#: Reads the per-episode results of a record.
ReadEpisodes = Callable[[Record], EpisodeResults]


@dataclass(frozen=True)
class Row:
    """One method in one table.

    Attributes:
        name: of the method in its suite, with what tells it from others of that name in the table.
        records: one a training seed, all of one machine; failed ones too.
        accuracy: over episodes, of the mean over the seeds; None where all failed.
        data_ci95: half the interval about the data (`metabench.analysis.stats.DataIntervals`).
        seed_ci95: half the interval between training seeds; None for a single one.
        inductive: mean accuracy where each query is classified without sight of the others.
        inductive_ci95: half its interval over episodes, the mean of the seeds'.
        rank: in its table; those tied with the best share its rank. None where all failed, and for a method
            that was tested on other episodes than most of its table.
        tie: whether these episodes do not tell it from the best.
        versus_best: less the best, on identical episodes; None for the best, and where there is no rank.
        published: the published result for it, and how its protocol differed.
        episodes: the per-episode accuracies, mean over the seeds, with the groups of the classes.
    """

    name: str
    records: Sequence[Record]
    accuracy: MeanInterval | None = None
    data_ci95: float | None = None
    seed_ci95: float | None = None
    inductive: float | None = None
    inductive_ci95: float | None = None
    rank: int | None = None
    tie: bool = False
    versus_best: PairedDifference | None = None
    published: Comparison | None = None
    episodes: EpisodeResults | None = field(default=None, repr=False)

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
    def task(self) -> str:
        """Return what its methods had to do."""
        return f"{self.dataset} · {self.way}-way {self.shot}-shot · {self.backbone}"

    @property
    def title(self) -> str:
        """Return the task, with how many test episodes and training seeds there were."""
        episodes = sorted({row.accuracy.episodes for row in self.rows if row.accuracy})
        seeds = sorted({len(row.finished) for row in self.rows if row.finished})
        parts = [self.task]
        if episodes:
            parts.append(f"{'/'.join(map(str, episodes))} test episodes")
        if seeds and seeds[-1] > 1:
            parts.append(f"{'/'.join(map(str, seeds))} training seeds")
        return " · ".join(parts)


def make_tables(
    records: Iterable[Record], read: ReadEpisodes, published: Sequence[PublishedResult] = ()
) -> list[Table]:
    """Return the tables of some records, by dataset, backbone, way and shot.

    Args:
        records: of one run or of several.
        read: finds the per-episode results of a record.
        published: published results.
    """
    ordered = sorted(records, key=lambda record: (*_table_of(record), _method_of(record), record.seed))
    tables = []
    for (dataset, backbone, way, shot), members in groupby(ordered, key=_table_of):
        rows = [_row(list(group), read, published) for _, group in groupby(members, key=_method_of)]
        tables.append(Table(dataset, backbone, way, shot, _sorted(_named(rows))))
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
    return record.algorithm, json.dumps([identity, record.dataset_fingerprint, record.device], sort_keys=True)


def _named(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with names that differ."""
    named = []
    for row in rows:
        namesakes = [other for other in rows if other.name == row.name]
        name = row.name
        for key in ("profile", "suite", "device", "cell"):
            values = [getattr(other.records[0], key) for other in namesakes]
            if len(namesakes) > 1 and len(set(values)) == len(values):
                name = f"{row.name} ({getattr(row.records[0], key) or 'no ' + key})"
                break
        named.append(replace(row, name=name))
    return named


def _row(records: Sequence[Record], read: ReadEpisodes, results: Sequence[PublishedResult]) -> Row:
    published = compare_published(records[0], results)
    finished = [record for record in records if record.status == "ok"]
    name = records[0].algorithm
    if not finished:
        return Row(name, records, published=published)
    episodes = [read(record) for record in finished]
    accuracies = np.mean([result.accuracies for result in episodes], axis=0)
    alone = [record.inductive_accuracy for record in finished if record.inductive_accuracy]
    return Row(
        name,
        records,
        accuracy=mean_interval(accuracies),
        data_ci95=_data_ci95(finished, accuracies, episodes[0]),
        seed_ci95=seed_ci95([record.accuracy.mean for record in finished if record.accuracy]),
        inductive=float(np.mean([accuracy.mean for accuracy in alone])) if alone else None,
        inductive_ci95=float(np.mean([accuracy.ci95 for accuracy in alone])) if alone else None,
        published=published,
        episodes=EpisodeResults(accuracies, episodes[0].groups),
    )


def _data_ci95(records: Sequence[Record], accuracies: Floats, results: EpisodeResults) -> float | None:
    """Return the interval about the data, which a single training has in its record."""
    if len(records) == 1 and records[0].accuracy and records[0].accuracy.data_ci95 is not None:
        return records[0].accuracy.data_ci95
    return DataIntervals(results.groups).ci95(accuracies)


def _sorted(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that are compared, the most accurate first, then those of other episodes, then the failed."""
    tested = [episodes_of(row.finished[0]) for row in rows if row.accuracy]
    # Most of the table; of two halves, the one with more episodes.
    main = max(tested, key=lambda episodes: (tested.count(episodes), episodes), default=None)

    def key(row: Row) -> tuple[bool, bool, float, str]:
        accuracy = row.accuracy.mean if row.accuracy else 0.0
        others = row.accuracy is not None and episodes_of(row.finished[0]) != main
        return row.accuracy is None, others, -accuracy, row.name

    return sorted(rows, key=key)


def is_comparable(row: Row, best: Row) -> bool:
    """Return whether a row was tested on the episodes of the best."""
    return bool(row.episodes and best.episodes) and episodes_of(row.finished[0]) == episodes_of(best.finished[0])


def _contest(rows: Sequence[Row]) -> Contest:
    """Return who is to be compared with the best."""
    best = rows[0].episodes
    if best is None:
        return Contest(np.zeros(0), [])
    others = [row.episodes.accuracies for row in rows[1:] if row.episodes and is_comparable(row, rows[0])]
    return Contest(best.accuracies, others, best.groups)


def _ranked(rows: Sequence[Row], differences: Sequence[PairedDifference]) -> list[Row]:
    """Return the sorted rows with their ranks; `differences` are those of the comparable ones to the best."""
    if rows[0].accuracy is None:
        return list(rows)
    ranked = [replace(rows[0], rank=1)]
    waiting = iter(differences)
    for place, row in enumerate(rows[1:], 2):
        if not is_comparable(row, rows[0]):
            ranked.append(row)
            continue
        difference = next(waiting)
        ranked.append(replace(row, rank=1 if difference.tie else place, tie=difference.tie, versus_best=difference))
    return ranked


def episodes_of(record: Record) -> tuple[int, str]:
    """Return how many test episodes a record has, and what determines them: with the same, they are the same."""
    dataset = {key: record.identity.get("dataset", {}).get(key) for key in ("name", "params")}
    episodes = record.accuracy.episodes if record.accuracy else 0
    seed = record.identity.get("test", {}).get("seed")
    what = [seed, record.way, record.shot, record.queries, dataset, record.dataset_fingerprint]
    return episodes, json.dumps(what, sort_keys=True)
