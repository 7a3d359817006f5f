"""Read the records of several output directories as one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from metabench.errors import StoreError
from metabench.filters import choose, passes
from metabench.records.machines import Machine
from metabench.records.record import EpisodeResults, Record
from metabench.records.store import Store
from metabench.records.tallies import Tallies

if TYPE_CHECKING:  # reading records must not import numpy
    import numpy as np
    import numpy.typing as npt

#: Cell, machine and fingerprint of the data: records with equal keys are repetitions of one measurement.
_Key = tuple[str, Machine, str]


class Runs:
    """The records of several output directories.

    Of several records of one cell, machine and dataset, only the one that finished last is kept; a failed or skipped
    one is kept only if none is ok.

    Args:
        results: pairs of an output directory and its records.
        only: accepted values by filter (`metabench.filters.choose`): algorithm, dataset, backbone, way, shot, seed,
            suite, profile or status.

    Attributes:
        records: the kept records that pass the filters.

    Raises:
        UsageError: a filter or value is unknown, or no record passes all filters.
    """

    def __init__(
        self, results: Iterable[tuple[Store, Sequence[Record]]], only: Mapping[str, Iterable[str]] | None = None
    ) -> None:
        kept: dict[_Key, _Kept] = {}
        self._results, self._only = list(results), only or {}
        for store, records in self._results:
            for found in (_checked(store, record) for record in records):
                other = kept.get(_key(found.record))
                if other is None or _precedence(other.record) < _precedence(found.record):
                    kept[_key(found.record)] = found
        self.records = choose([found.record for found in kept.values()], _labels, self._only, "the runs")
        self._kept = {_key(record): kept[_key(record)] for record in self.records}

    @classmethod
    def read(cls, directories: Iterable[Path], only: Mapping[str, Iterable[str]] | None = None) -> Runs:
        """Read the records of one or more output directories.

        Records whose results are wrong have the status ``"invalid"``.

        Args:
            directories: the output directories.
            only: as in the constructor.

        Raises:
            StoreError: a directory does not exist, has no finished cell, or has a record that cannot be read.
            UsageError: a filter or value is unknown, or no record passes all filters.
        """
        results = []
        for directory in directories:
            advice = "give the --output of an earlier `metabench run`"
            if not os.path.isdir(directory):
                raise StoreError(f"no directory {directory}: {advice}")
            store = Store(directory)
            records = store.records()
            if not records:
                raise StoreError(f"no finished cells in {directory}: {advice}")
            results.append((store, records))
        return cls(results, only)

    @property
    def invalid(self) -> list[Record]:
        """Return the records whose results are wrong."""
        return [record for record in self.records if record.status == "invalid"]

    def values(self, record: Record) -> npt.NDArray[np.float64]:
        """Return the [n] values, or [n, k] figures, of the metric that ranks, of a record that is ok."""
        return self.figures(record, record.ranked_by)

    def figures(self, record: Record, metric: str) -> npt.NDArray[np.float64]:
        """Return the [n] or [n, k] figures of a metric that the record has (`metabench.specs.Metric.of_episode`).

        n is the number of episodes of `record`, which may be cut to the first ones.

        Raises:
            StoreError: they cannot be read, or disagree with the record.
        """
        kept = self._kept[_key(record)]
        assert kept.results is not None, "only a record that is ok has per-episode results"
        count = record.primary.episodes if record.primary else 0
        if metric in kept.results.figures:
            return kept.results.figures[metric][:count]
        return kept.store.episodes(kept.record, groups=False, metrics=[metric]).figures[metric][:count]

    def alone(self, record: Record) -> npt.NDArray[np.float64] | None:
        """Return the [k] values of a record's first episodes with each query on its own; None where unknown."""
        kept = self._kept[_key(record)]
        if not record.transductive:
            return self.values(record)
        if kept.results is None or kept.results.alone is None or kept.record.ranked_by != record.ranked_by:
            return None
        return kept.results.alone[: record.inductive_accuracy.episodes if record.inductive_accuracy else 0]

    def groups(self, record: Record) -> npt.NDArray[np.int64]:
        """Return the [n, N] groups of the classes of each test episode.

        Raises:
            StoreError: they cannot be read.
        """
        kept = self._kept[_key(record)]
        return kept.store.episodes(kept.record, metrics=()).groups[: record.primary.episodes if record.primary else 0]

    def tallies(self, record: Record) -> Tallies | None:
        """Return the totals of a record by class and confidence; None if there are none.

        Raises:
            StoreError: they cannot be read.
        """
        return self._kept[_key(record)].store.tallies(record.cell)

    def directory(self, record: Record) -> Path:
        """Return the output directory of a record."""
        return self._kept[_key(record)].store.path

    def picture(self, record: Record) -> bytes | None:
        """Return the PNG of a record's worst episode; None if there is none."""
        return self._kept[_key(record)].store.picture(record.cell)

    def unfinished(self) -> list[Unfinished]:
        """Return the planned cells without a record, by output directory; none where a run keeps no plan.

        Raises:
            StoreError: a plan is damaged.
        """
        found = []
        for store, records in self._results:
            known = {record.cell for record in records}
            cells = [
                cell
                for cell in store.planned()
                if cell.get("cell") not in known and self._only.keys() <= cell.keys() and passes(cell, self._only)
            ]
            found += [Unfinished(str(store.path), cells, len(store.checkpoints()))] if cells else []
        return found

    def suites(self) -> dict[str, str]:
        """Return the suite's YAML by output directory, for directories with a kept record."""
        stores = {kept.store.path: kept.store for kept in self._kept.values()}
        return {str(path): text for path, store in stores.items() if (text := store.suite_text())}


@dataclass(frozen=True)
class Unfinished:
    """Planned cells without a record.

    Attributes:
        output: the output directory.
        cells: labels of the cells.
        checkpoints: number of interrupted trainings, which go on with the next run.
    """

    output: str
    cells: Sequence[Mapping[str, str]]
    checkpoints: int


@dataclass(frozen=True)
class _Kept:
    """A record, its output directory and, if it is ok, per-episode results of the metric that ranks, without groups."""

    record: Record
    store: Store
    results: EpisodeResults | None = None


def _checked(store: Store, record: Record) -> _Kept:
    """Read a record's per-episode results; the record is invalid if they contradict it."""
    if record.status != "ok":
        return _Kept(record, store)
    try:
        return _Kept(record, store, store.episodes(record, groups=False, metrics=[record.ranked_by]))
    except StoreError as error:
        return _Kept(record.invalid(str(error)), store)


def _key(record: Record) -> _Key:
    return record.cell, record.machine, record.dataset_fingerprint


def _precedence(record: Record) -> tuple[bool, str]:
    return record.status == "ok", record.finished


def _labels(record: Record) -> dict[str, str]:
    names = ("algorithm", "dataset", "backbone", "way", "shot", "seed", "suite", "profile", "status")
    return {name: str(getattr(record, name)) for name in names} | {"trained_on": record.trained_on or record.dataset}
