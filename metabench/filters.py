"""Choosing some of many things by their labels: ``--only KEY=A,B``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from metabench.errors import UsageError, nearest

_T = TypeVar("_T")


def parse_filters(only: Sequence[str]) -> dict[str, list[str]]:
    """Turn ``["algorithm=maml,protonet", …]`` into ``{"algorithm": ["maml", "protonet"], …}``.

    Raises:
        UsageError: one is not of the form KEY=VALUE.
    """
    filters: dict[str, list[str]] = {}
    for text in only:
        key, equals, values = text.partition("=")
        if not equals or not values:
            raise UsageError(f"--only {text}: give KEY=VALUE, e.g. --only algorithm=maml")
        filters.setdefault(key.strip(), []).extend(value.strip() for value in values.split(","))
    return filters


def choose(
    things: Sequence[_T], labels: Callable[[_T], Mapping[str, str]], only: Mapping[str, Iterable[str]], whose: str
) -> list[_T]:
    """Return the things whose labels are among those asked for.

    Args:
        things: to choose from, at least one.
        labels: of a thing, by key; all things have the same keys.
        only: for each key that matters, the accepted labels.
        whose: the things are, for a message.

    Raises:
        UsageError: a key or a label is unknown, or nothing has all that is asked for.
    """
    values = [labels(thing) for thing in things]
    for key, wanted in only.items():
        keys = list(values[0])
        if key not in keys:
            raise UsageError(f"--only {key}=…: unknown filter{nearest(key, keys)}. Filters: {', '.join(keys)}")
        known = sorted({value[key] for value in values})
        for word in wanted:
            if word not in known:
                raise UsageError(
                    f"--only {key}={word}: {whose} has no such {key}{nearest(word, known)}. It has: {', '.join(known)}"
                )
    chosen = [
        thing
        for thing, value in zip(things, values, strict=True)
        if all(value[key] in set(wanted) for key, wanted in only.items())
    ]
    if not chosen:
        asked = " and ".join(f"{key}={','.join(wanted)}" for key, wanted in only.items())
        raise UsageError(f"--only {asked}: {whose} has nothing that is all of this")
    return chosen
