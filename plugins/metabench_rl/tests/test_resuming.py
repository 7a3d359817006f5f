"""Trainings that end early go on as if they had not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import yaml
from cells_for_tests import SMALL

from metabench.contracts import Store

#: Seconds after which a test gives up waiting.
_DEADLINE = 240


def run(suite: Path, output: Path) -> subprocess.Popen[bytes]:
    start = "from metabench.cli import script; script()"
    command = [sys.executable, "-c", start, "run", str(suite), "--output", str(output), "--in-process"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def test_a_training_killed_at_a_checkpoint_ends_with_the_same_bits(tmp_path: Path) -> None:
    data = yaml.safe_load(SMALL.read_text(encoding="utf-8"))
    data["algorithms"] = {"maml-ppo": {"params": {"tasks": 4, "episodes": 3, "hidden": 8, "epochs": 2}}}
    data["train"] = {"env_steps": 200_000, "validations": 2}
    suite = tmp_path / "long.yaml"
    suite.write_text(yaml.safe_dump(data), encoding="utf-8")
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = run(suite, killed)
    deadline = time.monotonic() + _DEADLINE
    while not list(killed.glob("checkpoints/*.pt")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "no checkpoint"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not list(killed.glob("cells/*.json"))
    for output in (killed, whole):
        ended = run(suite, output)
        text = ended.communicate(timeout=_DEADLINE)[0]
        assert ended.returncode == 0, text
    values = [Store(output).episodes(Store(output).records()[0]).figures for output in (killed, whole)]
    assert set(values[0]) == {"return", "return_0", "return_1"}
    for name in values[0]:
        assert np.array_equal(values[0][name], values[1][name]), name
    records = [Store(output).records()[0] for output in (killed, whole)]
    curves = [record.train.validation for record in records if record.train]
    assert curves[0] == curves[1] != []
    assert not list(killed.glob("checkpoints/*.pt"))
