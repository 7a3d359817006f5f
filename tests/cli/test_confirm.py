"""Looks at the test, and its confirmation on other episodes."""

from __future__ import annotations

from pathlib import Path

import pytest

from command_line import SUITE, Command
from metabench.records.record import Record
from metabench.records.store import Store

pytestmark = pytest.mark.usefixtures("one_thread", "few_latencies")

RUN = ("run", "small.yaml", "--profile", "smoke", "--output", "out", "--in-process")


def records() -> tuple[dict[str, Record], dict[str, Record]]:
    """Return the records of the suite and those that confirm them, by algorithm."""
    found = Store(Path("out")).records()
    return (
        {record.algorithm: record for record in found if not record.confirms},
        {record.algorithm: record for record in found if record.confirms},
    )


def change(old: str, new: str) -> None:
    assert old in SUITE
    Path("small.yaml").write_text(SUITE.replace(old, new), encoding="utf-8")


def test_the_same_weights_are_tested_once_more_on_other_episodes(metabench: Command) -> None:
    ended = metabench(*RUN, "--confirm")
    assert ended.code == 0, ended.err
    suite, confirming = records()
    assert suite.keys() == confirming.keys() == {"protonet", "siamese"}
    for name, record in suite.items():
        again = confirming[name]
        assert again.confirms == record.cell
        assert again.weights == record.weights
        assert (again.looks, record.looks) == (1, 1)
        assert again.data is not None
        assert record.data is not None
        assert again.data.episodes != record.data.episodes
        assert {**again.identity, "test": None} == {**record.identity, "test": None}
    assert "confirmed %" in ended.out
    table = [line for line in ended.out.splitlines() if "protonet" in line or "siamese" in line]
    assert sum(line.count("±") >= 2 for line in table) == 2
    assert metabench("leaderboard", "out", "--layout", "methods-by-shots").out.count("confirmed") == 2


def test_a_later_run_keeps_what_was_confirmed_and_confirms_it_no_second_time(metabench: Command) -> None:
    assert metabench(*RUN).code == 0
    before = records()[0]
    assert metabench(*RUN, "--confirm").code == 0
    suite, confirming = records()
    assert {name: record.finished for name, record in suite.items()} == {
        name: record.finished for name, record in before.items()
    }
    for flag in ([], ["--confirm"]):
        assert "confirmed %" in metabench(*RUN, *flag).out
        assert records() == (suite, confirming)
    change("steps: 4", "steps: 5")
    assert "confirmed %" not in metabench(*RUN).out
    assert records()[1] == {}, "another training is not confirmed"


def test_every_change_that_is_tested_on_the_same_episodes_is_a_look(metabench: Command) -> None:
    assert metabench(*RUN).code == 0
    assert "looks" not in metabench("leaderboard", "out").out
    change("pairs: 8", "pairs: 6")
    ended = metabench(*RUN)
    suite, _ = records()
    assert (suite["siamese"].looks, suite["protonet"].looks) == (2, 1)
    assert "looks" in ended.out
    change("eval: {episodes: 10}", "eval: {episodes: 12}")
    metabench(*RUN)
    suite, _ = records()
    assert (suite["siamese"].looks, suite["protonet"].looks) == (3, 2), "further episodes are a look"
    metabench(*RUN)
    assert records()[0]["protonet"].looks == 2, "a kept record is none"
    metabench(*RUN, "--fresh")
    assert (records()[0]["protonet"].looks, records()[0]["siamese"].looks) == (3, 4)
    change("eval: {episodes: 10}", "eval: {episodes: 10, seed: 7}")
    metabench(*RUN)
    assert records()[0]["protonet"].looks == 1, "other episodes"


def test_the_gate_compares_the_cells_of_the_suite_only(metabench: Command) -> None:
    assert metabench(*RUN, "--confirm").code == 0
    assert metabench("run", "small.yaml", "--profile", "smoke", "--output", "plain", "--in-process").code == 0
    for base, candidate in (("out", "plain"), ("plain", "out")):
        ended = metabench("compare", base, candidate)
        assert "missing" not in ended.out
        assert ended.out.count("protonet") == metabench("compare", "plain", "plain").out.count("protonet")


def test_damaged_counts_are_refused_before_a_wrong_one_is_written(metabench: Command) -> None:
    Path("out").mkdir()
    Path("out/looks.json").write_text("[1", encoding="utf-8")
    ended = metabench(*RUN)
    assert ended.code == 2
    assert "looks.json is damaged: delete it, and counting begins again" in ended.err
    assert records() == ({}, {})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--columns", "acc"], ["no column 'acc'"]),
        (["--columns", "accuracy", "--format", "csv"], ["has all columns"]),
        (["--columns", "accuracy", "--metrics", "nll"], ["leave out --metrics"]),
        (["--layout", "methods-by-shots", "--format", "json"], ["leave out --layout"]),
        (["--layout", "methods-by-shots", "--sort", "nll"], ["--sort", "long table"]),
        (["--layout", "methods-by-shots", "--across-datasets"], ["leave out --layout"]),
        (["--across-datasets"], ["needs several", "glyphs"]),
    ],
)
def test_options_that_mean_nothing_together_are_refused(
    metabench: Command, arguments: list[str], words: list[str]
) -> None:
    assert metabench(*RUN, "--only", "algorithm=protonet").code == 0
    ended = metabench("leaderboard", "out", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert all(word in ended.err for word in words), ended.err
