from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import EntryPoint
from typing import Any

import pytest

import frozen
from metabench.api import Algorithm
from metabench.engine.learner import build
from metabench.engine.progress import Interrupted
from metabench.errors import SuiteError
from metabench.executors.loading import LoadedDataset
from metabench.executors.rehearsal import rehearse
from metabench.planning.cells import Cell, Training
from metabench.planning.plan import make_plan
from metabench.planning.suite import Suite
from metabench.planning.suite_file import SuiteFile, resolve
from metabench.registry.manager import PluginManager
from tiny import CPU, SUITE, Watching

pytestmark = pytest.mark.usefixtures("one_thread")

Plan = Callable[..., tuple[Suite, list[Cell]]]

#: Number of steps or episodes that outweighs any noise of the measured speed.
MANY = 10**9


def with_steps(cell: Cell, steps: int) -> Cell:
    """Return the cell with another length of its training."""
    schedule = cell.training.schedule
    assert schedule is not None
    return replace(cell, training=replace(cell.training, schedule=replace(schedule, steps=steps)))


def seconds(cell: Cell, data: LoadedDataset, plugins: PluginManager) -> float:
    return rehearse([cell], {"blots": data.splits}, CPU, plugins)[cell.id]


@pytest.mark.parametrize(("name", "counted"), [("centroid", False), ("relative", True)])
def test_only_transductive_algorithms_are_expected_to_be_tested_inductively(
    name: str, counted: bool, cells_of: Plan, data: LoadedDataset, everything: PluginManager
) -> None:
    _, (cell,) = cells_of(name)
    without, with_many = (
        seconds(replace(cell, test=replace(cell.test, inductive_episodes=count)), data, everything)
        for count in (0, MANY)
    )
    assert (with_many > 1000 * without) is counted


def test_an_algorithm_that_cannot_predict_a_single_query_has_an_expected_time(
    cells_of: Plan, data: LoadedDataset, everything: PluginManager
) -> None:
    _, (cell,) = cells_of("sociable")
    assert seconds(cell, data, everything) > 0


def test_more_steps_and_episodes_are_expected_to_take_longer(
    cells_of: Plan, data: LoadedDataset, everything: PluginManager
) -> None:
    _, (cell,) = cells_of("centroid")
    longer = [
        with_steps(cell, MANY),
        replace(cell, test=replace(cell.test, episodes=MANY)),
    ]
    usual = seconds(cell, data, everything)
    assert all(seconds(other, data, everything) > 1000 * usual for other in longer)


def test_one_cell_of_a_shared_training_is_expected_to_train(
    cells_of: Plan, data: LoadedDataset, everything: PluginManager
) -> None:
    text = SUITE.replace("shots: [2]", "shots: [1, 2, 3]").replace(
        "train: {{steps: 8", f"train: {{{{shot: 2, steps: {MANY}"
    )
    _, cells = cells_of("centroid", text=text.replace("validate_every: 2", f"validate_every: {MANY}"))
    first, *others = rehearse(cells, {"blots": data.splits}, CPU, everything).values()
    assert len(others) == 2
    assert all(first > 1000 * other > 0 for other in others)


def test_cells_that_differ_in_seeds_or_steps_are_built_once(
    cells_of: Plan, data: LoadedDataset, everything: PluginManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[Training] = []

    def counting(training: Training, *arguments: Any) -> Algorithm:
        built.append(training)
        return build(training, *arguments)

    monkeypatch.setattr("metabench.executors.pace.build", counting)
    _, cells = cells_of("centroid", "relative", text=SUITE.replace("queries: 4", "queries: 4\nseeds: [0, 1, 2]"))
    longer = [with_steps(cell, 9) for cell in cells]
    expected = rehearse([*cells, *longer], {"blots": data.splits}, CPU, everything)
    assert len(expected) == 12
    assert [training.algorithm.label for training in built] == ["centroid", "relative"]


def test_the_expected_time_is_unknown_if_a_cell_fails(
    cells_of: Plan, data: LoadedDataset, everything: PluginManager
) -> None:
    _, cells = cells_of("centroid", "faulty")
    assert rehearse(cells, {"blots": data.splits}, CPU, everything) == {}


def test_a_cell_that_will_be_skipped_takes_no_time(
    cells_of: Plan, data: LoadedDataset, everything: PluginManager
) -> None:
    _, cells = cells_of("centroid", "choosy")
    runs, skipped = rehearse(cells, {"blots": data.splits}, CPU, everything).values()
    assert runs > skipped == 0


def test_a_refused_cell_is_found_even_after_a_failing_cell(
    cells_of: Plan, data: LoadedDataset, everything: PluginManager
) -> None:
    _, cells = cells_of("faulty", "contradictory")
    with pytest.raises(SuiteError, match=r"contradictory · blots .*: parameters that contradict each other"):
        rehearse(cells, {"blots": data.splits}, CPU, everything)


def test_methods_on_a_frozen_backbone_are_timed_without_embedding_their_episodes(
    suite_file: Callable[[str], SuiteFile], data: LoadedDataset
) -> None:
    plugins = PluginManager([EntryPoint(name, f"{name}:PLUGIN", "metabench") for name in ("tiny", "frozen")])
    text = frozen.SUITE.format(backbone="projected", algorithm="onfeatures").replace("shots: [2]", "shots: [1, 2, 3]")
    cells = make_plan(*resolve(suite_file(text)), plugins)
    frozen.Projected.calls.clear()
    assert len(rehearse(cells, {"blots": data.splits}, CPU, plugins)) == 3
    # A part of the test split is embedded once, after one image; no episode of 15 images or more is.
    assert len(frozen.Projected.calls) == 2


def test_a_rehearsal_stops_after_a_setup_and_says_how_many_there_are(
    cells_of: Plan, data: LoadedDataset, everything: PluginManager
) -> None:
    _, cells = cells_of("centroid", "relative")
    watcher = Watching("setup", 1)
    with pytest.raises(Interrupted):
        rehearse(cells, {"blots": data.splits}, CPU, everything, watcher=watcher)
    assert watcher.phases == [("setup", 2, 0)]
