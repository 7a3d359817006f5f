from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Pytest = Callable[..., "subprocess.CompletedProcess[str]"]

SUITE = """\
name: timed
datasets: {glyphs: {}}
backbones: {conv4: {params: {channels: 2, downsample: stride}}}
algorithms: {protonet: {}, mine: {use: "./mine.py:Mine"}}
ways: [2]
shots: [1]
queries: 2
train: {steps: 4}
"""
ALGORITHM = """\
import time

from metabench_plugins.algorithms.protonet import ProtoNet


class Mine(ProtoNet):
    def adapt(self, support):
        end = time.perf_counter() + SECONDS
        while time.perf_counter() < end:
            pass
        return super().adapt(support)
"""
TEST = """\
from metabench.testing import SuiteBenchmarks


class TestSpeed(SuiteBenchmarks):
    suite = "../timed.yaml"
"""


@pytest.fixture
def project(tmp_path: Path, glyphs_cache: Path) -> Pytest:
    """Return a function that runs pytest in a project that times a suite, its own algorithm taking `seconds` more."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_speed.py").write_text(TEST)
    (tmp_path / "timed.yaml").write_text(SUITE)
    environment = {**os.environ, "METABENCH_CACHE": str(glyphs_cache), "OMP_NUM_THREADS": "1"}

    def run(*options: str, seconds: float = 0.0) -> subprocess.CompletedProcess[str]:
        (tmp_path / "mine.py").write_text(ALGORITHM.replace("SECONDS", str(seconds)))
        command = [
            sys.executable,
            "-m",
            "pytest",
            "tests",
            "--benchmark-max-time=0.02",
            "--benchmark-min-rounds=3",
            *options,
        ]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    return run


NAMES = [
    f"test_{what}[{algorithm}-glyphs-2-way-1-shot-conv4-seed0]"
    for what in ("train_step", "predict")
    for algorithm in ("protonet", "mine")
]


def test_a_cell_that_does_not_fit_is_skipped_with_the_reason(project: Pytest, tmp_path: Path) -> None:
    (tmp_path / "timed.yaml").write_text(SUITE.replace('mine: {use: "./mine.py:Mine"}', "maml: {train: {way: 3}}"))
    ended = project("-rs")
    assert ended.returncode == 0, ended.stdout
    assert "2 passed, 2 skipped" in ended.stdout
    assert "train.way (3) must be the tested way (2)" in ended.stdout


@pytest.mark.slow
def test_pytest_benchmark_compares_a_suite_with_an_earlier_run(project: Pytest) -> None:
    saved = project("--benchmark-autosave")
    assert saved.returncode == 0, saved.stdout
    compared = project("--benchmark-compare", "--benchmark-columns=median")
    assert compared.returncode == 0, compared.stdout
    for name in NAMES:
        short = re.escape(name[:20])
        assert re.search(rf"^{short}\S* \(0001_", compared.stdout, re.MULTILINE), compared.stdout
        assert re.search(rf"^{short}\S* \(NOW\)", compared.stdout, re.MULTILINE), compared.stdout


def test_a_slower_algorithm_fails_the_limit_of_pytest_benchmark(project: Pytest) -> None:
    assert project("--benchmark-autosave").returncode == 0
    slower = project("--benchmark-compare", "--benchmark-compare-fail=median:1000%", seconds=0.1)
    assert slower.returncode != 0
    failed = re.findall(r"(test_\w+\[\S+\]) \(.*\) - Field 'median' has failed", slower.stdout + slower.stderr)
    assert set(failed) == {name for name in NAMES if "mine" in name}, slower.stdout + slower.stderr
