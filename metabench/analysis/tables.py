"""Tables of methods: the data that leaderboards, reports and sites show."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from metabench.analysis.claims import Trials
from metabench.analysis.metrics import RANKED_BY
from metabench.analysis.paired import PairedDifference
from metabench.analysis.published import Comparison
from metabench.analysis.stats import Floats, MeanInterval
from metabench.records.measured import Declaration
from metabench.records.record import Record
from metabench.specs import Metric
from metabench.text import shape_text


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


def common_episodes(rows: Sequence[Row]) -> int:
    """Return the number of first episodes that all rows have."""
    return min((len(row.values) for row in rows if row.values is not None), default=0)


def value_on(row: Row, episodes: int | None) -> float:
    """Return the metric that ranks on the first episodes, or on all, of a row with values."""
    assert row.values is not None, "a row without results has no value"
    mean = row.values[:episodes].mean(axis=0)
    return row.pooled.pooled(mean) if row.pooled else float(mean)


def is_comparable(row: Row, best: Row) -> bool:
    """Return whether a row has the best row's episodes."""
    return row.tested_on is not None and row.tested_on == best.tested_on


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
