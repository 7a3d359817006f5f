"""`metabench tune` from the command line; searches themselves are tested in tests/tuning."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from command_line import Command, assert_refused
from kept_results import KeptResults
from metabench.analysis.standings import make_tables
from metabench.analysis.tables import Table
from metabench.planning.suite_file import read_suite, resolve
from metabench.records.record import EpisodeResults, Record
from metabench.reporting.remarks import remarks
from metabench.reporting.rendering import render_markdown

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_search_prints_its_table_and_writes_a_suite_that_runs(metabench: Command) -> None:
    pytest.importorskip("optuna", reason="the extra tune is not installed")
    only = ("--only", "algorithm=protonet", "--device", "cpu")
    ended = metabench("tune", "small.yaml", "--profile", "smoke", "--trials", "2", "--output", "out", *only)
    assert ended.code == 0, ended.err
    assert "protonet 2/2: " in ended.err
    (line,) = [line for line in ended.out.splitlines() if line.startswith("protonet ")]
    assert line.split()[1] == "2"
    assert "test it: metabench run out/suite.yaml --output out" in ended.out
    suite, _ = resolve(read_suite(Path("out/suite.yaml")))
    assert suite.name == "small-tuned"
    assert suite.algorithms["protonet"].tuned is not None
    assert metabench("run", "out/suite.yaml", "--output", "out", *only).code == 0


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--trials", "1"], ["--trials", "1"]),
        (["--trials", "many"], ["--trials", "many"]),
        ([], ["--trials"]),
        (["--trials", "2", "--only", "algorithm=protonte"], ["did you mean 'protonet'?"]),
        (["--trials", "2", "--profile", "smok"], ["did you mean 'smoke'?"]),
        (["--trials", "2", "--seed", "-1"], ["--seed"]),
    ],
)
def test_wrong_options_are_refused(metabench: Command, arguments: list[str], parts: list[str]) -> None:
    pytest.importorskip("optuna", reason="the extra tune is not installed")
    assert_refused(metabench("tune", "small.yaml", *arguments), parts)
    assert not Path("runs").exists()


def test_a_search_without_optuna_is_refused(metabench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert_refused(metabench("tune", "small.yaml", "--trials", "2"), ["pip install 'metabench[tune]'"])
    assert not Path("runs").exists()


@pytest.fixture
def table_of(make_record: Callable[..., Record], make_results: Callable[..., EpisodeResults]) -> Callable[..., Table]:
    """Return a function that makes a table of methods with numbers of trials."""

    def make(**trials: int | None) -> Table:
        records = [
            make_record(0.9 - i / 10, algorithm=name, cell=f"{i:016}", trials=count)
            for i, (name, count) in enumerate(trials.items())
        ]
        (table,) = make_tables(
            records, KeptResults(lambda record: make_results(record.primary and record.primary.value))
        )
        return table

    return make


def test_a_table_shows_the_trials_of_its_methods(table_of: Callable[..., Table]) -> None:
    lines = render_markdown([table_of(one=20, two=0)]).splitlines()
    heading, _, *rows = [[cell.strip() for cell in line.split("|")] for line in lines if line.startswith("|")]
    trials = {row[heading.index("algorithm")]: row[heading.index("trials")] for row in rows}
    assert (trials["one"], trials["two"]) == ("20", "0")
    assert "trials" not in render_markdown([table_of(one=None)])


@pytest.mark.parametrize(
    ("trials", "said"),
    [
        ({"one": 20, "two": 10, "three": 0}, "one 20, two 10"),
        ({"one": 20, "two": None}, "one 20, two not tuned"),
        ({"one": 20, "two": 20, "three": 0}, ""),
        ({"one": None, "two": None}, ""),
        ({"one": 0, "two": None}, ""),
    ],
)
def test_a_remark_says_where_effort_was_unequal(
    table_of: Callable[..., Table], trials: dict[str, int | None], said: str
) -> None:
    lines = [line for line in remarks(table_of(**trials)) if line.startswith("tuned with unequal")]
    assert [line.partition("effort: ")[2] for line in lines] == [said] * bool(said)
