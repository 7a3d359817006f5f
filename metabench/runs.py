"""The output directories of one run or several, read as one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from metabench.errors import StoreError
from metabench.filters import choose
from metabench.record import Record
from metabench.specs import PublishedFigure
from metabench.standings import Table, make_tables
from metabench.store import Store


class Runs:
    """The records of some output directories; of a cell that is in several, the one that was finished last.

    Args:
        directories: at least one.
        only: which records count, see `metabench.filters.choose`; by algorithm, dataset, backbone, way, shot, seed,
            suite, profile and status.

    Attributes:
        records: those that count.

    Raises:
        StoreError: a directory does not exist, has no finished cell, or a record in it is damaged.
        UsageError: there is nothing of what is asked for.
    """

    def __init__(self, directories: Sequence[Path], only: Mapping[str, Iterable[str]] | None = None) -> None:
        self._stores: dict[str, Store] = {}
        found: dict[str, Record] = {}
        for directory in directories:
            store = Store(directory)
            records = store.records()
            if not records:
                raise StoreError(f"no finished cells in {directory}: give the --output of an earlier `metabench run`")
            for record in records:
                earlier = found.get(record.cell)
                if earlier is None or earlier.finished < record.finished:
                    found[record.cell] = record
                    self._stores[record.cell] = store
        self.records = choose(list(found.values()), _labels, only or {}, "what is there")

    def tables(self, figures: Sequence[PublishedFigure] = ()) -> list[Table]:
        """Return the leaderboard's tables, with these published figures."""
        return make_tables(self.records, lambda record: self._stores[record.cell].episodes(record.cell), figures)

    def picture(self, record: Record) -> bytes | None:
        """Return the PNG of a record's worst episode, or None where there is none."""
        return self._stores[record.cell].picture(record.cell)

    def suites(self) -> dict[str, str]:
        """Return the text of the suite of each directory that records are from."""
        stores = {store.path: store for store in self._stores.values()}
        return {str(path): text for path, store in stores.items() if (text := store.suite_text())}


def _labels(record: Record) -> dict[str, str]:
    names = ("algorithm", "dataset", "backbone", "way", "shot", "seed", "suite", "profile", "status")
    return {name: str(getattr(record, name)) for name in names}
