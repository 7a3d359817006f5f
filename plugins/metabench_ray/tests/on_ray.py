"""Tests that run within the namespace of a Ray, started by `test_contract`."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from metabench_ray.executor import OnRay, RayConfig
from real_ray import wait_for

from metabench.contracts import Resources, Ticket, Watcher
from metabench.executors.job_folder import JobFolder, Submitted
from metabench.testing import ExecutorChecks


class TestOnRay(ExecutorChecks):
    executor = "ray"


@dataclass(frozen=True)
class Seeing:
    """A job that writes the GPUs that it sees, and waits for another one."""

    key: str
    place: Path
    cells: tuple[()] = ()
    after: tuple[()] = ()
    title: str = "a job that sees"

    def run(self, watcher: Watcher) -> Iterator[None]:
        (self.place / self.key).write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "unset"), encoding="ascii")
        deadline = time.monotonic() + 240
        while len(list(self.place.iterdir())) < 2 and time.monotonic() < deadline:
            watcher.should_stop()
            time.sleep(0.05)
        yield None


def test_each_job_sees_a_gpu_of_its_own(tmp_path: Path) -> None:
    place = tmp_path / "seen"
    place.mkdir()
    executor = OnRay(RayConfig())
    tickets = []
    for key in ("one", "other"):
        folder = JobFolder.of(tmp_path / "out", key)
        folder.write_job(Seeing(key, place), Submitted(title=key, cells=[], executor="ray", attempt=1))  # type: ignore[arg-type]
        tickets.append(Ticket(folder.path, 1, key, Resources(gpus=1)))
    handles = executor.submit(tickets)
    wait_for(lambda: {state.state for state in executor.alive(handles).values()} == {"ended"}, 400, "both jobs end")
    executor.close()
    assert sorted(path.read_text(encoding="ascii") for path in place.iterdir()) == ["0", "1"]
