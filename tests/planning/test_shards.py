"""Parts of a suite for runs that see nothing of one another."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from metabench.errors import UsageError
from metabench.planning.cells import Cell
from metabench.planning.shards import parse_shard, shard
from metabench.planning.suite import Suite
from tiny import SUITE

Plan = Callable[..., tuple[Suite, list[Cell]]]
TEXT = SUITE.replace("shots: [2]", "shots: [1, 2]")


@pytest.mark.parametrize("count", [1, 2, 3])
def test_each_cell_is_in_one_part_and_trainings_stay_whole(cells_of: Plan, count: int) -> None:
    _, cells = cells_of("centroid", "fading", "shotwise", text=TEXT)
    parts = [shard(cells, number, count) for number in range(1, count + 1)]
    assert sorted(cell.id for part in parts for cell in part) == sorted(cell.id for cell in cells)
    trainings = [{cell.training.id for cell in part} for part in parts]
    assert sum(map(len, trainings)) == len(set.union(*trainings))
    assert max(map(len, parts)) - min(map(len, parts)) <= 2
    assert parts[0] == shard(list(cells), 1, count)


def test_weights_that_others_start_from_are_in_their_part(cells_of: Plan) -> None:
    text = SUITE.replace("algorithms: {{{algorithms}}}", "algorithms: {{centroid: {{}}, {algorithms}}}")
    _, cells = cells_of(text=text.replace("{algorithms}", "fading: {{init: centroid}}, relative: {{}}"))
    parts = [{cell.algorithm.label for cell in shard(cells, number, 2)} for number in (1, 2)]
    assert parts == [{"centroid", "fading"}, {"relative"}]


def test_more_parts_than_trainings_are_refused(cells_of: Plan) -> None:
    _, cells = cells_of("centroid", text=TEXT)
    trainings = len({cell.training.id for cell in cells})
    with pytest.raises(UsageError, match=f"the suite has {trainings} independent trainings"):
        shard(cells, 1, trainings + 1)


def test_cells_of_other_engines_are_divided_one_by_one() -> None:
    cells = [object() for _ in range(5)]
    assert [shard(cells, number, 2) for number in (1, 2)] == [cells[::2], cells[1::2]]


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2"])
def test_a_wrong_part_is_told(text: str) -> None:
    with pytest.raises(UsageError, match=r"give I/N with I from 1 to N, e\.g\. --shard 2/8"):
        parse_shard(text)
