"""Select cells or records by their labels: ``--only KEY=A,B``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from metabench.errors import UsageError, nearest

_T = TypeVar("_T")


def parse_filters(only: Sequence[str]) -> dict[str, list[str]]:
    """Parse the values of ``--only``.

    ``["algorithm=maml,protonet"]`` becomes ``{"algorithm": ["maml", "protonet"]}``.

    Raises:
        UsageError: a filter is not of the form KEY=VALUE.
    """
    filters: dict[str, list[str]] = {}
    for text in only:
        key, equals, values = text.partition("=")
        if not equals or not values:
            raise UsageError(f"--only {text}: give KEY=VALUE, e.g. --only algorithm=maml")
        filters.setdefault(key.strip(), []).extend(value.strip() for value in values.split(","))
    return filters


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
            if label not in known:
                raise UsageError(
                    f"--only {key}={label}: {owner} has no such {key}{nearest(label, known)}. "
                    f"It has: {', '.join(known)}"
                )
    chosen = [
        thing for thing, values in labelled if all(values[key] in set(accepted) for key, accepted in only.items())
    ]
    if not chosen:
        filters = " and ".join(f"{key}={','.join(accepted)}" for key, accepted in only.items())
        raise UsageError(f"--only {filters}: nothing in {owner} matches all of these filters: drop one")
    return chosen
