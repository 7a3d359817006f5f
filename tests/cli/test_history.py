"""A series of runs: steps, small losses that add up, and the gate with a pinned base."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from command_line import Command
from metabench.analysis.history import History, make_history
from metabench.records.record import EpisodeResults, Record
from metabench.records.runs import Runs
from metabench.records.store import Store

Make = Callable[..., Record]
#: Writes a run of each list of accuracies by algorithm; returns the names of the runs.
Write = Callable[..., list[str]]


@pytest.fixture
def write(metabench: Command, make_record: Make) -> Write:
    """Return a function that stores runs in the current folder."""

    def store(runs: Sequence[dict[str, np.ndarray | None]]) -> list[str]:
        names = []
        for number, cells in enumerate(runs):
            name = f"v{number}"
            shutil.rmtree(name, ignore_errors=True)
            for i, (algorithm, values) in enumerate(cells.items()):
                settings = {
                    "algorithm": algorithm,
                    "cell": f"{i:016x}",
                    "finished": f"2026-01-{number + 1:02}T00:00:00+00:00",
                }
                if values is None:
                    Store(Path(name)).write(make_record(None, **settings))
                    continue
                accuracy = {"mean": values.mean(), "ci95": 0.01, "std": 0.1, "episodes": len(values)}
                record = make_record(accuracy=accuracy, **settings)
                groups = np.zeros((len(values), 5), dtype=np.int64)
                Store(Path(name)).write(record, EpisodeResults({"accuracy": values}, groups))
            names.append(name)
        return names

    return store


def read(names: Sequence[str], pinned: int = 0) -> History:
    return make_history([Runs.read([Path(name)]) for name in names], names, pinned)


def episodes(mean: float, seed: int, number: int = 600) -> np.ndarray:
    """Return accuracies on shared episodes of a network of its own."""
    difficulty = np.random.default_rng(0).normal(0, 0.08, number)
    noise = np.random.default_rng(seed).normal(0, 0.04, number)
    return np.clip(mean + difficulty + noise - noise.mean(), 0, 1)


def falling(runs: int = 10, by: float = 0.004) -> list[dict[str, np.ndarray | None]]:
    """Return runs that each lose a little, of three methods."""
    names = ("maml", "protonet", "reptile")
    return [{name: episodes(0.75 - by * run, 100 * run + i + 1) for i, name in enumerate(names)} for run in range(runs)]


def test_small_losses_pass_each_gate_and_fail_the_pinned_one(write: Write, metabench: Command) -> None:
    names = write(falling())
    for before, after in pairwise(names):
        assert metabench("compare", before, after).code == 0
    ended = metabench("compare", names[-2], names[-1], "--pinned", names[0])
    assert ended.code == 1
    assert "WORSE  maml · glyphs · 5-way 1-shot · conv4 · seed 0 · since v0" in ended.out
    assert "3 worse" in ended.out


def test_a_history_finds_losses_that_no_step_shows(write: Write) -> None:
    history = read(write(falling()))
    for course in history.courses:
        assert course.steps == []
        assert course.drift is not None
        assert course.drift.since_pinned is not None
        assert course.drift.since_pinned.difference.mean == pytest.approx(-0.036, abs=0.001)
        assert course.drifted_at is not None
        assert 2 <= course.drifted_at <= 6


def test_a_single_step_is_found_where_it_is(write: Write) -> None:
    means = [0.75] * 4 + [0.72] * 4
    history = read(write([{"maml": episodes(mean, run)} for run, mean in enumerate(means)]))
    (course,) = history.courses
    assert [point.run for point in course.steps] == [4]
    assert course.drifted_at == 4


def test_unchanged_runs_seldom_show_anything(write: Write) -> None:
    found = 0
    generator = np.random.default_rng(0)
    for _ in range(40):
        runs = [{"maml": 0.7 + generator.normal(0, 0.05, 200)} for _ in range(4)]
        (course,) = read(write(runs)).courses
        found += bool(course.steps) or any(p.since_pinned and p.since_pinned.is_clear for p in course.points)
    assert found <= 6, "of 40 histories, 2 by chance"


def test_a_run_without_results_is_named_and_stepped_over(write: Write, metabench: Command) -> None:
    names = write([{"maml": episodes(0.75, 1)}, {"maml": None}, {"maml": episodes(0.7, 2)}])
    (course,) = read(names).courses
    assert course.gaps == {1: "failed: it broke"}
    assert [point.run for point in course.steps] == [2]
    out = metabench("history", *names).out
    assert "v1: failed: it broke" in out
    assert "STEP   maml · glyphs · 5-way 1-shot · conv4 · seed 0: accuracy −5.00" in out
    assert "from v0 to v2" in out


def test_the_order_is_given_or_of_time_and_the_pinned_run_is_one_of_them(write: Write, metabench: Command) -> None:
    names = write([{"maml": episodes(0.7 + 0.03 * run, run)} for run in range(3)])
    found = json.loads(metabench("history", *reversed(names), "--format", "json").out)
    assert (found["runs"], found["pinned"]) == (["v2", "v1", "v0"], "v2")
    found = json.loads(metabench("history", *reversed(names), "--order", "finished", "--format", "json").out)
    assert (found["runs"], found["pinned"]) == (["v0", "v1", "v2"], "v0")
    ended = metabench("history", *names, "--pinned", "v1", "--format", "json")
    assert json.loads(ended.out)["cells"][0]["points"][0]["since_pinned"]["since"] == "v1"
    assert metabench("history", *names, "--pinned", "v9").code == 2
    assert metabench("history", names[0]).code == 2


def test_a_page_has_plots_and_loads_nothing(write: Write, metabench: Command) -> None:
    names = write(falling(3))
    assert metabench("history", *names, "--output", "history.html").code == 0
    page = Path("history.html").read_text(encoding="utf-8")
    assert "src=" not in page.split("</script>")[-1]
    assert "<link" not in page
    assert page.count("data-root-id") == 3
    Path("mine.html").write_text("mine")
    assert metabench("history", *names, "--output", "mine.html").code == 2
    assert Path("mine.html").read_text() == "mine"
