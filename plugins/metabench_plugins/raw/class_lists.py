"""Class lists of published splits."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

#: The splits, in the order of packs.
SPLITS = ("train", "val", "test")


def class_list(name: str) -> Mapping[str, Sequence[str]]:
    """Return the classes of train, val and test of a published split.

    Args:
        name: a key of ``class_lists.json``, where each list carries its source.
    """
    lists = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
    return {split: lists[name][split].split() for split in SPLITS}
