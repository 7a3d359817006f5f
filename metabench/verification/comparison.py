"""Compare the record of a cell with that of a second test of the same weights."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt

from metabench.errors import shown
from metabench.records.record import EpisodeResults, Record
from metabench.text import counted

#: Largest mean difference of the figures of an episode, as a share of their mean, that counts as rounding: another
#: processor, number of threads or torch sums in another order, and a query whose two best classes nearly tie may go to
#: the other. docs/submitting.md says what was measured.
TOLERANCE = 0.002

#: What settings and weights determine on any machine; a record of an earlier version may lack some.
_SETTINGS = (
    *("algorithm", "dataset", "trained_on", "backbone", "pretrained_on", "way", "shot", "queries", "episodes_file"),
    *("seed", "identity", "task", "floor", "every_seed", "confirms", "ranked_by", "transductive", "train", "weights"),
    *("parameters", "all_parameters"),
)
#: What the data determine.
_DATA = ("episodes", "overlapping", "duplicates", "left_out", "trained_on")
#: What a declaration says of the values; its texts may change with a version.
_DECLARED = ("better", "unit", "scale")


def differences(
    record: Record,
    again: Record,
    results: EpisodeResults,
    repeated: EpisodeResults,
    exact: bool,
    scored: Collection[str] = (),
) -> list[str]:
    """Return what differs between a record and a second test, a sentence each.

    Args:
        record: the stored record.
        again: the record of the second test.
        results: the stored per-episode results.
        repeated: those of the second test.
        exact: whether figures must be the same to the digit, not within `TOLERANCE`.
        scored: names of metrics that `metabench score` may have computed, from kept outputs in half precision.
    """
    found = _settings(record, again)
    if not np.array_equal(results.groups, repeated.groups):
        found.append("groups of the episodes differ: they are other episodes")
    if figures := list(_figures(record, results, repeated, scored if exact else list(results.figures))):
        return [*found, *figures]  # all else follows from them
    for name in ("by_class", "alone"):
        one, other = getattr(results, name), getattr(repeated, name)
        if one is not None and other is not None and not _same(one, other, exact):
            found.append(f"{name} of the episodes differ")
    if exact:
        found += _to_the_digit(record, again, scored)
        if results.tallies and repeated.tallies and not _equal(results.tallies, repeated.tallies):
            found.append("the totals by class (tallies) differ")
    return found


def not_computed(record: Record, again: Record) -> list[str]:
    """Return the names of metrics of a record that the second test lacks, or has of other episodes."""
    return [
        name
        for name, estimate in record.metrics.items()
        if estimate and (again.metrics.get(name) is None or _is_cut(record, name))
    ]


def _settings(record: Record, again: Record) -> list[str]:
    found: list[str] = []
    for name in _SETTINGS:
        if name in record.model_fields_set:
            found += _unlike(name, getattr(record, name), getattr(again, name))
    if record.data and again.data:
        for name in _DATA:
            found += _unlike(f"data.{name}", getattr(record.data, name), getattr(again.data, name))
    for metric, declared in record.declarations.items():
        for name in _DECLARED if metric in again.declarations else ():
            now = getattr(again.declarations[metric], name)
            found += _unlike(f"declarations.{metric}.{name}", getattr(declared, name), now)
    return found


def _figures(
    record: Record, results: EpisodeResults, repeated: EpisodeResults, loose: Collection[str]
) -> Iterator[str]:
    for name, stored in results.figures.items():
        now = repeated.figures.get(name)
        if now is None or _same(stored, now, name not in loose) or _is_cut(record, name):
            continue
        declared = record.declarations[name]
        if stored.shape != now.shape:
            yield f"{declared.title} has figures of shape {list(stored.shape)} in the run, and {list(now.shape)} here"
            continue
        unlike = np.flatnonzero((stored != now).reshape(len(stored), -1).any(axis=1))
        first, episodes = int(unlike[0]), counted(len(stored), "episode")
        text = f"{declared.title}: other figures in {len(unlike)} of {episodes}, first in episode {first}"
        if stored.ndim == 1:
            means = [float(values.mean()) * declared.scale for values in (stored, now)]
            pair = [values[first] * declared.scale for values in (stored, now)]
            text += f" ({pair[0]:.6g} {declared.unit}".rstrip() + f" in the run, {pair[1]:.6g} here)"
            text += f"; the means are {means[0]:.6g} and {means[1]:.6g}"
        yield text


def _is_cut(record: Record, name: str) -> bool:
    """Return whether a metric was computed later, from the outputs of the first episodes only."""
    estimate, primary = record.metrics.get(name), record.primary
    return estimate is not None and primary is not None and estimate.episodes < primary.episodes


def _to_the_digit(record: Record, again: Record, scored: Collection[str]) -> Iterator[str]:
    """Yield what must be equal on the same kind of machine, beside the figures of the episodes."""
    for name, estimate in record.metrics.items():
        now = again.metrics.get(name)
        if estimate is not None and now is not None and name not in scored:
            yield from _unlike(f"metrics.{name}", estimate.model_dump(), now.model_dump())
    for name in ("temperature", "inductive_accuracy", "worst_classes", "chance", "flops_per_episode"):
        if name in record.model_fields_set:
            yield from _unlike(name, getattr(record, name), getattr(again, name))


def _unlike(name: str, stored: Any, now: Any) -> Iterator[str]:
    if stored != now:
        yield f"{name} is {_text(stored)} in the record, and {_text(now)} here"


def _text(value: Any) -> str:
    plain = value.model_dump(exclude_none=True) if hasattr(value, "model_dump") else value
    return shown(plain, limit=120)


def _same(stored: npt.NDArray[Any], now: npt.NDArray[Any], exact: bool) -> bool:
    """Return whether arrays are equal, to the digit or within `TOLERANCE`."""
    if exact or stored.shape != now.shape:
        return np.array_equal(stored, now)
    return bool(np.abs(stored - now).mean() <= TOLERANCE * np.abs(stored).mean())


def _equal(one: Any, other: Any) -> bool:
    """Return whether the arrays of two data classes are equal."""
    parts: Mapping[str, Any] = vars(other)
    return all(np.array_equal(getattr(one, field.name), parts[field.name]) for field in fields(one))
