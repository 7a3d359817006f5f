"""Columns of the long table: chosen by name, and empty where they would repeat a value."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kept_results import KeptResults
from metabench.analysis.standings import make_tables
from metabench.analysis.tables import Table
from metabench.errors import UsageError
from metabench.records.record import EpisodeResults, Record
from metabench.reporting.leaderboard import chosen_columns
from metabench.reporting.rendering import render_html, render_latex, render_markdown, render_text


@pytest.fixture
def tables(make_record: Callable[..., Record], make_results: Callable[..., EpisodeResults]) -> list[Table]:
    """Return a table of an inductive method and a transductive one."""
    alone = {"mean": 0.3, "ci95": 0.02, "std": 0.1, "episodes": 100}
    same = {"mean": 0.9, "ci95": 0.0123, "std": 0.1, "episodes": 100}
    records = [
        make_record(0.9, algorithm="inductive", cell="a" * 16, inductive_accuracy=same),
        make_record(0.8, algorithm="transductive", cell="b" * 16, transductive=True, inductive_accuracy=alone),
    ]
    return make_tables(records, KeptResults(lambda record: make_results(record.primary and record.primary.value)))


def test_columns_are_chosen_by_name_and_in_order(tables: list[Table]) -> None:
    columns = chosen_columns(tables, ["algorithm", "rank", "p50 ms", "accuracy"])
    assert [column.title for column in columns] == ["algorithm", "#", "p50 ms", "accuracy %"]
    for render in (render_markdown, render_latex, render_html):
        text = render(tables, columns=columns)
        assert "peak MiB" not in text
        assert text.index("algorithm") < text.index("p50 ms") < text.index("accuracy")
    text = render_text(tables, width=20, columns=columns)
    assert text.splitlines()[1].split() == ["algorithm", "#", "p50", "ms", "accuracy", "%"], "chosen ones all fit"


def test_an_unknown_column_is_refused_with_the_nearest(tables: list[Table]) -> None:
    with pytest.raises(
        UsageError, match=r"no column 'acuracy' \(did you mean 'accuracy'\?\)\. Columns: rank, algorithm"
    ):
        chosen_columns(tables, ["acuracy"])


def test_alone_says_nothing_of_an_inductive_method(tables: list[Table]) -> None:
    columns = chosen_columns(tables, ["algorithm", "alone"])
    lines = [line.split() for line in render_text(tables, columns=columns).splitlines()]
    assert ["inductive"] in lines
    assert ["transductive", "30.00", "±", "2.00"] in lines
    (inductive,) = (row for row in tables[0].rows if row.name == "inductive")
    assert inductive.inductive == pytest.approx(0.9), "it is known, but no news"
