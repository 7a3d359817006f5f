"""Workers, tables, gate and report of the core serve these records."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from cells_for_tests import SMALL

START = "from metabench.cli import script; script()"


def command(folder: Path, *arguments: str) -> str:
    """Return the output of a command that succeeds."""
    done = subprocess.run(
        [sys.executable, "-c", START, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder with the results of a run with two workers."""
    folder = tmp_path_factory.mktemp("served")
    command(
        folder, "run", str(SMALL), "--output", "out", "--jobs", "2", "--only", "algorithm=maml-ppo,pretrained,scripted"
    )
    return folder


def test_the_leaderboard_has_rounds_costs_and_paired_differences(finished: Path) -> None:
    table = command(
        finished, "leaderboard", "out", "--columns", "rank,algorithm,return before,return,vs best,env steps,action ms"
    )
    assert "point2d · 2 × 3 episodes · 3,000 env steps · 6 test episodes" in table
    first, second = (line for line in table.splitlines() if "maml-ppo  " in line or "pretrained  " in line)
    assert "±" in second
    assert first.split()[0] in ("1", "1=")
    assert "scripted: an oracle, which sees the goals" in (finished / "out" / "leaderboard.md").read_text("utf-8")


def test_the_gate_passes_a_run_beside_itself(finished: Path) -> None:
    assert "passed: 3 same" in command(finished, "compare", "out", "out")


def test_the_report_shows_paths_in_the_plane(finished: Path) -> None:
    command(finished, "report", "out")
    (page,) = (finished / "out").glob("*.html")
    text = page.read_text("utf-8")
    assert "Paths in blue begin in the middle" in text
    assert text.count("data:image/png;base64") >= 3
