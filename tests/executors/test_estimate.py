from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from metabench.executors.driver import LoadedDataset
from metabench.executors.estimate import expected_seconds, expected_times
from metabench.planning.plan import Cell
from metabench.planning.suite import Suite
from metabench.registry.manager import PluginManager
from tiny import CPU, SUITE

pytestmark = pytest.mark.usefixtures("one_thread")

Plan = Callable[..., tuple[Suite, list[Cell]]]

#: So many that no difference between two measurements of speed could make up for them.
MANY = 10**9


@pytest.mark.parametrize(("name", "counted"), [("centroid", False), ("relative", True)])
def test_queries_alone_are_expected_of_transductive_algorithms_only(
    name: str, counted: bool, cells_of: Plan, data: LoadedDataset, everything: PluginManager
) -> None:
    _, (cell,) = cells_of(name)
    without, with_many = (
        expected_seconds(replace(cell, test=replace(cell.test, inductive_episodes=count)), data.splits, CPU, everything)
        for count in (0, MANY)
    )
    assert (with_many > 1000 * without) is counted


def test_a_time_is_expected_of_an_algorithm_that_cannot_do_with_a_single_query(
    cells_of: Plan, data: LoadedDataset, everything: PluginManager
) -> None:
    _, (cell,) = cells_of("sociable")
    assert expected_seconds(cell, data.splits, CPU, everything) > 0


def test_more_steps_and_episodes_are_expected_to_take_longer(
    cells_of: Plan, data: LoadedDataset, everything: PluginManager
) -> None:
    _, (cell,) = cells_of("centroid")
    longer = [
        replace(cell, train=replace(cell.train, steps=MANY)),
        replace(cell, test=replace(cell.test, episodes=MANY)),
    ]
    usual = expected_seconds(cell, data.splits, CPU, everything)
    assert all(expected_seconds(other, data.splits, CPU, everything) > 1000 * usual for other in longer)


def test_of_cells_that_share_a_training_one_is_expected_to_train(
    cells_of: Plan, data: LoadedDataset, everything: PluginManager
) -> None:
    text = SUITE.replace("shots: [2]", "shots: [1, 2, 3]").replace(
        "train: {{steps: 8", f"train: {{{{shot: 2, steps: {MANY}"
    )
    _, cells = cells_of("centroid", text=text.replace("validate_every: 2", f"validate_every: {MANY}"))
    first, *others = expected_times(cells, {"blots": data.splits}, CPU, everything).values()
    assert len(others) == 2
    assert all(first > 1000 * other > 0 for other in others)
