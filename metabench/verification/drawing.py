"""Draw the cells that are tested again."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from typing import TypeVar

from metabench.errors import UsageError

_T = TypeVar("_T")


def parse_part(text: str) -> int | float | None:
    """Return a number of cells, a share of them, or None for all.

    Args:
        text: ``"3"``, ``"10%"`` or ``"all"``.

    Raises:
        UsageError: it is none of these, or no cell or more than all.
    """
    if text == "all":
        return None
    match = re.fullmatch(r"(?P<number>\d{1,9}(\.\d{1,9})?)(?P<percent>%?)", text)
    number = float(match["number"]) if match else 0.0
    if match is None or number <= 0 or (match["percent"] and number > 100) or (not match["percent"] and number % 1):
        raise UsageError(f"--cells {text}: give a number of cells, a share of them (10%), or all")
    return number / 100 if match["percent"] else int(number)


def drawn(cells: Sequence[_T], part: int | float | None, seed: int) -> list[_T]:
    """Return a random part of the cells, in their order; of a share, at least one.

    Args:
        cells: the cells.
        part: the result of `parse_part`.
        seed: the seed of the draw.
    """
    count = len(cells) if part is None else part if isinstance(part, int) else math.ceil(part * len(cells) - 1e-9)
    chosen = random.Random(seed).sample(range(len(cells)), min(count, len(cells)))
    return [cells[place] for place in sorted(chosen)]
