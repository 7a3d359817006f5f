"""List the environments of the records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from metabench.records.record import Record
from metabench.text import counted


def environments(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return title and facts of each environment."""
    by_environment: dict[str, list[Record]] = {}
    for record in records:
        key = str([record.device, sorted((name, str(value)) for name, value in record.environment.items())])
        by_environment.setdefault(key, []).append(record)
    found = []
    for members in by_environment.values():
        data = sorted({(record.dataset, record.dataset_fingerprint) for record in members})
        facts = [("finished", max(record.finished for record in members))]
        facts += [(f"sha256 of {dataset}", fingerprint) for dataset, fingerprint in data]
        facts += [(name, _shown(value)) for name, value in members[0].environment.items()]
        facts += _circumstances(members)
        found.append({"title": f"{members[0].device}: {counted(len(members), 'cell')}", "facts": facts})
    return found


def _circumstances(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Return hosts, executors, GPUs, niceness and loads, where the records have them."""
    known = [record.circumstances for record in records if record.circumstances]
    if not known:
        return []
    loads = [one.busiest for one in known if one.busiest is not None]
    facts = [("host", ", ".join(sorted({one.host for one in known})))]
    for name, values in (("executor", {one.executor for one in known}), ("GPU", {one.gpu for one in known})):
        facts += [(name, ", ".join(sorted(values - {""})))] * bool(values - {""})
    niceness = sorted({one.niceness for one in known if one.niceness is not None})
    facts += [("niceness", ", ".join(map(str, niceness)))] * bool(niceness)
    processors = sorted({one.processors for one in known if one.processors is not None})
    of = f" on {'/'.join(map(str, processors))} processors" if processors else ""
    return [*facts, *[("load", f"{min(loads):.1f} to {max(loads):.1f}{of}")] * bool(loads)]


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {part}" for name, part in value.items())
    return "none" if value is None else str(value)
