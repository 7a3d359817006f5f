"""Turn records into ranked tables, one row per method.

A row combines a method's training seeds; methods are compared on identical episodes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np

from metabench.analysis.bootstrap import MeanOfSeeds, pooled_interval
from metabench.analysis.claims import Trials, differences_by_seed
from metabench.analysis.crossed import LEAST_SEEDS, CrossedInterval, crossed_interval
from metabench.analysis.metrics import own_metric
from metabench.analysis.paired import Comparisons, Contest, compare
from metabench.analysis.published import compare_published
from metabench.analysis.row_names import named, with_domains, with_params
from metabench.analysis.stats import DataIntervals, Floats, MeanInterval, mean_interval, seed_ci95
from metabench.analysis.tables import (
    Results,
    Row,
    Table,
    common_episodes,
    episodes_of,
    is_comparable,
    value_on,
)
from metabench.errors import UsageError, nearest
from metabench.records.looks import look_key, most_looks
from metabench.records.record import Record
from metabench.specs import PublishedResult


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
        rows = _sorted(with_domains(with_params(named([_row(seeds, context) for seeds in members]))))
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


def _loss(row: Row, episodes: int | None) -> float:
    """Return the metric that ranks on the first episodes, or on all; negative where high values are better."""
    return 0.0 if row.values is None else -row.metric.sign * value_on(row, episodes)


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
