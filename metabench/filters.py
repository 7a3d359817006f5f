"""Select cells or records by their labels: ``--only KEY=A,B``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

from metabench.errors import UsageError, nearest

_T = TypeVar("_T")

#: Most labels that an error message lists.
_LISTED = 20


def parse_filters(only: Sequence[str]) -> dict[str, list[str]]:
    """Parse the values of ``--only``.

    ``["algorithm=maml,protonet"]`` becomes ``{"algorithm": ["maml", "protonet"]}``. Commas within brackets belong to a
    label, as in ``maml[inner_lr=0.1,inner_steps=5]``.

    Raises:
        UsageError: a filter is not of the form KEY=VALUE.
    """
    filters: dict[str, list[str]] = {}
    for text in only:
        key, equals, values = text.partition("=")
        if not equals or not values:
            raise UsageError(f"--only {text}: give KEY=VALUE, e.g. --only algorithm=maml")
        filters.setdefault(key.strip(), []).extend(split_list(values))
    return filters


def split_list(values: str) -> list[str]:
    """Return the values of ``A,B``; commas within brackets belong to a value."""
    return [value.strip() for value in _split(values)]


def _split(values: str) -> list[str]:
    """Split at the commas outside brackets; at all of them where brackets do not match."""
    parts, depth = [""], 0
    for character in values:
        depth += (character == "[") - (character == "]")
        if depth < 0:
            break
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts if depth == 0 else values.split(",")


def selects(accepted: str, label: str) -> bool:
    """Return whether a filter's value selects a label: the same, or one of a grid of that name.

    ``maml`` selects ``maml`` and ``maml[inner_lr=0.1]``.
    """
    return label == accepted or (label.startswith(f"{accepted}[") and label.endswith("]"))


def passes(labels: Mapping[str, str], only: Mapping[str, Iterable[str]]) -> bool:
    """Return whether labels pass all filters."""
    return all(any(selects(value, labels[key]) for value in accepted) for key, accepted in only.items())


def hint(label: str, known: Sequence[str]) -> str:
    """Return the nearest of the known labels, and the first of them, for an error message."""
    grids = [other.partition("[")[0] for other in known if other.endswith("]")]
    more = f", … ({len(known)} in all)" if len(known) > _LISTED else ""
    return f"{nearest(label, [*known, *grids])}. It has: {', '.join(known[:_LISTED])}{more}"


class Labelled(Protocol):
    """A cell of a suite."""

    @property
    def labels(self) -> Mapping[str, str]:
        """Return its labels by key."""


_Cell = TypeVar("_Cell", bound=Labelled)


def select(cells: Sequence[_Cell], only: Mapping[str, Iterable[str]]) -> list[_Cell]:
    """Return the cells of a suite that pass the filters of ``--only``.

    Raises:
        UsageError: a key or label is unknown, or no cell passes all filters.
    """
    return choose(cells, lambda cell: cell.labels, only, "the suite")


def choose(
    things: Sequence[_T], labels: Callable[[_T], Mapping[str, str]], only: Mapping[str, Iterable[str]], owner: str
) -> list[_T]:
    """Return the things that pass all filters.

    Args:
        things: cells or records, at least one.
        labels: returns a thing's labels by key; all things have the same keys.
        only: the accepted labels of each filtered key.
        owner: noun for error messages, e.g. ``"the suite"``.

    Raises:
        UsageError: a key or label is unknown, or no thing passes all filters.
    """
    labelled = [(thing, labels(thing)) for thing in things]
    for key, accepted in only.items():
        keys = list(labelled[0][1])
        if key not in keys:
            raise UsageError(f"--only {key}=…: unknown filter{nearest(key, keys)}. Filters: {', '.join(keys)}")
        known = sorted({values[key] for _, values in labelled})
        for label in accepted:
            if not any(selects(label, other) for other in known):
                raise UsageError(f"--only {key}={label}: {owner} has no such {key}{hint(label, known)}")
    chosen = [thing for thing, values in labelled if passes(values, only)]
    if not chosen:
        filters = " and ".join(f"{key}={','.join(accepted)}" for key, accepted in only.items())
        raise UsageError(f"--only {filters}: nothing in {owner} matches all of these filters: drop one")
    return chosen
