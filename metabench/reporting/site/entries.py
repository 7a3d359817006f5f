"""The runs of a site."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from metabench.records.record import Record
from metabench.records.runs import Runs
from metabench.reporting.site.addresses import addresses, names_of


@dataclass(frozen=True)
class Entry:
    """A run of the site.

    Attributes:
        name: its name, which no other run of the site has.
        address: address of its report within the site.
        runs: its records.
    """

    name: str
    address: str
    runs: Runs


def read_entries(directories: Sequence[Path]) -> dict[Path, Entry]:
    """Read the runs of a site; return them by directory, sorted by name.

    Raises:
        StoreError: a directory does not exist, has no finished cell, or has a record that cannot be read.
        UsageError: a directory is given twice.
    """
    named = dict(sorted(zip(names_of(directories), directories, strict=True)))
    places = addresses("runs", named)
    return {directory: Entry(name, places[name], Runs.read([directory])) for name, directory in named.items()}


@dataclass(frozen=True)
class RunLine:
    """What the first page says of a run: texts, of which only the dates sort.

    Attributes:
        entry: the run.
        suites: names and versions of its suites.
        finished: day on which its last cell ended.
        versions: versions of metabench.
        machines: its machines.
        results: number of cells with results.
        without: numbers of cells without results, by why.
    """

    entry: Entry
    suites: str
    finished: str
    versions: str
    machines: str
    results: int
    without: str


def run_line(entry: Entry) -> RunLine:
    """Return what the first page says of a run."""
    records = entry.runs.records
    counts = Counter[str](record.status for record in records)
    counts["unfinished"] = sum(len(run.cells) for run in entry.runs.unfinished())
    return RunLine(
        entry,
        suites=_listed(suite_text(record) for record in records),
        finished=max(record.finished for record in records)[:10],
        versions=_listed(version_of(record) for record in records),
        machines=_listed(str(record.machine) for record in records),
        results=counts["ok"],
        without=_listed(f"{count} {status}" for status, count in counts.items() if count and status != "ok"),
    )


def suite_text(record: Record) -> str:
    """Return name and version of a record's suite, as a paper cites it, e.g. ``"omniglot, v2"``."""
    return record.suite + (f", v{record.suite_version}" if record.suite_version else "")


def version_of(record: Record) -> str:
    """Return the version of metabench that made a record."""
    return str(record.environment.get("metabench", "unknown"))


def suites_of(entries: Iterable[Entry]) -> Mapping[str, list[Entry]]:
    """Return the runs of each suite, as a paper cites it; results of other code have none."""
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        for suite in sorted({suite_text(record) for record in entry.runs.records if not record.external}):
            found.setdefault(suite, []).append(entry)
    return dict(sorted(found.items()))


def licences_of(records: Iterable[Record]) -> list[tuple[str, str, str]]:
    """Return name, licence and fingerprint of each dataset; an empty licence is not known."""
    return sorted({(one.dataset, one.data.licence if one.data else "", one.dataset_fingerprint) for one in records})


def _listed(texts: Iterable[str]) -> str:
    return "; ".join(sorted(set(texts)))
