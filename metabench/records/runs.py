"""The output directories of one run or several, read as one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from metabench.errors import StoreError
from metabench.filters import choose
from metabench.records.record import EpisodeResults, Machine, Record
from metabench.records.store import Store

#: What makes two records measurements of the same thing: the cell, the machine, and the data.
_Key = tuple[str, Machine, str]


class Runs:
    """The records of some output directories.

    Where several directories have a record of one cell, of the same machine and data, the last finished one counts; a
    failed one counts only where there is no other.

    Args:
        results: each output directory with its records.
        only: the labels to keep, see `metabench.filters.choose`; by algorithm, dataset, backbone, way, shot, seed,
            suite, profile and status.

    Attributes:
        records: the records that count.

    Raises:
        UsageError: no record has the labels.
    """

    def __init__(
        self, results: Iterable[tuple[Store, Sequence[Record]]], only: Mapping[str, Iterable[str]] | None = None
    ) -> None:
        counted: dict[_Key, tuple[Record, Store]] = {}
        for store, records in results:
            for record in records:
                earlier = counted.get(_key(record))
                if earlier is None or _precedence(earlier[0]) < _precedence(record):
                    counted[_key(record)] = (record, store)
        self.records = choose([record for record, _ in counted.values()], _labels, only or {}, "the runs")
        self._stores = {_key(record): counted[_key(record)][1] for record in self.records}

    @classmethod
    def read(cls, directories: Iterable[Path], only: Mapping[str, Iterable[str]] | None = None) -> Runs:
        """Read the records of some output directories, at least one.

        Raises:
            StoreError: a directory does not exist, has no finished cell, or a record in it is damaged.
            UsageError: no record has the labels.
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

    def episodes(self, record: Record) -> EpisodeResults:
        """Return what the test episodes of a record gave.

        Raises:
            StoreError: they cannot be read, or are not as many as the record says.
        """
        store = self._stores[_key(record)]
        results = store.episodes(record.cell)
        if record.accuracy and len(results.accuracies) != record.accuracy.episodes:
            raise StoreError(
                f"cell {record.cell} in {store.path} has {len(results.accuracies)} per-episode results, and its record "
                f"says {record.accuracy.episodes}: run the suite again"
            )
        return results

    def picture(self, record: Record) -> bytes | None:
        """Return the PNG of a record's worst episode, or None where there is none."""
        return self._stores[_key(record)].picture(record.cell)

    def suites(self) -> dict[str, str]:
        """Return the text of the suite of each directory that records are from."""
        stores = {store.path: store for store in self._stores.values()}
        return {str(path): text for path, store in stores.items() if (text := store.suite_text())}


def _key(record: Record) -> _Key:
    return record.cell, record.machine, record.dataset_fingerprint


def _precedence(record: Record) -> tuple[bool, str]:
    return record.status == "ok", record.finished


def _labels(record: Record) -> dict[str, str]:
    names = ("algorithm", "dataset", "backbone", "way", "shot", "seed", "suite", "profile", "status")
    return {name: str(getattr(record, name)) for name in names}
