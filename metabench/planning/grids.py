"""Expand the grids of a suite: one entry for each combination of values."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

from metabench.errors import shown
from metabench.planning.suite_text import KeyPath
from metabench.text import value_text

if TYPE_CHECKING:  # `suite` imports this module
    from metabench.planning.suite_file import SuiteFile

#: Most entries that the grids of a suite make in all; the stored suite, which lists them, stays small enough to read.
MAX_ENTRIES = 400

_GRID = "grid"
#: The keys of an entry that hold parameters, by section of the suite.
_PARAMETERS = {"datasets": ("params",), "backbones": ("params",), "algorithms": ("params", "backbone")}


@dataclass(frozen=True)
class _Grid:
    """The values of one parameter.

    Attributes:
        path: the keys of the parameter within its entry, e.g. ``("params", "inner_lr")``.
        values: its values.
    """

    path: tuple[str, str]
    values: list[Any]

    def named(self, value: Any) -> str:
        """Return the part of a label that names a value, e.g. ``"inner_lr=0.1"``."""
        key, name = self.path
        return f"{'' if key == 'params' else f'{key}.'}{name}={value_text(value)}"


def expand_grids(file: SuiteFile) -> SuiteFile:
    """Replace each entry that has grids by labelled entries.

    ``maml: {params: {inner_lr: {grid: [0.1, 0.2]}}}`` becomes ``maml[inner_lr=0.1]`` and ``maml[inner_lr=0.2]``.
    Errors in these point to the lines of the grid.

    Args:
        file: the suite file, with a profile merged in.

    Raises:
        SuiteError: a grid is misplaced, is empty or repeats a value, or there are too many entries.
    """
    data, places, made = dict(file.data), dict(file.places), 0
    for section, entries in file.data.items():
        if section not in _PARAMETERS or not isinstance(entries, dict):
            _refuse_grids(file, (section,), entries)
            continue
        data[section] = expanded = {}
        for label, entry in entries.items():
            grids = _grids(file, section, label, entry)
            if not grids:
                expanded[label] = entry
                continue
            made += math.prod(len(grid.values) for grid in grids)
            if made > MAX_ENTRIES:
                message = (
                    f"the grids of the suite make {made} entries up to here: give fewer values (at most {MAX_ENTRIES})"
                )
                raise file.error((section, label), message)
            below = {path[2:]: place for path, place in file.places.items() if path[:2] == (section, label)}
            for point in product(*(range(len(grid.values)) for grid in grids)):
                chosen = list(zip(grids, point, strict=True))
                new = f"{label}[{','.join(grid.named(grid.values[i]) for grid, i in chosen)}]"
                if new in entries or new in expanded:
                    raise file.error((section, label), f"its grid makes a second entry '{shown(new, 160)}': rename one")
                expanded[new] = _with_values(entry, label, {grid.path: grid.values[i] for grid, i in chosen})
                places.update({(section, new, *path): place for path, place in below.items()})
                for grid, i in chosen:
                    places[(section, new, *grid.path)] = below[(*grid.path, _GRID, i)]
    return replace(file, data=data, places=places)


def _grids(file: SuiteFile, section: str, label: str, entry: Any) -> list[_Grid]:
    """Return the grids of an entry.

    Raises:
        SuiteError: a grid is misplaced, is empty or repeats a value.
    """
    if not isinstance(entry, dict) or _is_grid(entry):
        _refuse_grids(file, (section, label), entry)
        return []
    grids = []
    for key, value in entry.items():
        if key not in _PARAMETERS[section] or not isinstance(value, dict):
            _refuse_grids(file, (section, label, key), value)
            continue
        for name, parameter in value.items():
            place = (section, label, key, name)
            if _is_grid(parameter):
                grids.append(_Grid((key, name), _values(file, (*place, _GRID), parameter[_GRID])))
            else:
                _refuse_grids(file, place, parameter)
    return grids


def _values(file: SuiteFile, place: KeyPath, values: Any) -> list[Any]:
    """Return the values of a grid.

    Raises:
        SuiteError: they are no list, none, or not different; or one is a grid.
    """
    if not isinstance(values, list) or not values:
        raise file.error(place, "a grid is a list of at least one value, e.g. {grid: [0.1, 0.2]}")
    _refuse_grids(file, place, values)
    seen = set()
    for i, value in enumerate(values):
        # 1 and 1.0 are one value of a parameter, 1 and true are two.
        text = json.dumps(json.loads(json.dumps(value), parse_int=float))
        if text in seen:
            raise file.error((*place, i), f"the grid has the value {shown(value_text(value))} twice: remove one")
        seen.add(text)
    return values


def _with_values(entry: Mapping[str, Any], label: str, values: Mapping[tuple[str, str], Any]) -> dict[str, Any]:
    """Return an entry with one value of each grid; its name is that of the entry with the grids."""
    changed = {**entry, "use": label if entry.get("use") is None else entry["use"]}
    for (key, name), value in values.items():
        changed[key] = {**changed[key], name: value}
    return changed


def _is_grid(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {_GRID}


def _refuse_grids(file: SuiteFile, place: KeyPath, value: Any) -> None:
    """Refuse grids in a value that is no parameter.

    Raises:
        SuiteError: it is a grid, or contains one.
    """
    if _is_grid(value):
        raise file.error(
            place, "a grid is the whole value of one parameter, in params: or an algorithm's backbone:, not of this"
        )
    children: Iterator[tuple[str | int, Any]] = iter(())
    if isinstance(value, dict):
        children = iter(value.items())
    elif isinstance(value, list):
        children = iter(enumerate(value))
    for key, inner in children:
        _refuse_grids(file, (*place, key), inner)
