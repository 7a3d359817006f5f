"""The part of the cells that is tested again."""

from __future__ import annotations

import pytest

from metabench.errors import UsageError
from metabench.verification.drawing import drawn, parse_part

CELLS = list(range(40))


@pytest.mark.parametrize(("text", "count"), [("3", 3), ("10%", 4), ("1%", 1), ("2.6%", 2), ("100", 40), ("all", 40)])
def test_a_part_is_a_number_or_a_share_of_the_cells_at_least_one(text: str, count: int) -> None:
    part = drawn(CELLS, parse_part(text), seed=1)
    assert len(set(part)) == count
    assert part == sorted(part)


def test_nothing_is_drawn_of_nothing() -> None:
    assert drawn([], 0.1, seed=1) == []


def test_the_seed_decides_which_cells_are_drawn() -> None:
    draws = [tuple(drawn(CELLS, 4, seed)) for seed in range(20)]
    assert draws == [tuple(drawn(CELLS, 4, seed)) for seed in range(20)]
    assert len(set(draws)) > 15


@pytest.mark.parametrize("text", ["0", "-1", "101%", "0%", "1.5", "nan", "many", "", "1e3"])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="give a number of cells, a share of them"):
        parse_part(text)
