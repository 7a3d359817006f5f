"""What a run cost, where it ran and beside what; accuracy per cost; times that cannot be compared."""

from __future__ import annotations

import csv
import hashlib
import io
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from command_line import Command
from metabench.records.record import EpisodeResults, Record
from metabench.records.store import Store

Store_ = Callable[..., None]


@pytest.fixture
def store(
    metabench: Command, make_record: Callable[..., Record], make_results: Callable[..., EpisodeResults]
) -> Store_:
    """Return a function that adds a method to the run in the folder `run`."""

    def add(algorithm: str, mean: float, seconds: float, **changes: Any) -> None:
        usage = {"cpu_seconds": seconds, "wall_seconds": seconds / 2}
        train = {
            **{"steps": 10, "episodes": 40, "seconds": 2.0, "episodes_per_second": 20.0, "best_step": 5},
            **{"validation": [], "usage": usage},
        }
        evaluation = {"seconds": 1.0, "episodes_per_second": 10.0, "latency_ms": {"p50": 1.0, "p95": 2.0}}
        accuracy = {"mean": mean, "ci95": 0.01, "std": 0.05, "episodes": 100}
        record = make_record(
            accuracy=accuracy,
            algorithm=algorithm,
            cell=hashlib.sha256(algorithm.encode()).hexdigest()[:16],
            **{"train": train, "eval": {**evaluation, "usage": usage}, **changes},
        )
        Store(Path("run")).write(record, make_results(mean))

    return add


def circumstances(
    host: str = "here", niceness: int = 0, load: float = 0.5, executor: str = "processes"
) -> dict[str, Any]:
    return {
        "circumstances": {
            "host": host,
            "executor": executor,
            "processors": 2,
            "niceness": niceness,
            "load_start": load,
            "load_end": load,
        }
    }


def test_a_run_records_what_it_used_and_where(metabench: Command) -> None:
    assert metabench("run", "small.yaml", "--profile", "smoke", "--in-process", "--output", "run").code == 0
    for record in Store(Path("run")).records():
        assert record.train is not None
        assert record.eval is not None
        for usage in (record.train.usage, record.eval.usage):
            assert usage is not None
            assert usage.cpu_seconds > 0
            assert usage.wall_seconds > 0
        assert record.circumstances is not None
        assert record.circumstances.host == platform.node()
        assert record.circumstances.load_start is not None
        assert record.suite_version is None
        assert record.data is not None
        assert record.data.licence == "MIT"
    out = metabench("leaderboard", "run", "--columns", "algorithm,CPU s,wall s,J,points/min,front").out
    assert "licence of glyphs: MIT" in out
    assert out.count("yes") >= 1


def test_accuracy_per_cost_is_above_chance_and_the_front_is_marked(store: Store_, metabench: Command) -> None:
    store("cheap", 0.6, 30)
    store("dear", 0.8, 300)
    store("beaten", 0.5, 60)
    out = metabench("leaderboard", "run", "--columns", "algorithm,accuracy,CPU s,points/min,front").out
    rows = {
        line.split()[0]: line.split()[4:] for line in out.splitlines() if line.startswith(("cheap", "dear", "beat"))
    }
    # Points of training and test together, above a chance of 20 %.
    assert rows == {"cheap": ["60", "40", "yes"], "dear": ["600", "6", "yes"], "beaten": ["120", "15"]}


def test_accuracy_per_cost_is_shown_on_demand_only(store: Store_, metabench: Command) -> None:
    store("one", 0.6, 30)
    assert "points/min" not in metabench("leaderboard", "run").out
    (row,) = csv.DictReader(io.StringIO(metabench("leaderboard", "run", "--format", "csv").out))
    assert (row["cpu_seconds"], row["wall_seconds"], row["joules"]) == ("60.0", "30.0", "")


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (circumstances("there"), "other hosts (here, there)"),
        (circumstances(executor="a-cluster"), "other executors (a-cluster, processes)"),
        (circumstances(niceness=19), "other niceness (0, 19)"),
        (circumstances(load=7.0), "other loads (0.5 to 7.0)"),
        (circumstances(load=1.9), ""),
        (circumstances(), ""),
        ({}, ""),
    ],
)
def test_a_table_says_where_its_times_cannot_be_compared(
    store: Store_, metabench: Command, other: dict[str, Any], words: str
) -> None:
    store("one", 0.6, 30, **circumstances())
    store("two", 0.7, 30, **other)
    out = metabench("leaderboard", "run").out
    assert ("not comparable within this table" in out) == bool(words)
    assert words in out
    assert metabench("report", "run").code == 0
    assert ("not comparable within this table" in Path("run/report.html").read_text()) == bool(words)


def test_methods_of_different_machines_are_on_fronts_of_their_own(store: Store_, metabench: Command) -> None:
    store("here", 0.8, 30, **circumstances())
    store("there", 0.6, 60, **circumstances("there"))
    out = metabench("leaderboard", "run", "--columns", "algorithm,accuracy,front").out
    assert out.count("yes") == 2


def test_the_report_compares_costs_on_one_machine_only(store: Store_, metabench: Command) -> None:
    store("cheap", 0.6, 30)
    store("good", 0.8, 600)
    store("slow elsewhere", 0.5, 900, **circumstances("there"))
    Path("run/suite.yaml").write_text("name: suite\n")
    assert metabench("report", "run").code == 0
    page = Path("run/report.html").read_text()
    front = "the Pareto front of each machine (cheap, good, slow elsewhere)"
    assert f"against processor seconds of training and test; dashed: {front}" in page


def test_the_report_takes_wall_seconds_where_a_record_has_no_processor_seconds(
    store: Store_, make_record: Callable[..., Record], make_results: Callable[..., EpisodeResults], metabench: Command
) -> None:
    store("new", 0.6, 30)
    Store(Path("run")).write(make_record(0.8, algorithm="old", cell="f" * 16), make_results(0.8))
    Path("run/suite.yaml").write_text("name: suite\n")
    assert metabench("report", "run").code == 0
    assert "against seconds of training and test; dashed: the Pareto front" in Path("run/report.html").read_text()


def test_the_report_says_the_interval_about_the_method_from_three_seeds_on(
    make_record: Callable[..., Record], make_results: Callable[..., EpisodeResults], metabench: Command
) -> None:
    for seed in range(3):
        record = make_record(0.6 + seed / 100, seed=seed, cell=f"{seed:016}", identity={"seed": seed})
        Store(Path("run")).write(record, make_results(0.6 + seed / 100, noise=seed))
    Path("run/suite.yaml").write_text("name: suite\n")
    assert metabench("report", "run").code == 0
    assert "between seeds, ± " in (page := Path("run/report.html").read_text())
    assert " about the method)" in page
