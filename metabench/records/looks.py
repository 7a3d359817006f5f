"""Count how often test episodes were looked at."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import Field, RootModel

from metabench.records.record import Record


class Looks(RootModel[dict[str, Annotated[int, Field(ge=1)]]]):
    """The number of looks by `look_key`, of an output directory."""


def look_key(record: Record) -> str:
    """Return a key of the tests that count together.

    They are of one algorithm, whatever its parameters, on one backbone, with one training seed, trained on the same
    dataset and the same limits of it, on the same test episodes: a choice among them is a choice by the test.
    """
    algorithm = record.identity.get("algorithm")
    name = algorithm.get("name") if isinstance(algorithm, Mapping) else None
    episodes: Any = record.data.episodes if record.data else [record.identity.get("test"), record.dataset_fingerprint]
    parts = [
        name or record.algorithm,
        record.backbone,
        record.trained_on or record.dataset,
        record.identity.get("subset"),
        record.seed,
        episodes,
    ]
    return json.dumps(parts, sort_keys=True)


def most_looks(records: Iterable[Record]) -> dict[str, int]:
    """Return the largest number of looks by `look_key`, of the records that know it."""
    most: dict[str, int] = {}
    for record in records:
        if record.looks is not None:
            key = look_key(record)
            most[key] = max(most.get(key, 0), record.looks)
    return most
