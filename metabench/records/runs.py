"""Read the records of several output directories as one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from metabench.errors import StoreError
from metabench.filters import choose
from metabench.records.record import Machine, Record
from metabench.records.store import Store

if TYPE_CHECKING:  # reading records must not import numpy
    import numpy as np
    import numpy.typing as npt

#: Cell, machine and fingerprint of the data: records with equal keys are repetitions of one measurement.
_Key = tuple[str, Machine, str]


class Runs:
    """The records of several output directories.

    Of several records of one cell, machine and dataset, only the one that finished last is kept; a failed one is kept
    only if all have failed.

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
        kept: dict[_Key, tuple[Record, Store]] = {}
        for store, records in results:
            for record in records:
                other = kept.get(_key(record))
                if other is None or _precedence(other[0]) < _precedence(record):
                    kept[_key(record)] = (record, store)
        self.records = choose([record for record, _ in kept.values()], _labels, only or {}, "the runs")
        self._stores = {_key(record): kept[_key(record)][1] for record in self.records}

    @classmethod
    def read(cls, directories: Iterable[Path], only: Mapping[str, Iterable[str]] | None = None) -> Runs:
        """Read the records of one or more output directories.

        Raises:
            StoreError: a directory does not exist, has no finished cell, or has a damaged record.
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

    def accuracies(self, record: Record) -> npt.NDArray[np.float64]:
        """Return the [n] per-episode accuracies of a record.

        Raises:
            StoreError: they cannot be read, or their number differs from the record's.
        """
        store = self._stores[_key(record)]
        accuracies = store.accuracies(record.cell)
        if record.accuracy and len(accuracies) != record.accuracy.episodes:
            raise StoreError(
                f"cell {record.cell} in {store.path} has {len(accuracies)} per-episode results, and its record "
                f"says {record.accuracy.episodes}: run the suite again"
            )
        return accuracies

    def groups(self, record: Record) -> npt.NDArray[np.int64]:
        """Return the [n, N] groups of the classes of each test episode.

        Raises:
            StoreError: they cannot be read.
        """
        return self._stores[_key(record)].episodes(record.cell).groups

    def picture(self, record: Record) -> bytes | None:
        """Return the PNG of a record's worst episode; None if there is none."""
        return self._stores[_key(record)].picture(record.cell)

    def suites(self) -> dict[str, str]:
        """Return the suite's YAML by output directory, for directories with a kept record."""
        stores = {store.path: store for store in self._stores.values()}
        return {str(path): text for path, store in stores.items() if (text := store.suite_text())}


def _key(record: Record) -> _Key:
    return record.cell, record.machine, record.dataset_fingerprint


def _precedence(record: Record) -> tuple[bool, str]:
    return record.status == "ok", record.finished


def _labels(record: Record) -> dict[str, str]:
    names = ("algorithm", "dataset", "backbone", "way", "shot", "seed", "suite", "profile", "status")
    return {name: str(getattr(record, name)) for name in names}
