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
#: An algorithm that is broken in some way, or good.
TRIAL = """
    import os
    import signal
    import time
    from typing import Literal
    from metabench.api import AlgorithmConfig
    from metabench.specs import AlgorithmSpec, hookimpl
    from metabench_plugins.algorithms.protonet import ProtoNet

    class TrialConfig(AlgorithmConfig):
        fault: Literal["none", "raises", "exits", "killed", "late", "nan"] = "none"
        number: int = 0

    class Trial(ProtoNet):
        Config = TrialConfig

        def __init__(self, config, setup):
            super().__init__(config, setup)
            self.fault = config.fault

        def train_step(self, episodes):
            if self.fault == "raises":
                raise ValueError("on purpose")
            if self.fault == "exits":
                os._exit(3)
            if self.fault == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.fault == "late":
                time.sleep(10**6)
            return super().train_step(episodes)

        def episode_loss(self, episode):
            loss = super().episode_loss(episode)
            return loss * float("nan") if self.fault == "nan" else loss

    @hookimpl
    def metabench_algorithms():
        return [AlgorithmSpec("trial", f"{__name__}:Trial", "")]
"""
#: What the record of each broken cell says.
REASONS = {
    "raises": "ValueError: on purpose",
    "exits": "exit code 3",
    "killed": "signal 9",
    "late": "limit of 20 s",
    "nan": "nan",
}
GOOD = 195
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


def test_five_broken_cells_of_200_fail_alone(drivers: Drivers, distributions: Distributions, tmp_path: Path) -> None:
    distributions.add("trial", TRIAL)
    entries = [f"  {fault}: {{use: trial, params: {{fault: {fault}}}}}" for fault in REASONS]
    entries += [f"  good-{number}: {{use: trial, params: {{number: {number}}}}}" for number in range(GOOD)]
    suite = SUITE.replace("algorithms: {logged: {}}", "\n".join(["algorithms:", *entries]))
    suite = suite.replace("seeds: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]\n", "")
    suite = suite.replace("steps: 300, validate_every: 100", "steps: 1, validate_every: 1")
    (tmp_path / "suite.yaml").write_text(suite + "limits: {training: 20s}\n")
    (tmp_path / "slurm.yaml").write_text("executor: slurm\narray: 4\ngpus: 0\npoll: 1s\n")

    driver = drivers.start("--retries", "1")
    out, _ = driver.communicate(timeout=1800)
    assert driver.returncode == 1, out
    records = {record.algorithm: record for record in Store(tmp_path / "out").records()}
    assert {name: record.status for name, record in records.items()} == {
        **dict.fromkeys(REASONS, "failed"),
        **{f"good-{number}": "ok" for number in range(GOOD)},
    }
    errors = {fault: records[fault].error or "" for fault in REASONS}
    assert [fault for fault, reason in REASONS.items() if reason.lower() not in errors[fault].lower()] == [], errors
