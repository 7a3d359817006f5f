"""What is searched: the methods of a suite, their search spaces and their own values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metabench.errors import UsageError
from metabench.planning.cells import Cell
from metabench.planning.sources import SOURCES
from metabench.planning.suite import Suite
from metabench.registry.configs import search_space, test_time_names
from metabench.registry.manager import PluginManager
from metabench.specs import SearchRange


@dataclass(frozen=True)
class Search:
    """The search of one method.

    Attributes:
        label: label of the algorithm in the suite.
        space: what is searched, by name of a parameter; of a method that trains nothing, parameters of the test only.
        own: the suite's values of these parameters, or the defaults.
    """

    label: str
    space: Mapping[str, SearchRange]
    own: Mapping[str, Any]


def cells_of(label: str, suite: Suite, cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells of an algorithm, those of all limits of its training data among them."""

    def belongs(cell: Cell) -> bool:
        found = cell.labels["algorithm"]
        return found == label or (found not in suite.algorithms and found.startswith(f"{label}["))

    return [cell for cell in cells if belongs(cell)]


def trains_itself(cell: Cell) -> bool:
    """Return whether the training of a cell is that of its own algorithm."""
    return cell.is_trained_by_itself and cell.training.schedule is not None


def searches_of(suite: Suite, cells: Sequence[Cell], plugins: PluginManager) -> list[Search]:
    """Return the searches of a suite; an algorithm comes after those whose weights it uses.

    Args:
        suite: the resolved suite.
        cells: the chosen cells.
        plugins: the provider of the classes.

    Raises:
        UsageError: no algorithm declares anything to search.
        PluginError: a class cannot be imported, or declares a search of what is none of its parameters.
    """
    searches = {}
    for label in suite.algorithms:
        chosen = [cell for cell in cells_of(label, suite, cells) if not cell.floor]
        if chosen:
            algorithm = chosen[0].algorithm
            config = plugins.algorithm_class(algorithm.name).Config
            space, at_test = search_space(config), test_time_names(config)
            if not any(trains_itself(cell) for cell in chosen):
                space = {name: searched for name, searched in space.items() if name in at_test}
            own = {name: algorithm.params[name] for name in space if name in algorithm.params}
            searches[label] = Search(label, space, own)
    if not any(search.space for search in searches.values()):
        names = ", ".join(searches) or "none"
        raise UsageError(
            f"there is nothing to search: no algorithm of '{suite.name}' declares a search_space ({names}); see "
            "docs/plugins.md"
        )
    ordered: dict[str, Search] = {}

    def add(label: str) -> None:
        if label in ordered or label not in searches:
            return
        for kind in SOURCES:
            add(getattr(suite.algorithms[label], kind) or "")
        ordered[label] = searches[label]

    for label in searches:
        add(label)
    return list(ordered.values())
