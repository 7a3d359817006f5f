"""Turn records into ranked tables, one row per method.

A row combines a method's training seeds; methods are compared on identical episodes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from metabench.analysis.bootstrap import MeanOfSeeds, pooled_interval
from metabench.analysis.claims import Trials, differences_by_seed
from metabench.analysis.crossed import LEAST_SEEDS, CrossedInterval, crossed_interval
from metabench.analysis.metrics import RANKED_BY, own_metric
from metabench.analysis.paired import Comparisons, Contest, PairedDifference, compare
from metabench.analysis.parameters import varying_parameters
from metabench.analysis.published import Comparison, compare_published
from metabench.analysis.stats import DataIntervals, Floats, MeanInterval, mean_interval, seed_ci95
from metabench.errors import UsageError, nearest
from metabench.records.looks import look_key, most_looks
from metabench.records.measured import Declaration
from metabench.records.record import Record
from metabench.specs import Metric, PublishedResult
from metabench.text import shape_text, value_text


class Results(Protocol):
    """Reads the per-episode results of records, e.g. `metabench.records.runs.Runs`."""

    def values(self, record: Record) -> Floats:
        """Return the [n] value of each episode, of the metric that ranks."""

    def alone(self, record: Record) -> Floats | None:
        """Return the [k] value of the first episodes with each query on its own; None where unknown."""

    def groups(self, record: Record) -> npt.NDArray[np.int64]:
        """Return the [n, N] groups of each episode's classes."""


@dataclass(frozen=True)
class Row:
    """One method in one table.

    Attributes:
        name: label of the algorithm; methods with the same label also show profile, suite, device or cell.
        records: the records of all training seeds on one machine, failed and skipped ones included.
        primary: the metric that ranks: mean over seeds and episodes, with its interval over episodes; None where no
            seed is ok.
        data_ci95: half the 95 % interval about the data (`metabench.analysis.stats.DataIntervals`).
        seed_ci95: half the 95 % interval between training seeds; None for a single seed.
        method_ci95: half the 95 % interval about the method, over seeds and episodes (`metabench.analysis.crossed`);
            None where fewer than three seeds are ok or one has failed, and of a pooled metric. That of a method that no
            seed changes is that over episodes.
        inductive: mean over seeds and episodes of that metric when every query is predicted on its own.
        inductive_ci95: half the 95 % interval of `inductive` over episodes, as that of `primary`.
        metrics: the other metrics by name: mean over seeds, and half the 95 % interval over episodes. Of several
            seeds, it is the mean of their intervals, which is no smaller than the interval of the mean.
        rank: rank in the table; ties share the rank of the best. None where no seed is ok, where the method was tested
            on other episodes than most of the table, or is a floor.
        tie: whether the difference to the best is not significant.
        versus_best: the method minus the best, on identical episodes; None for the best and without a rank.
        p_holm: adjusted p of the difference to each other ranked method, by its name (`Comparisons.p_holm`).
        published: the published result for the method, with differences of protocol.
        values: [n] value of each episode, mean over the seeds; [n, k] figures of a pooled metric; None where no seed is
            ok.
        tested_on: key of the test episodes, see `episodes_of`; None where no seed is ok, and of a floor. Methods with
            equal keys are compared on the first episodes that all of them have.
        params: the parameters in which it differs from other rows of its algorithm (`varying_parameters`).
        pooled: the metric that pools the figures; None for a metric with a value for each episode.
        trained_on: dataset of the training, if a method of the table was trained on another dataset than it is tested
            on; else empty.
        trials: the values by training seed; None of a pooled metric and where no seed is ok.
        confirmations: the records of tests of the same weights on other episodes (``metabench run --confirm``).
        confirmed: the metric that ranks in them: mean over seeds and episodes; None where one is missing.
        looks: largest number of looks at the test of a record of its algorithm on the same episodes; None of earlier
            records.
    """

    name: str
    records: Sequence[Record]
    primary: MeanInterval | None = None
    data_ci95: float | None = None
    seed_ci95: float | None = None
    method_ci95: float | None = None
    inductive: float | None = None
    inductive_ci95: float | None = None
    metrics: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    rank: int | None = None
    tie: bool = False
    versus_best: PairedDifference | None = None
    p_holm: Mapping[str, float] = field(default_factory=dict, repr=False)
    published: Comparison | None = None
    values: Floats | None = field(default=None, repr=False)
    tested_on: str | None = field(default=None, repr=False)
    params: Mapping[str, Any] = field(default_factory=dict)
    pooled: Metric | None = field(default=None, repr=False)
    trained_on: str = ""
    trials: Trials | None = field(default=None, repr=False)
    confirmations: Sequence[Record] = ()
    confirmed: MeanInterval | None = None
    looks: int | None = None

    @property
    def tuning_trials(self) -> int | None:
        """Return the number of trials by which the parameters were found (`Record.trials`); None where none says."""
        return next((record.trials for record in self.records if record.trials is not None), None)

    @property
    def finished(self) -> list[Record]:
        """Return the records that are ok."""
        return [record for record in self.records if record.status == "ok"]

    @property
    def floor(self) -> bool:
        """Return whether it is a floor, which is neither ranked nor compared."""
        return any(record.floor for record in self.finished)

    @property
    def metric(self) -> Declaration:
        """Return the declaration of the metric that ranks, where a seed is ok."""
        return self.finished[0].ranking


@dataclass(frozen=True)
class Table:
    """All methods on one dataset, backbone, way and shot, or setting.

    Rows are sorted by the metric that ranks, the best first; floors, then failed and skipped methods come last.
    """

    dataset: str
    backbone: str
    way: int
    shot: int
    rows: Sequence[Row]
    setting: str = ""

    @property
    def shape(self) -> str:
        """Return way and shot as text, or the setting (`Record.setting`)."""
        return self.setting or shape_text(self.way, self.shot)

    @property
    def task(self) -> str:
        """Return dataset, shape and backbone as text."""
        return " · ".join(filter(None, [self.dataset, self.shape, self.backbone]))

    @property
    def chance(self) -> float | None:
        """Return the accuracy of guessing; None of a regression, and where another metric ranks."""
        known = [record for row in self.rows for record in row.finished if record.ranked_by == RANKED_BY]
        if not known or any(record.task == "regression" for record in known):
            return None
        of_record = next((record.chance for record in known if record.chance is not None), None)
        return of_record if of_record is not None or not self.way else 1 / self.way

    @property
    def title(self) -> str:
        """Return the task with its numbers of episodes and seeds, and the file of its episodes."""
        episodes = sorted({row.primary.episodes for row in self.rows if row.primary})
        seeds = sorted({len(row.finished) for row in self.rows if row.finished})
        parts = [self.task]
        if episodes:
            parts.append(f"{'/'.join(map(str, episodes))} test episodes")
        if seeds and seeds[-1] > 1:
            parts.append(f"{'/'.join(map(str, seeds))} training seeds")
        files = sorted({record.episodes_file for row in self.rows for record in row.records} - {""})
        if files:
            parts.append(f"fixed episodes of {', '.join(files)}")
        return " · ".join(parts)


def make_tables(records: Iterable[Record], results: Results, published: Sequence[PublishedResult] = ()) -> list[Table]:
    """Return one table for each dataset, backbone, way and shot.

    Args:
        records: records of one or several runs.
        results: reads the per-episode results of the records.
        published: published results of any algorithm.
    """
    methods: dict[tuple[_TableKey, tuple[str, str]], list[Record]] = {}
    every = list(records)
    context = _Context(results, published, _confirmations(every), most_looks(every))
    for record in every:
        if record.confirms:
            continue
        methods.setdefault((_table_of(record), _method_of(record)), []).append(record)
    tables = []
    for table, keys in groupby(sorted(methods), key=lambda key: key[0]):
        members = [sorted(methods[key], key=lambda record: record.seed) for key in keys]
        rows = _sorted(_with_domains(_with_params(_named([_row(seeds, context) for seeds in members]))))
        dataset, backbone, way, shot, setting = table
        tables.append(Table(dataset, backbone, way, shot, rows, setting))
    contests = compare([_contest(table.rows, results) for table in tables])
    return [
        replace(table, rows=_ranked(table.rows, comparisons))
        for table, comparisons in zip(tables, contests, strict=True)
    ]


@dataclass(frozen=True)
class _Context:
    """What the rows of all tables are made of, beside their records.

    Attributes:
        results: reads the per-episode results.
        published: published results of any algorithm.
        confirmations: the records that confirm a cell, by `_tested`.
        looks: `metabench.records.looks.most_looks` of all records.
    """

    results: Results
    published: Sequence[PublishedResult]
    confirmations: Mapping[_CellKey, Record]
    looks: Mapping[str, int]


#: Id of a cell, the fingerprint of its data, and the hash of its weights.
_CellKey = tuple[str, str, str]


def _confirmations(records: Iterable[Record]) -> dict[_CellKey, Record]:
    """Return the records that confirm a cell, by what they confirm."""
    return {_tested(record, record.confirms): record for record in records if record.confirms}


def _tested(record: Record, cell: str) -> _CellKey:
    """Return a key of the weights that a record tests as a cell: the cell may have been trained again since."""
    return cell, record.dataset_fingerprint, record.weights.sha256 if record.weights else ""


#: Dataset, backbone, way, shot and setting.
_TableKey = tuple[str, str, int, int, str]


def _table_of(record: Record) -> _TableKey:
    return record.dataset, record.backbone, record.way, record.shot, record.setting


def _method_of(record: Record) -> tuple[str, str]:
    """Return a key of records that differ in seed only."""
    identity = {key: value for key, value in record.identity.items() if key != "seed"}
    episodes = record.data.episodes if record.data else None
    return record.algorithm, json.dumps(
        [identity, record.dataset_fingerprint, episodes, record.machine.model_dump()], sort_keys=True
    )


def _named(rows: Sequence[Row]) -> list[Row]:
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


def _domain(row: Row) -> str:
    """Return the dataset of the training."""
    return row.records[0].trained_on or row.records[0].dataset


def _with_domains(rows: Sequence[Row]) -> Sequence[Row]:
    """Return the rows with the datasets of their trainings, if one of them is another than that of the test."""
    if not any(row.records[0].trained_on for row in rows):
        return rows
    return [replace(row, trained_on=_domain(row)) for row in rows]


def _with_params(rows: Sequence[Row]) -> list[Row]:
    varying = varying_parameters([row.records[0] for row in rows])
    return [replace(row, params=params) for row, params in zip(rows, varying, strict=True)]


def _row(records: Sequence[Record], context: _Context) -> Row:
    """Return the row of the records of a method, one for each seed."""
    found = [(record, context.confirmations.get(_tested(record, record.cell))) for record in records]
    confirmations = [again for record, again in found if again and _has_same_code(record, again)]
    return replace(
        _measured(records, context),
        confirmations=confirmations,
        confirmed=_confirmed(records, confirmations, context.results),
        looks=max(context.looks.get(look_key(record), 0) for record in records) or None if context.looks else None,
    )


def _has_same_code(record: Record, again: Record) -> bool:
    """Return whether a confirmation is of the code of a record."""
    code: Any = record.environment.get("code")
    return bool(code == again.environment.get("code"))


def _confirmed(records: Sequence[Record], confirmations: Sequence[Record], results: Results) -> MeanInterval | None:
    """Return the metric that ranks on the confirming episodes; None where a seed is not confirmed."""
    seeds = {record.seed for record in records if record.status == "ok"}
    finished = [record for record in confirmations if record.status == "ok" and record.seed in seeds]
    if not finished or len(finished) < len(seeds):
        return None
    by_seed = [results.values(record) for record in finished]
    common = min(map(len, by_seed))
    if by_seed[0].ndim == 1:
        return mean_interval(np.mean([values[:common] for values in by_seed], axis=0))
    figures = np.concatenate([values[:common] for values in by_seed], axis=1)
    return pooled_interval(MeanOfSeeds(own_metric(finished[0].ranked_by), len(by_seed)), figures)


def _measured(records: Sequence[Record], context: _Context) -> Row:
    """Return the row without what other tests of the method say."""
    results = context.results
    published = compare_published(records[0], context.published)
    finished = [record for record in records if record.status == "ok"]
    name = records[0].algorithm + (" (external)" if records[0].external else "")
    if not finished:
        return Row(name, records, published=published)
    by_seed = [results.values(record) for record in finished]
    by_seed = [values[: min(map(len, by_seed))] for values in by_seed]
    if by_seed[0].ndim == 2:
        return replace(_pooled_row(records, finished, by_seed), published=published)
    values = np.mean(by_seed, axis=0) if len(by_seed) > 1 else by_seed[0]
    inductive, inductive_ci95 = _alone(finished, results)
    seeds = {record.seed: of_seed for record, of_seed in zip(finished, by_seed, strict=True)}
    trials = Trials(seeds, finished[0].every_seed, len(finished) == len(records))
    return Row(
        name,
        records,
        primary=mean_interval(values),
        data_ci95=_data_ci95(finished, values, results),
        seed_ci95=seed_ci95([record.primary.value for record in finished if record.primary]),
        method_ci95=_method_ci95(trials),
        inductive=inductive,
        inductive_ci95=inductive_ci95,
        metrics=_further(finished),
        published=published,
        values=values,
        tested_on=None if finished[0].floor else episodes_of(finished[0]),
        trials=trials,
    )


def _method_ci95(trials: Trials) -> float | None:
    """Return half the interval about a method; None where it has none."""
    if not trials.complete:
        return None
    values = list(trials.by_seed.values())
    if trials.every_seed:
        return mean_interval(values[0]).ci95
    return crossed_interval(np.stack(values)).ci95 if len(values) >= LEAST_SEEDS else None


def _pooled_row(records: Sequence[Record], finished: Sequence[Record], by_seed: Sequence[Floats]) -> Row:
    """Return the row of a method that is ranked by a pooled metric, without intervals about the data and alone."""
    metric = MeanOfSeeds(own_metric(finished[0].ranked_by), len(by_seed))
    figures = np.concatenate(by_seed, axis=1)
    return Row(
        records[0].algorithm,
        records,
        primary=pooled_interval(metric, figures),
        seed_ci95=seed_ci95([record.primary.value for record in finished if record.primary]),
        metrics=_further(finished),
        values=figures,
        tested_on=None if finished[0].floor else episodes_of(finished[0]),
        pooled=metric,
    )


def ranked_by(records: Iterable[Record], metric: str) -> list[Record]:
    """Return the records ranked by another metric.

    Raises:
        UsageError: a record that is ok lacks the metric, or it is a pooled metric of a plugin.
    """
    chosen = list(records)
    ok = [record for record in chosen if record.status == "ok"]
    lacking = [record for record in ok if record.metrics.get(metric) is None]
    if lacking:
        known = sorted({name for record in ok for name, estimate in record.metrics.items() if estimate})
        raise UsageError(
            f"{len(lacking)} of {len(ok)} records have no '{metric}'{nearest(metric, known)}, e.g. that of "
            f"{lacking[0].algorithm}: compute it by `metabench score`, or leave them out with --only"
        )
    for record in ok:
        estimate = record.metrics[metric]
        if estimate and estimate.is_pooled:
            own_metric(metric)
    return [record.with_ranking(metric) if record.status == "ok" else record for record in chosen]


def _further(finished: Sequence[Record]) -> dict[str, tuple[float, float]]:
    """Return value and half the interval of each metric that all seeds have, but for the one that ranks."""
    metrics = {}
    for name in finished[0].metrics:
        known = [estimate for record in finished if (estimate := record.metrics.get(name))]
        if name != finished[0].ranked_by and len(known) == len(finished):
            value, ci95 = np.mean([(estimate.value, estimate.ci95) for estimate in known], axis=0)
            metrics[name] = float(value), float(ci95)
    return metrics


def _alone(finished: Sequence[Record], results: Results) -> tuple[float | None, float | None]:
    """Return mean and half the interval of the metric that ranks, with every query on its own.

    Several seeds are averaged episode by episode, as without this restriction. Records of earlier versions have no
    values of the episodes: their means and intervals are averaged.
    """
    measured = [(record, record.inductive_accuracy) for record in finished if record.inductive_accuracy]
    if not measured:
        return None, None
    by_episode = [results.alone(record) for record, _ in measured] if len(measured) > 1 else [None]
    known = [values for values in by_episode if values is not None]
    if len(known) < len(measured):
        mean, ci95 = np.mean([(estimate.value, estimate.ci95) for _, estimate in measured], axis=0)
        return float(mean), float(ci95)
    # A seed that was measured as transductive has fewer episodes than one that was not.
    common = min(map(len, known))
    interval = mean_interval(np.mean([values[:common] for values in known], axis=0))
    return interval.mean, interval.ci95


def _data_ci95(records: Sequence[Record], values: Floats, results: Results) -> float | None:
    """Return half the interval about the data.

    The record of a single seed already holds it; several seeds need it computed from their mean values.
    """
    if len(records) == 1 and records[0].primary and records[0].primary.data_ci95 is not None:
        return records[0].primary.data_ci95
    return DataIntervals(results.groups(records[0])[: len(values)]).ci95(values)


def _sorted(rows: Sequence[Row]) -> list[Row]:
    """Sort by the metric that ranks, the best first; rows of other episodes and failures last."""
    tested = [row.tested_on for row in rows if row.tested_on]
    # The episodes of most rows; of two equally frequent sets, the larger.
    sizes = {
        key: max(len(row.values) for row in rows if row.tested_on == key and row.values is not None) for key in tested
    }
    main = max(tested, key=lambda key: (tested.count(key), sizes[key], key), default=None)
    common = common_episodes([row for row in rows if row.tested_on == main])

    def key(row: Row) -> tuple[bool, bool, bool, float, str]:
        other_episodes = row.tested_on is not None and row.tested_on != main
        loss = _loss(row, None if other_episodes or row.floor else common)
        return row.primary is None, row.floor, other_episodes, loss, row.name

    return sorted(rows, key=key)


def common_episodes(rows: Sequence[Row]) -> int:
    """Return the number of first episodes that all rows have."""
    return min((len(row.values) for row in rows if row.values is not None), default=0)


def _loss(row: Row, episodes: int | None) -> float:
    """Return the metric that ranks on the first episodes, or on all; negative where high values are better."""
    return 0.0 if row.values is None else -row.metric.sign * value_on(row, episodes)


def value_on(row: Row, episodes: int | None) -> float:
    """Return the metric that ranks on the first episodes, or on all, of a row with values."""
    assert row.values is not None, "a row without results has no value"
    mean = row.values[:episodes].mean(axis=0)
    return row.pooled.pooled(mean) if row.pooled else float(mean)


def is_comparable(row: Row, best: Row) -> bool:
    """Return whether a row has the best row's episodes."""
    return row.tested_on is not None and row.tested_on == best.tested_on


def _comparable(rows: Sequence[Row]) -> list[Row]:
    """Return the best row and the rows comparable with it."""
    return [row for row in rows if row.values is not None and is_comparable(row, rows[0])]


def _contest(rows: Sequence[Row], results: Results) -> Contest:
    """Return the contest of the comparable rows; without groups where the best has no opponent."""
    comparable = _comparable(rows)
    common = common_episodes(comparable)
    methods = [row.values[:common] for row in comparable if row.values is not None]
    pooled = [row.pooled for row in comparable if row.pooled]
    with_groups = len(methods) > 1 and not pooled
    trials = [row.trials.first(common) for row in comparable if row.trials]
    of_methods = any(len(trial.by_seed) >= LEAST_SEEDS or trial.every_seed for trial in trials)
    return Contest(
        methods,
        results.groups(rows[0].finished[0])[:common] if with_groups else None,
        pooled,
        trials if of_methods else (),
    )


def _ranked(rows: Sequence[Row], comparisons: Comparisons) -> list[Row]:
    """Add ranks and differences to sorted rows.

    Args:
        rows: the sorted rows, the best first.
        comparisons: the comparisons of the comparable rows, in row order.
    """
    names = [row.name for row in _comparable(rows)]
    ranked = []
    for place, row in enumerate(rows):
        if row.name not in names:
            ranked.append(row)
            continue
        i = names.index(row.name)
        p_holm = {name: p for name, p in zip(names, comparisons.p_holm[i], strict=True) if name != row.name}
        best = comparisons.versus_best[i - 1] if i else None
        tie = best is not None and best.tie
        rank = 1 if tie else place + 1
        ranked.append(replace(row, rank=rank, tie=tie, versus_best=best, p_holm=p_holm))
    return ranked


def difference_of(row: Row, other: Row, episodes: int) -> MeanInterval | CrossedInterval:
    """Return a row minus another on the first episodes, with its 95 % interval.

    Args:
        row: a row with a value for each episode.
        other: a row that was tested on the same episodes.
        episodes: number of episodes, which both rows have.

    Returns:
        The difference of the methods, over seeds and episodes, where they have three seeds in common and none has
        failed; else that of these weights, over episodes.
    """
    assert row.values is not None, "a row without results has no difference"
    assert other.values is not None, "a row without results has no difference"
    if row.trials and other.trials:
        differences = differences_by_seed(row.trials.first(episodes), other.trials.first(episodes))
        if differences is not None:
            return crossed_interval(differences)
    return mean_interval(row.values[:episodes] - other.values[:episodes])


def episodes_of(record: Record) -> str:
    """Return a key of records with identical test episodes, of which one may have more than another.

    The key is the record's own; for a record of 0.1, all settings that determined them. Records that are ranked by
    other metrics have other keys.
    """
    metric = "" if record.ranked_by == "accuracy" else f" {record.ranked_by}"
    if record.data:
        return record.data.episodes + metric
    dataset = {key: record.identity.get("dataset", {}).get(key) for key in ("name", "params")}
    seed = record.identity.get("test", {}).get("seed")
    settings = [seed, record.way, record.shot, record.queries, dataset, record.dataset_fingerprint]
    return json.dumps(settings, sort_keys=True) + metric
