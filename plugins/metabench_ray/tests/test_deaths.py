"""A real Ray of three nodes, whose workers, nodes and drivers are killed."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from real_ray import RealRay, wait_for
from runs import SUITE, Run

from metabench.executors.job_folder import JobFolder

CELLS = 60


@pytest.mark.slow
def test_no_record_is_lost_or_torn_whatever_is_killed(ray: RealRay, tmp_path: Path) -> None:
    options = ["--seeds", ",".join(map(str, range(CELLS))), "--retries", "20"]
    plain = Run(tmp_path / "plain", SUITE, options)
    assert plain.finish(1800) == 0
    run = Run(tmp_path / "killed", SUITE, options, ray)
    driver = run.start()

    def kill_driver() -> None:
        nonlocal driver
        driver.kill()
        driver.wait()
        driver = run.start()

    kills: list[Callable[[], None]] = [
        kill
        for turn in range(3)
        for kill in (
            lambda: kill_process_of_a_job(run),
            lambda: kill_ray_worker(ray),
            lambda: kill_process_of_a_job(run),
            lambda: replace_node(ray),
            kill_driver,
        )
    ] + [lambda: kill_ray_worker(ray)]
    for number, kill in enumerate(kills):
        awaited = 3 * number
        wait_for(partial(has_come_to, awaited, run, lambda: driver), 900, f"{awaited} records")
        assert driver.poll() is None, run.errors
        kill()
    assert driver.wait(1800) == 0, run.errors
    records = run.records
    assert len(records) == CELLS
    assert {record.status for record in records.values()} == {"ok"}
    assert [cell for cell, record in records.items() if not run.store.is_complete(record)] == []
    assert run.digits == plain.digits
    assert leftovers(run.store.path) == []
    assert run.errors.count("\nLOST") >= 5, run.errors  # the others hit a job of a driver that was killed itself


def has_come_to(count: int, run: Run, driver: Callable[[], subprocess.Popen[bytes]]) -> bool:
    """Return whether a run has so many records, or its driver has ended."""
    return run.count >= count or driver().poll() is not None


def running_jobs(run: Run) -> list[int]:
    """Return the ids of the processes of the jobs that run."""
    claims = [folder.claim() for folder in JobFolder.all(run.store.path)]
    return [claim.pid for claim in claims if claim is not None and not claim.is_dead]


def kill_process_of_a_job(run: Run) -> None:
    first, *_ = wait_for(lambda: running_jobs(run), 300, "a job runs")
    with suppress(ProcessLookupError):
        os.kill(first, signal.SIGKILL)


def kill_ray_worker(ray: RealRay) -> None:
    first, *_ = wait_for(lambda: ray.processes("ray::metabench"), 300, "a task runs")
    with suppress(ProcessLookupError):
        os.kill(first, signal.SIGKILL)


def replace_node(ray: RealRay) -> None:
    """Kill a node that is not the head; another one joins."""
    ray.kill_node(ray.nodes[-1])
    ray.add_node()


def leftovers(folder: Path) -> list[str]:
    """Return the files of jobs and half-written files that are left."""
    return [str(path) for path in folder.rglob("*") if path.suffix == ".tmp" or "jobs" in path.parts]
