"""The contract of executors on a real Ray, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_ray import RealRay
from runs import SUITE, Run

from metabench.errors import UsageError


@pytest.fixture
def gpus(ray: RealRay) -> Iterator[RealRay]:
    """Yield a Ray one of whose nodes claims to have two GPUs."""
    node = ray.add_node(processors=2, gpus=2)
    yield ray
    ray.kill_node(node)


@pytest.mark.slow
def test_the_executor_keeps_the_contract_and_gives_each_job_a_gpu(gpus: RealRay, tmp_path: Path) -> None:
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "on_ray")]
    environment = {**gpus.environment, "RAY_ADDRESS": gpus.address}
    done = subprocess.run(
        gpus.command([*tests, str(Path(__file__).parent / "on_ray.py")]),
        env=environment,
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 passed" in done.stdout


@pytest.mark.slow
def test_without_an_address_a_ray_starts_here_and_ends_with_the_run(ray: RealRay, tmp_path: Path) -> None:
    before = ray.processes("raylet/raylet")
    run = Run(tmp_path, SUITE, ["--executor", "ray"], ray)
    assert run.finish(600) == 0, run.errors
    assert [record.circumstances.executor for record in run.records.values() if record.circumstances] == ["ray"]
    assert [record.circumstances.niceness for record in run.records.values() if record.circumstances] == [0]
    assert set(ray.processes("raylet/raylet")) <= set(before)


def test_the_address_of_a_client_is_refused() -> None:
    pytest.importorskip("ray", reason="ray is not installed: pip install ray")
    from metabench_ray.executor import OnRay, RayConfig

    with pytest.raises(UsageError, match="HOST:PORT"):
        OnRay(RayConfig(address="ray://10.0.0.1:10001"))
