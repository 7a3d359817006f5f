"""Many cells with broken ones among them, and processes that are killed at random: nothing is lost or twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from counting import CountedWork, Counting, Silent, many_cells, values_of
from metabench.contracts import RunOptions
from metabench.executors.driver import run_work
from metabench.executors.forks import start_is_cheap
from metabench.records.record import Record
from metabench.records.store import Store
from metabench.registry.manager import PluginManager

ROOT = Path(__file__).parents[2]
#: What the record of each broken cell says.
REASONS = {
    "raises": "ValueError: a bug",
    "exits": "exit code 3",
    "killed": "killed",
    "slow": "longer than its limit",
    "nan": "finite",
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks on this system"),
]


def check(records: list[Record], jobs: list[Counting], store: Store) -> None:
    """Check 195 right records and five with a reason."""
    assert len(records) == 200
    failed = {record.algorithm.removeprefix("broken-"): record.error or "" for record in records if record.error}
    assert failed.keys() == REASONS.keys()
    assert [fault for fault, reason in REASONS.items() if reason not in failed[fault]] == [], failed
    right = {record.cell: store.episodes(record).figures["score"].tolist() for record in records if not record.error}
    cells = [cell for job in jobs for cell in job.cells if not job.key.startswith("broken")]
    assert right == {cell.id: values_of(cell).tolist() for cell in cells}


@pytest.mark.skipif(not start_is_cheap(), reason="no fork server (Linux, Python ≥ 3.11): each job would take seconds")
def test_five_broken_cells_of_200_fail_alone_in_worker_processes(tmp_path: Path) -> None:
    jobs, store = many_cells(tmp_path), Store(tmp_path / "out")
    with store.locked():
        options = RunOptions(jobs=2)
        records = run_work(CountedWork(jobs), PluginManager.from_environment(), store, Silent(), options)
    check(records, jobs, store)


def test_five_broken_cells_of_200_fail_alone_in_four_processes_that_share_them(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "shared_kills.py"), "--broken", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert json.loads(ended.stdout)["codes"] == [[1], [1], [1], [1]], ended.stderr
    store = Store(tmp_path / "out")
    check(store.records(), many_cells(tmp_path), store)


def test_processes_that_share_a_folder_and_are_killed_at_random_lose_nothing(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "shared_kills.py"), "--kills", "5", "--trainings", "20"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert json.loads(ended.stdout)["kills"] == [5, 5, 5, 5]
