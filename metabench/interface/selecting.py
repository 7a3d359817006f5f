"""Filters of cells, as Python writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

#: Accepted labels by key, e.g. ``{"algorithm": "maml", "shot": [1, 5]}``.
Filters = Mapping[str, str | int | Sequence[str | int]]


def accepted(only: Filters | None) -> dict[str, list[str]]:
    """Return the accepted labels of each key, as `metabench.filters.choose` takes them."""
    return {
        key: [str(value)] if isinstance(value, (str, int)) else [str(part) for part in value]
        for key, value in (only or {}).items()
    }
