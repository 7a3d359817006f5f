"""Floors that a suite asks for."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from metabench.planning.cells import Cell
from metabench.planning.plan import make_plan
from metabench.planning.suite_file import SuiteFile, resolve
from metabench.registry.manager import PluginManager

Plan = Callable[[str], list[Cell]]

BASE = """\
name: base
datasets: {glyphs: {}}
backbones: {conv4: {params: {channels: 4}}}
algorithms: {protonet: {}}
ways: [5]
shots: [1, 2]
train: {steps: 10}
floors: true
"""
FLOORS = ["nearest-pixel", "untrained"]


@pytest.fixture
def plan(suite_file: Callable[[str], SuiteFile], plugins: PluginManager) -> Plan:
    return lambda text: make_plan(*resolve(suite_file(text)), plugins)


def test_a_suite_has_floors_only_where_it_asks_for_them(plan: Plan) -> None:
    assert [cell.algorithm.label for cell in plan(BASE)] == 2 * ["protonet", *FLOORS]
    assert [cell.algorithm.label for cell in plan(BASE.replace("floors: true\n", ""))] == ["protonet"] * 2


def test_floors_are_marked_and_train_nothing(plan: Plan) -> None:
    cells = plan(BASE)
    assert [cell.floor for cell in cells] == 2 * [False, True, True]
    assert [cell.training.schedule is None for cell in cells] == 2 * [False, True, True]


def test_floors_change_no_other_cell(plan: Plan) -> None:
    with_floors = [cell.id for cell in plan(BASE) if not cell.floor]
    assert with_floors == [cell.id for cell in plan(BASE.replace("floors: true\n", ""))]


def test_an_algorithm_that_the_suite_names_is_no_floor(plan: Plan) -> None:
    cells = plan(BASE.replace("protonet: {}", "untrained: {}"))
    assert {cell.algorithm.label: cell.floor for cell in cells} == {"untrained": False, "nearest-pixel": True}


def test_floors_are_tested_once_on_a_dataset_that_several_train_for(plan: Plan) -> None:
    both = "datasets: {glyphs: {test_on: [glyphs, twin]}, twin: {use: glyphs, test_on: [twin, glyphs]}}"
    cells = plan(BASE.replace("datasets: {glyphs: {}}", both).replace("shots: [1, 2]", "shots: [1]"))
    assert [cell.dataset.label for cell in cells if not cell.floor] == ["glyphs", "twin", "twin", "glyphs"]
    assert [cell.dataset.label for cell in cells if cell.floor] == ["glyphs", "glyphs", "twin", "twin"]


def test_a_regression_has_no_floors(plan: Plan) -> None:
    text = BASE.replace("glyphs", "sinusoid").replace("protonet", "maml").replace("ways: [5]\n", "")
    assert {cell.algorithm.label for cell in plan(text)} == {"maml"}
