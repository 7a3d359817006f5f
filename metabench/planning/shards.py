"""Divide the cells of a suite among runs that see nothing of one another: ``--shard I/N``."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from typing import Any, TypeVar

from metabench.errors import UsageError
from metabench.planning.cells import Cell, Training

_Cell = TypeVar("_Cell")


def parse_shard(text: str) -> tuple[int, int]:
    """Return number and count of ``"2/8"``.

    Raises:
        UsageError: it is none of 1/N to N/N.
    """
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    number, count = map(int, match.groups()) if match else (0, 0)
    if not 1 <= number <= count:
        raise UsageError(f"--shard {text}: give I/N with I from 1 to N, e.g. --shard 2/8")
    return number, count


def shard(cells: Sequence[_Cell], number: int, count: int) -> list[_Cell]:
    """Return the cells of one of several parts, in their order.

    Cells stay together that share a training or need one another's weights. The largest group goes first, each to the
    smallest part so far: parts depend on the suite alone.

    Args:
        cells: all cells of a suite.
        number: number of the part, from 1.
        count: number of parts.

    Raises:
        UsageError: there are fewer groups than parts.
    """
    groups = _groups(cells)
    if len(groups) < count:
        raise UsageError(
            f"--shard {number}/{count}: the suite has {len(groups)} independent trainings: give a smaller N"
        )
    parts: list[list[int]] = [[] for _ in range(count)]
    for group in sorted(groups, key=len, reverse=True):
        min(parts, key=len).extend(group)
    return [cells[index] for index in sorted(parts[number - 1])]


def _groups(cells: Sequence[Any]) -> list[list[int]]:
    """Return the indices of the cells that must stay together, by their first one."""
    leaders: dict[Hashable, Hashable] = {}

    def leader(key: Hashable) -> Hashable:
        while leaders.setdefault(key, key) != key:
            key = leaders[key]
        return key

    keys: list[Hashable] = []
    for index, cell in enumerate(cells):
        trainings = _trainings(cell.training) if isinstance(cell, Cell) else [index]
        keys.append(trainings[0])
        for other in trainings[1:]:
            leaders[leader(other)] = leader(trainings[0])
    groups: dict[Hashable, list[int]] = {}
    for index, key in enumerate(keys):
        groups.setdefault(leader(key), []).append(index)
    return list(groups.values())


def _trainings(training: Training) -> list[Hashable]:
    """Return the id of a training, and of all whose weights it needs."""
    return [training.id, *(key for needed in training.needs for key in _trainings(needed))]
