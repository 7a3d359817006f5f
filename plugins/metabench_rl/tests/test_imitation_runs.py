"""Runs of few-shot imitation, where Meta-World is installed: the same bits again, after SIGKILL, too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

pytest.importorskip("metaworld", reason="Meta-World is not installed: pip install 'metabench-rl[metaworld]'")

from metabench.contracts import Store

pytestmark = pytest.mark.slow

#: Seconds after which a test gives up waiting.
_DEADLINE = 600
#: Enough updates for a checkpoint, which is written every ten seconds.
SUITE = {
    "name": "imitate",
    "datasets": {
        "reach": {
            "use": "metaworld",
            "params": {"environments": ["reach"], "horizon": 80, "train": 4, "validation": 2, "test": 4, "episodes": 2},
        }
    },
    "backbones": {"mlp": {"params": {"hidden": [64, 64]}}},
    "algorithms": {"maml": {"params": {"inner_lr": 0.1, "test_inner_steps": {"grid": [0, 1]}}}},
    "shots": [1],
    "queries": 1,
    "train": {"steps": 1500, "meta_batch": 10, "validate_every": 500, "validation_episodes": 4},
    "eval": {"episodes": 4},
    "gate": {"tolerance": 5},
}


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from metabench.cli import script; script()", *arguments]
    environment = {**os.environ, "METABENCH_CACHE": str(folder / "cache")}
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )


def command(folder: Path, *arguments: str) -> str:
    """Return the output of a command that succeeds."""
    process = start(folder, *arguments)
    text = process.communicate(timeout=_DEADLINE)[0]
    assert process.returncode == 0, text
    return text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run, whole in `out`, and killed at a checkpoint and run again in `killed`."""
    folder = tmp_path_factory.mktemp("imitation")
    (folder / "suite.yaml").write_text(yaml.safe_dump(SUITE), encoding="utf-8")
    killed = folder / "killed"
    process = start(folder, "run", "suite.yaml", "--output", "killed", "--in-process")
    deadline = time.monotonic() + _DEADLINE
    while not list(killed.glob("checkpoints/*.pt")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "no checkpoint"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not list(killed.glob("cells/*.json"))
    for output in ("killed", "out"):
        command(folder, "run", "suite.yaml", "--output", output, "--in-process")
    return folder


def test_a_run_that_was_killed_ends_with_the_bits_of_one_that_was_not(folder: Path) -> None:
    stores = [Store(folder / output) for output in ("out", "killed")]
    records = [{record.algorithm: record for record in store.records()} for store in stores]
    assert set(records[0]) == set(records[1]) == {"maml[test_inner_steps=0]", "maml[test_inner_steps=1]"}
    for name, record in records[0].items():
        assert record.status == "ok", record.error
        figures = [store.episodes(of[name]).figures for store, of in zip(stores, records, strict=True)]
        assert set(figures[0]) == {"mse", "success"}
        for metric, values in figures[0].items():
            assert values.tobytes() == figures[1][metric].tobytes(), (name, metric)
        assert record.train is not None
        other = records[1][name].train
        assert other is not None
        assert record.train.validation == other.validation


def test_success_ranks_in_tables_gate_and_report(folder: Path) -> None:
    for record in Store(folder / "out").records():
        assert record.ranked_by == "success"
        assert record.primary is not None
        assert record.primary.value * 8 == round(record.primary.value * 8)  # of 4 goals × 2 episodes
    table = command(folder, "leaderboard", "out")
    assert "reach · 1-shot · mlp · 4 test episodes" in table
    assert "success %" in table
    assert "passed" in command(folder, "compare", "out", "killed")
    command(folder, "report", "out")
    assert "share of test episodes of a task in which its goal is reached" in (folder / "out/report.html").read_text(
        "utf-8"
    )
