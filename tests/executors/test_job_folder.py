"""The folder of a job: claims, heartbeats, and results that a killed driver left."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from metabench.contracts import Store
from metabench.executors import heartbeat
from metabench.executors.harvest import harvest
from metabench.executors.heartbeat import LOST_ELSEWHERE_SECONDS, LOST_SECONDS, Observer
from metabench.executors.job_files import Claim, Submitted
from metabench.executors.job_folder import JobFolder
from metabench.executors.worker import work
from scripted import Scripted, cell, tries


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    """Return the folder of a job of two cells, which has been submitted."""
    made = JobFolder.of(tmp_path / "out", "key")
    cells = [cell(0), cell(1)]
    made.write_job(
        Scripted("key", tmp_path / "log", cells),
        Submitted(title="a job", cells=[one.id for one in cells], executor="processes", attempt=1),
    )
    return made


def worked(folder: JobFolder, attempt: int = 1) -> str:
    """Run the job; return how its worker ended."""
    assert work(folder, attempt, lambda: False) == 0
    ended = folder.ended(attempt)
    assert ended is not None
    return ended.how


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_worker_writes_a_result_a_cell_and_gives_its_claim_back(folder: JobFolder) -> None:
    assert worked(folder) == "done"
    assert folder.results() == {cell(0).id: f"{cell(0).id}.1", cell(1).id: f"{cell(1).id}.1"}
    assert folder.claim() is None


def test_a_second_attempt_runs_only_the_cells_without_a_result(folder: JobFolder, tmp_path: Path) -> None:
    assert worked(folder) == "done"
    (folder.path / "results" / f"{cell(1).id}.1.json").unlink()
    assert worked(folder, 2) == "done"
    assert folder.results() == {cell(0).id: f"{cell(0).id}.1", cell(1).id: f"{cell(1).id}.2"}
    assert tries(tmp_path / "log") == {0: 1, 1: 2}


def test_the_first_complete_result_of_a_cell_counts(folder: JobFolder) -> None:
    for attempt in ("2", "10"):
        (folder.path / "results" / f"{cell(0).id}.{attempt}.json").write_text("{}")
    assert folder.results() == {cell(0).id: f"{cell(0).id}.2"}


def test_a_second_worker_ends_when_the_first_one_beats(folder: JobFolder, tmp_path: Path) -> None:
    other = Claim.of_this_process(1)
    assert folder.take(other)
    beating = heartbeat.Heartbeat(folder, other, lambda: None, lambda: None)
    try:
        assert worked(folder, 2) == "taken"
    finally:
        beating.end()
    assert folder.claim() == other
    assert not (tmp_path / "log").exists()


def test_the_claim_of_a_dead_process_is_replaced(folder: JobFolder) -> None:
    assert folder.take(Claim.of_this_process(1).model_copy(update={"pid": dead_process()}))
    assert worked(folder, 2) == "done"


@pytest.mark.parametrize(("host", "patience"), [("", LOST_SECONDS), ("elsewhere", LOST_ELSEWHERE_SECONDS)])
def test_a_worker_is_lost_when_its_counter_stands_still(folder: JobFolder, host: str, patience: float) -> None:
    claim = Claim.of_this_process(1)
    assert folder.take(claim.model_copy(update={"host": host or claim.host}))
    folder.beat(7)
    now = [0.0]
    observer = Observer(folder, lambda: now[0])
    observer.look()
    while not observer.is_lost:
        now[0] += 5
        observer.look()
    assert now[0] == patience + 5
    folder.beat(8)
    observer.look()
    assert not observer.is_lost


def test_time_in_which_the_observer_was_stopped_is_no_silence(folder: JobFolder) -> None:
    assert folder.take(Claim.of_this_process(1))
    now = [0.0]
    observer = Observer(folder, lambda: now[0])
    observer.look()
    now[0] = 10_000.0
    observer.look()
    assert not observer.is_lost


def test_results_that_a_killed_driver_left_become_records_once(folder: JobFolder, tmp_path: Path) -> None:
    assert worked(folder) == "done"
    store = Store(tmp_path / "out")
    with store.locked():
        assert harvest(store) == 2
        assert {record.cell for record in store.records()} == {cell(0).id, cell(1).id}
        assert not folder.path.exists()
        assert harvest(store) == 0


def test_a_folder_whose_worker_lives_stays(folder: JobFolder, tmp_path: Path) -> None:
    assert folder.take(Claim.of_this_process(1))
    store = Store(tmp_path / "out")
    with store.locked():
        harvest(store)
    assert folder.claim() is not None
    assert os.path.exists(folder.path / "job")
