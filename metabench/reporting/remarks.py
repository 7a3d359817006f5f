"""Remarks on a leaderboard: what its columns cannot say."""

from __future__ import annotations

from collections.abc import Sequence

from metabench.analysis.costs import device, unlike_circumstances
from metabench.analysis.paired import PairedDifference
from metabench.analysis.tables import Row, Table, common_episodes
from metabench.records.record import Record
from metabench.reporting.figures import published_accuracy


def remarks(table: Table, failures: bool = True) -> list[str]:
    """Return the remarks on a table: cells without results, other test episodes, ties, oddities of the data.

    Args:
        table: the table.
        failures: whether the reasons of failed, skipped and invalid cells are among them.
    """
    failed = _failures(table) if failures else []
    return [
        *failed,
        *_of_records(table),
        *_other_episodes(table),
        *_of_weights(table),
        *_confirmed_often(table),
        *_unequal_trials(table),
        *_ties(table),
        *_unlike_times(table),
        *_data(table),
    ]


def _unlike_times(table: Table) -> list[str]:
    """Return a mark where the times of a table cannot be compared."""
    timed = [record for row in table.rows for record in row.finished if record.eval]
    reasons = unlike_circumstances(timed)
    return [f"times, rates and energies are not comparable within this table: other {', other '.join(reasons)}"] * bool(
        reasons
    )


def _data(table: Table) -> list[str]:
    """Return each remark on the data once, whatever the number of methods."""
    data = [record.data for row in table.rows for record in row.records if record.data]
    return list(dict.fromkeys(f"{table.dataset}: {remark}" for part in data for remark in part.remarks))


def _named(table: Table) -> list[tuple[str, Record]]:
    """Return the records of a table, each with the name of its method, and its seed where there are several."""
    return [
        (
            row.name
            + (f" (seed {record.seed})" if len(row.records) > 1 else "")
            + (" on the confirming episodes" if record.confirms else ""),
            record,
        )
        for row in table.rows
        for record in (*row.records, *row.confirmations)
    ]


def _failures(table: Table) -> list[str]:
    """Return the reasons of cells that are not ok."""
    return [
        f"{name} {'failed' if record.status == 'failed' else f'is {record.status}'}: {record.error}"
        for name, record in _named(table)
        if record.status != "ok"
    ]


def _of_records(table: Table) -> list[str]:
    """Return each remark of the records once, with the methods that have it."""
    lines: list[str] = []
    methods: dict[str, list[str]] = {}
    for name, record in _named(table):
        for remark in record.remarks:
            methods.setdefault(remark, []).append(name)
    finished = sum(record.status == "ok" for row in table.rows for record in (*row.records, *row.confirmations))
    for remark, names in methods.items():
        everyone = len(names) == finished > 1
        lines.append(f"{'all methods' if everyone else ', '.join(names)}: {remark}")
    return lines


def _other_episodes(table: Table) -> list[str]:
    unranked = [row for row in table.rows if row.primary and row.rank is None]
    floors = [row.name for row in unranked if row.floor]
    names = [row.name for row in unranked if not row.floor]
    lines = [f"floors, neither ranked nor compared: {', '.join(floors)}"] if floors else []
    lines += [f"tested on other episodes, so neither ranked nor compared: {', '.join(names)}"] if names else []
    ranked = [row for row in table.rows if row.rank is not None and row.values is not None]
    common = common_episodes(ranked)
    if any(row.values is not None and len(row.values) > common for row in ranked):
        lines.append(f"ranked and compared on the first {common:,} episodes, which all of them have")
    return lines


def _of_weights(table: Table) -> list[str]:
    """Return the methods without a claim, in a table where others have one, and why methods have none."""
    compared = [row for row in table.rows if row.rank is not None]
    lines = []
    failed = [f"{row.name} ({len(row.finished)} of {len(row.records)} seeds)" for row in compared if _lacks_seeds(row)]
    if failed:
        lines.append(f"seeds have failed, so that the mean is of the others, and no claim: {', '.join(failed)}")
    others = [row for row in compared if row.versus_best]
    of_weights = [row.name for row in others if row.versus_best and not row.versus_best.about_methods]
    if 0 < len(of_weights) < len(others):
        lines.append(f"compared with the best as these weights, not as methods: {', '.join(of_weights)}")
    return lines


def _confirmed_often(table: Table) -> list[str]:
    """Return the methods whose confirming episodes were looked at more than once."""
    looks = {row.name: max((record.looks or 0 for record in row.confirmations), default=0) for row in table.rows}
    names = [f"{name} ({count} times)" for name, count in looks.items() if count > 1]
    advice = "a confirmation is of one choice that was made before, e.g. by --only"
    return [f"the confirming episodes were looked at several times: {', '.join(names)}; {advice}"] if names else []


def _unequal_trials(table: Table) -> list[str]:
    """Return a remark where methods were tuned with unequal effort; one without anything to search is left out."""
    counts = {row.name: row.tuning_trials for row in table.rows if not row.floor}
    searched = {name: count for name, count in counts.items() if count != 0}
    if len(set(searched.values())) < 2:
        return []
    names = ", ".join(f"{name} {'not tuned' if count is None else count}" for name, count in searched.items())
    return [f"tuned with unequal numbers of trials, so not compared with equal effort: {names}"]


def _lacks_seeds(row: Row) -> bool:
    return len(row.finished) < len(row.records)


def _ties(table: Table) -> list[str]:
    return [
        f"{row.name} ties with the best; if the difference is as measured, {needed} would show it in four of five runs"
        for row in table.rows
        if row.tie and row.versus_best and (needed := _needed(row.versus_best))
    ]


def _needed(versus: PairedDifference) -> str:
    """Return the episodes or seeds that would settle a tie; empty where the difference is 0."""
    if versus.settled_by:
        return f"{versus.settled_by:,} episodes" if versus.settled_by < 1_000_000 else "more than a million episodes"
    if versus.settled_by_seeds:
        return f"{versus.settled_by_seeds:,} training seeds"
    return ""


def sources(tables: Sequence[Table]) -> list[str]:
    """Return a line for each published result: accuracy, source, and differences of protocol."""
    lines: dict[str, None] = {}  # an ordered set
    for table in tables:
        for row in table.rows:
            if row.published:
                result, differences = row.published.result, row.published.differences
                protocol = f"other protocol: {'; '.join(differences)}" if differences else "the same protocol"
                shape = f"{result.way}-way {result.shot}-shot"
                lines[f"{row.name} {shape}: {published_accuracy(result)} % in {result.source}; {protocol}"] = None
    return list(lines)


def devices(tables: Sequence[Table]) -> list[str]:
    """Return a line for each machine."""
    return [f"{short}: {name}" for short, name in sorted({(device(one), one.device) for one in _records(tables)})]


def origins(tables: Sequence[Table]) -> list[str]:
    """Return a line for each version of a suite, and for the licence of each dataset.

    A licence is unknown where no record of the dataset has it: results of other code lack it beside those that have it.
    """
    versions = sorted({(one.suite, one.suite_version) for one in _records(tables) if one.suite_version})
    stated = sorted({(one.dataset, one.data.licence) for one in _records(tables) if one.data})
    known = {name for name, licence in stated if licence}
    licences = [(name, licence or "unknown") for name, licence in stated if licence or name not in known]
    return [
        *(f"suite: {name}, v{version}" for name, version in versions),
        *(f"licence of {name}: {licence}" for name, licence in licences),
    ]


def _records(tables: Sequence[Table]) -> list[Record]:
    return [record for table in tables for row in table.rows for record in row.records]
