"""Task families and algorithms, made by their names."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from metabench_rl.api import Algorithm, Setup, TaskFamily
from metabench_rl.cells import Cell
from metabench_rl.configs import ALGORITHMS
from metabench_rl.environments.names import family_of


def make_family(cell: Cell) -> TaskFamily:
    """Return the task family of a cell.

    Raises:
        CellFailed: a package that it needs is not installed, or it has no such environment.
    """
    found = family_of(cell.family)
    assert found is not None, "the suite was validated"
    target, arguments = found
    family: TaskFamily = _imported(target)(horizon=cell.horizon, **arguments)
    return family


def make_algorithm(cell: Cell, family: TaskFamily) -> Algorithm:
    """Return the untrained algorithm of a cell; its weights are a function of torch's generator."""
    _, target = ALGORITHMS[cell.algorithm]
    algorithm: Algorithm = _imported(target)(cell.params, Setup(family, cell.adapt.episodes, cell.adapt.rounds))
    return algorithm


def _imported(target: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)
