"""Tables of records, best first; imports no torch, and pandas only for CSV."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from metabench.record import Record

if TYPE_CHECKING:
    import pandas as pd

_LEGEND = (
    "accuracy: mean over the test episodes ± half its 95 % interval (Student t over episodes)",
    "T: transductive as measured: a query's scores move when the other queries change",
    "p50, p95: milliseconds to adapt to and classify one episode",
)


def ranked(records: Sequence[Record]) -> list[Record]:
    """Return the records by dataset, backbone, way and shot; the most accurate first, failed ones last."""

    def key(record: Record) -> tuple[Any, ...]:
        mean = record.accuracy.mean if record.accuracy else -1.0
        return (*_group(record), -mean, record.algorithm, record.seed)

    return sorted(records, key=key)


def render_text(records: Sequence[Record], width: int | None = None) -> str:
    """Return the leaderboard for a terminal of `width` columns; None is as wide as need be."""
    parts = []
    hidden: dict[str, None] = {}  # an ordered set
    for title, group in _groups(records):
        table, left_out = _fitting_table(group, width)
        hidden.update(dict.fromkeys(left_out))
        parts.append(f"{title}\n{table}{_failures(group)}")
    notes = list(_LEGEND) + _devices(records)
    if hidden:
        notes.append(f"left out for want of room: {', '.join(hidden)} (see --format csv)")
    return "\n\n".join([*parts, "\n".join(notes)]) + "\n"


def render_markdown(records: Sequence[Record]) -> str:
    """Return the leaderboard in Markdown."""
    parts = []
    for title, group in _groups(records):
        table = tabulate(
            [[_escaped(cell) for cell in line] for line in _lines(group, _titles(group))],
            headers=_titles(group),
            tablefmt="github",
            disable_numparse=True,
            colalign=_alignment(_titles(group)),
        )
        parts.append(f"### {_escaped(title)}\n\n{table}{_failures(group, _escaped)}")
    notes = "\n".join(f"- {_escaped(note)}" for note in list(_LEGEND) + _devices(records))
    return "\n\n".join([*parts, notes]) + "\n"


def frame(records: Sequence[Record]) -> pd.DataFrame:
    """Return one row a record, in the leaderboard's order, with unrounded figures."""
    import pandas as pd

    return pd.DataFrame([_row(record) for record in ranked(records)])


def render_csv(records: Sequence[Record]) -> str:
    """Return `frame` as CSV."""
    return frame(records).to_csv(index=False)


def _row(record: Record) -> dict[str, Any]:
    accuracy, train, evaluation = record.accuracy, record.train, record.eval
    return {
        "dataset": record.dataset,
        "backbone": record.backbone,
        "way": record.way,
        "shot": record.shot,
        "queries": record.queries,
        "algorithm": record.algorithm,
        "seed": record.seed,
        "profile": record.profile,
        "status": record.status,
        "accuracy": accuracy and accuracy.mean,
        "ci95": accuracy and accuracy.ci95,
        "std": accuracy and accuracy.std,
        "episodes": accuracy and accuracy.episodes,
        "transductive": record.transductive,
        "train_episodes": train and train.episodes,
        "train_seconds": train and train.seconds,
        "train_episodes_per_second": train and train.episodes_per_second,
        "eval_episodes_per_second": evaluation and evaluation.episodes_per_second,
        "latency_ms_p50": evaluation and evaluation.latency_ms.p50,
        "latency_ms_p95": evaluation and evaluation.latency_ms.p95,
        "peak_memory_bytes": record.peak_memory_bytes,
        "parameters": record.parameters,
        "device": record.device,
        "cell": record.cell,
        "error": record.error,
    }


def _group(record: Record) -> tuple[str, str, int, int]:
    return (record.dataset, record.backbone, record.way, record.shot)


def _groups(records: Sequence[Record]) -> list[tuple[str, list[Record]]]:
    """Return a title and the ranked records of each table."""
    found = []
    for (dataset, backbone, way, shot), group in groupby(ranked(records), key=_group):
        members = list(group)
        episodes = {record.accuracy.episodes for record in members if record.accuracy}
        counts = f" · {'/'.join(map(str, sorted(episodes)))} test episodes" if episodes else ""
        found.append((f"{dataset} · {way}-way {shot}-shot · {backbone}{counts}", members))
    return found


def _columns(record: Record) -> dict[str, str]:
    """Return the cells of a record; a narrow terminal loses the last ones first."""
    evaluation, train, memory = record.eval, record.train, record.peak_memory_bytes
    return {
        "algorithm": record.algorithm,
        "seed": str(record.seed),
        "accuracy %": _accuracy(record),
        "T": "T" if record.transductive else "",
        "test ep/s": _number(evaluation.episodes_per_second if evaluation else None),
        "train ep/s": _number(train.episodes_per_second if train else None),
        "peak MiB": _number(memory / 2**20 if memory else None),
        "p50 ms": _number(evaluation.latency_ms.p50 if evaluation else None),
        "p95 ms": _number(evaluation.latency_ms.p95 if evaluation else None),
        "params": f"{record.parameters:,}" if record.parameters else "–",
        "device": _device(record),
    }


def _titles(group: Sequence[Record]) -> list[str]:
    """Return the columns of a table; the seed only where there are several."""
    seeds = {record.seed for record in group}
    return ["#", *(title for title in _columns(group[0]) if title != "seed" or len(seeds) > 1)]


def _lines(group: Sequence[Record], titles: Sequence[str]) -> list[list[str]]:
    lines = []
    for rank, record in enumerate(group, 1):  # failed ones come last
        cells = {"#": str(rank) if record.status == "ok" else "", **_columns(record)}
        lines.append([cells[title] for title in titles])
    return lines


def _alignment(titles: Sequence[str]) -> list[str]:
    return ["left" if title in ("algorithm", "T", "device") else "right" for title in titles]


def _fitting_table(group: Sequence[Record], width: int | None) -> tuple[str, list[str]]:
    """Return the table with as many columns as fit, and the titles left out."""
    titles = _titles(group)
    shown = list(titles)
    while True:
        table = tabulate(
            _lines(group, shown),
            headers=shown,
            tablefmt="simple",
            disable_numparse=True,
            colalign=_alignment(shown),
        )
        table = "\n".join(line.rstrip() for line in table.splitlines())
        if width is None or shown[-1] == "accuracy %" or max(map(len, table.splitlines())) <= width:
            return table, titles[len(shown) :]
        shown.pop()


def _failures(group: Sequence[Record], escape: Callable[[str], str] = str) -> str:
    lines = [f"{record.algorithm} failed: {record.error}" for record in group if record.status == "failed"]
    return "".join(f"\n\n{escape(line)}" for line in lines)


def _devices(records: Sequence[Record]) -> list[str]:
    names = sorted({(_device(record), record.device) for record in records})
    return [f"{short}: {name}" for short, name in names]


def _device(record: Record) -> str:
    return "cuda" if record.environment.get("cuda") else "cpu"


def _accuracy(record: Record) -> str:
    if record.accuracy is None:
        return "failed"
    return f"{record.accuracy.mean * 100:.2f} ± {record.accuracy.ci95 * 100:.2f}"


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _escaped(text: str) -> str:
    """Return the text so that Markdown, and HTML within it, shows it as it is."""
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", html.escape(" ".join(text.split()), quote=False))
