"""An engine of a plugin, unlike the built-in one: bandits without images, classes or torch."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from bandits import BANDITS, SUITE
from command_line import Command, Distributions, assert_refused
from metabench.records.store import Store


@pytest.fixture
def bandits(distributions: Distributions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file of a suite of the engine, in the current folder."""
    distributions.add("bandits", BANDITS)
    monkeypatch.chdir(tmp_path)
    suite = tmp_path / "explored.yaml"
    suite.write_text(SUITE, encoding="utf-8")
    return suite


@pytest.mark.parametrize("options", [(), ("--jobs", "2"), ("--in-process",)], ids=["worker", "two workers", "here"])
def test_an_engine_of_a_plugin_runs_its_suites(metabench: Command, bandits: Path, options: tuple[str, ...]) -> None:
    ended = metabench("run", str(bandits), "--output", "out", *options)
    assert ended.code == 0, ended.err
    records = {record.algorithm: record for record in Store(Path("out")).records()}
    greedy, first = records["greedy"].primary, records["first"].primary
    assert greedy is not None
    assert first is not None
    assert greedy.value > first.value + 0.2
    assert f"{greedy.value:.3f} ± {greedy.ci95:.3f}" in ended.out
    assert "2 bandits" in ended.err
    kept = metabench("run", str(bandits), "--output", "out", *options)
    assert kept.code == 0, kept.err
    assert kept.err.count("kept ") == 2


def test_the_records_of_an_engine_are_ranked_paired_and_judged(metabench: Command, bandits: Path) -> None:
    assert metabench("run", str(bandits), "--output", "out", "--seeds", "0,1").code == 0
    table = pd.read_csv("out/leaderboard.csv").set_index("algorithm")
    assert list(table["rank"].groupby(level=0).first()[["greedy", "first"]]) == [1, 2]
    rows = json.loads(metabench("leaderboard", "out", "--format", "json").out)
    paired = next(row["versus_best"] for row in rows if row["algorithm"] == "first")
    assert paired["p"] < 0.01
    judged = metabench("compare", "out", "out")
    assert judged.code == 0, judged.err
    assert "passed: 4 same" in judged.out
    assert metabench("report", "out").code == 0


def test_tables_show_the_setting_and_the_costs_that_only_an_engine_knows(metabench: Command, bandits: Path) -> None:
    ended = metabench("run", str(bandits), "--output", "out")
    assert "bandits · 20 pulls · table · 40 test episodes" in ended.out
    assert "done    greedy · bandits · table · 20 pulls · seed 0" in ended.err
    chosen = metabench("leaderboard", "out", "--columns", "algorithm,pulls").out
    assert re.search(r"greedy\s+20$", chosen, re.MULTILINE)
    assert "pulls: pulls of an arm before the test" in chosen
    assert "20 pulls" in Path(metabench("report", "out", "--output", "page.html").out.split()[-1]).read_text("utf-8")


def test_a_job_of_an_engine_that_ends_its_worker_fails_alone(metabench: Command, bandits: Path) -> None:
    bandits.write_text(SUITE.replace("[greedy, first]", "[exits, greedy]"), encoding="utf-8")
    ended = metabench("run", str(bandits), "--output", "out", "--workers")
    assert ended.code == 1
    status = {record.algorithm: (record.status, record.error) for record in Store(Path("out")).records()}
    assert status["greedy"] == ("ok", None)
    assert status["exits"][0] == "failed"
    assert "exit code 3" in str(status["exits"][1])


def test_a_dry_run_and_validate_ask_the_engine(metabench: Command, bandits: Path) -> None:
    lines = metabench("run", str(bandits), "--dry-run", "--only", "algorithm=greedy").out
    assert lines == "greedy with 20 pulls, seed 0\n1 cell\n"
    assert metabench("validate", str(bandits)).out == f"{bandits}: no profile: 2 cells, valid\n"


def test_an_engine_refuses_a_suite_with_the_line(metabench: Command, bandits: Path) -> None:
    bandits.write_text(SUITE.replace("pulls: 20", "pulls: many"), encoding="utf-8")
    assert_refused(metabench("run", str(bandits)), ["explored.yaml:4: pulls: the number of pulls is missing"])


def test_an_unknown_engine_is_refused_with_the_nearest_name(metabench: Command, bandits: Path) -> None:
    bandits.write_text(SUITE.replace("engine: bandits", "engine: bandit"), encoding="utf-8")
    named = "explored.yaml:2: engine: no engine 'bandit' (did you mean 'bandits'?). Available: bandits, few-shot"
    assert_refused(metabench("validate", str(bandits)), [named])


def test_no_list_of_plugins_hides_the_few_shot_engine(
    metabench: Command, bandits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METABENCH_PLUGINS", "bandits")
    assert "few-shot" in metabench("list", "engines").out
    monkeypatch.setenv("METABENCH_PLUGINS", "-metabench")
    assert "few-shot" in metabench("list", "engines").out
    assert "Trains few-shot learners" in metabench("list", "few-shot").out
