"""Runs on a real SLURM of two nodes, whose jobs are preempted, killed and lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest

from command_line import Distributions
from metabench.executors.job_folder import JobFolder
from metabench.records.store import Store
from slurm_cluster import Cluster, running_cluster, wait_until, why_not

pytest.importorskip("submitit", reason="submitit is not installed: no SLURM executor")
pytestmark = [pytest.mark.skipif(bool(why_not()), reason=why_not()), pytest.mark.slow]

#: Says each step to a file that its first weights name. A step takes a second until all may hurry.
LOGGED = """
    import os
    import time
    from metabench.specs import AlgorithmSpec, hookimpl
    from metabench_plugins.algorithms.protonet import ProtoNet

    class Logged(ProtoNet):
        def __init__(self, config, setup):
            super().__init__(config, setup)
            self.log = os.path.join(os.environ["LOGS"], str(float(next(self.parameters()).detach().sum())))

        def train_step(self, episodes):
            metrics = super().train_step(episodes)
            if "SLURM_JOB_ID" in os.environ:
                time.sleep(0.01 if os.path.exists(os.path.join(os.environ["LOGS"], "hurry")) else 1)
                with open(self.log, "a") as log:
                    print(time.time(), os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES"), file=log)
            return metrics

    @hookimpl
    def metabench_algorithms():
        return [AlgorithmSpec("logged", f"{__name__}:Logged", "")]
"""
SUITE = """\
name: logged
datasets: {glyphs: {}}
backbones: {conv4: {params: {channels: 2, downsample: stride}}}
algorithms: {logged: {}}
seeds: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
ways: [2]
shots: [1]
queries: 2
train: {steps: 300, validate_every: 100, validation_episodes: 3}
eval: {episodes: 10}
"""
JOBS = 12
METABENCH = [sys.executable, "-c", "from metabench.cli import script; script()"]
#: Seconds for anything that a busy computer does.
PATIENCE = 420.0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with running_cluster(tmp_path / "cluster") as cluster:
        yield cluster


class Drivers:
    """Starts `metabench run` on a cluster, again and again."""

    def __init__(self, cluster: Cluster, folder: Path, environment: dict[str, str]) -> None:
        self.environment = {**cluster.environment, **environment}
        self.folder = folder

    def start(self, *options: str) -> subprocess.Popen[str]:
        """Start a driver."""
        command = [*METABENCH, "run", "suite.yaml", "--output", "out", "--device", "cpu"]
        return subprocess.Popen(
            [*command, "--executor", "slurm.yaml", *options],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str) -> str:
        """Run a command; return what it prints."""
        command = [*METABENCH, *arguments]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def drivers(cluster: Cluster, tmp_path: Path, distributions: Distributions, glyphs_cache: Path) -> Drivers:
    distributions.add("logged", LOGGED)
    (tmp_path / "logs").mkdir()
    path = os.pathsep.join(filter(None, [str(distributions.folder), os.environ.get("PYTHONPATH")]))
    variables = {"PYTHONPATH": path, "METABENCH_CACHE": str(glyphs_cache), "LOGS": str(tmp_path / "logs")}
    return Drivers(cluster, tmp_path, {**variables, "OMP_NUM_THREADS": "1"})


def steps(folder: Path) -> dict[str, list[tuple[float, int, str]]]:
    """Return the steps of each training: time, process and CUDA_VISIBLE_DEVICES."""
    found = {}
    for path in (folder / "logs").glob("*.*"):
        lines = [line.split() for line in path.read_text().splitlines()]
        found[path.name] = [(float(at), int(pid), gpu) for at, pid, gpu in lines]
    return found


def train(folder: Path) -> int:
    """Return the number of trainings that have begun."""
    return sum(len(done) >= 3 for done in steps(folder).values())


def test_an_array_survives_preemption_kills_a_lost_node_and_its_driver(
    cluster: Cluster, drivers: Drivers, tmp_path: Path
) -> None:
    (tmp_path / "suite.yaml").write_text(SUITE)
    (tmp_path / "slurm.yaml").write_text("executor: slurm\ngpus: 1\nthreads: 1\ntimeout: 1h\npoll: 1s\n")
    (tmp_path / "here.yaml").write_text("executor: processes\njobs: 1\nthreads: 1\n")

    driver = drivers.start()
    wait_until(lambda: train(tmp_path) == 4, "four jobs train", PATIENCE)
    assert sorted(done[0][2] for done in steps(tmp_path).values()) == ["0", "0", "1", "1"]
    driver.kill()  # the first time
    driver.communicate()
    cluster.preempt("n2")
    wait_until(lambda: "Restarts=1" in cluster.call("scontrol", "show", "job"), "a job is preempted", PATIENCE)

    driver = drivers.start()
    wait_until(lambda: _is_up(drivers, driver), "the second driver adopts the jobs", PATIENCE)
    assert len(cluster.jobs()) == JOBS
    claims = [claim for folder in JobFolder.all(tmp_path / "out") if (claim := folder.claim()) is not None]
    os.kill(next(claim.pid for claim in claims if not claim.is_dead), signal.SIGKILL)
    wait_until(lambda: len(cluster.jobs()) == JOBS + 1, "the killed job is submitted again", PATIENCE)
    driver.kill()  # the second time
    driver.communicate()

    driver = drivers.start()
    wait_until(lambda: _is_up(drivers, driver), "the third driver adopts the jobs", PATIENCE)
    cluster.lose_node("n1")
    wait_until(lambda: cluster.states()["n1"].startswith("down"), "SLURM misses the node", PATIENCE)
    cluster.start_node("n1")
    (tmp_path / "logs" / "hurry").touch()

    def ended() -> bool:
        cluster.release()
        return driver.poll() is not None

    wait_until(ended, "the run ends", PATIENCE)
    out, _ = driver.communicate()
    assert driver.returncode == 0, out + cluster.logs()
    print(out)

    records = sorted(Store(tmp_path / "out").records(), key=lambda record: record.seed)
    assert [record.status for record in records] == ["ok"] * JOBS
    assert not (tmp_path / "out" / "jobs").exists()
    for training, done in steps(tmp_path).items():
        processes = [pid for pid, _ in groupby(pid for _, pid, _ in sorted(done))]
        assert len(processes) == len(set(processes)), f"two processes trained {training} at once"
        print(training, len(done), len(processes))
    assert sum(len({pid for _, pid, _ in done}) - 1 for done in steps(tmp_path).values()) >= 3

    local = [*METABENCH, "run", "suite.yaml", "--output", "here", "--device", "cpu"]
    subprocess.run(
        [*local, "--executor", "here.yaml"], cwd=tmp_path, env=drivers.environment, check=True, capture_output=True
    )
    expected = sorted(Store(tmp_path / "here").records(), key=lambda record: record.seed)
    assert [(record.cell, record.metrics) for record in records] == [(one.cell, one.metrics) for one in expected]


def _is_up(drivers: Drivers, driver: subprocess.Popen[str]) -> bool:
    """Return whether a driver has taken up the run."""
    assert driver.poll() is None, driver.communicate()[0]
    run = drivers.folder / "out" / "jobs" / "run.json"
    return f'"pid":{driver.pid}' in run.read_text()
