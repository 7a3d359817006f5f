"""Trainings that end early go on as if they had not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from cells_for_tests import SMALL, Quiet, cell, untrained

from metabench.contracts import Interrupted, Store
from metabench_rl.simulator import Simulator
from metabench_rl.training import train

#: Seconds after which a test gives up waiting.
_DEADLINE = 600


class StopsAfter(Quiet):
    """Asks to stop after some updates."""

    def __init__(self, updates: int) -> None:
        self._updates, self._done = updates, 0

    def advance(self, done: int, note: str = "") -> None:
        self._done = done

    def should_stop(self) -> bool:
        return self._done >= self._updates


@pytest.mark.parametrize("name", ["maml-ppo", "pretrained", "rl2"])
def test_a_training_that_was_stopped_ends_with_the_same_weights_and_counts(name: str, tmp_path: Path) -> None:
    small = cell(name)
    whole, stopped, resumed = (untrained(small) for _ in range(3))
    family = whole.setup.family
    expected = train(whole, Simulator(family), small, {}, tmp_path / "whole.pt", Quiet())
    for updates in (3, 7):
        with pytest.raises(Interrupted):
            train(stopped, Simulator(family), small, {}, tmp_path / "stopped.pt", StopsAfter(updates))
    found = train(resumed, Simulator(family), small, {}, tmp_path / "stopped.pt", Quiet())
    assert (found.steps, found.curve, found.best_update) == (expected.steps, expected.curve, expected.best_update)
    for key, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[key]), key


class StopsAt(Quiet):
    """Asks to stop when it is asked for the n-th time."""

    def __init__(self, n: int) -> None:
        self._left = n

    def should_stop(self) -> bool:
        self._left -= 1
        return self._left <= 0


def test_a_training_may_be_stopped_at_any_place_within_a_validation_too(tmp_path: Path) -> None:
    small = cell("pretrained")
    whole, family = untrained(small), untrained(small).setup.family
    expected = train(whole, Simulator(family), small, {}, tmp_path / "whole.pt", Quiet())
    stops = 0
    for n in range(2, 40):
        resumed = untrained(small)
        try:
            found = train(resumed, Simulator(family), small, {}, tmp_path / "stopped.pt", StopsAt(n))
            break
        except Interrupted:
            stops += 1
    assert stops > 3
    assert (found.steps, found.curve) == (expected.steps, expected.curve)
    for key, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[key]), key


def test_a_checkpoint_of_other_code_is_set_aside(tmp_path: Path) -> None:
    small = cell("pretrained")
    family = untrained(small).setup.family
    with pytest.raises(Interrupted):
        train(untrained(small), Simulator(family), small, {"code": "old"}, tmp_path / "c.pt", StopsAfter(2))
    train(untrained(small), Simulator(family), small, {"code": "new"}, tmp_path / "c.pt", Quiet())
    assert len(list(tmp_path.glob("c.other-code-*.pt"))) == 1


def run(suite: Path, output: Path) -> subprocess.Popen[bytes]:
    start = "from metabench.cli import script; script()"
    command = [sys.executable, "-c", start, "run", str(suite), "--output", str(output), "--in-process"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.mark.slow
def test_a_training_killed_at_a_checkpoint_ends_with_the_same_bits(tmp_path: Path) -> None:
    data = yaml.safe_load(SMALL.read_text(encoding="utf-8"))
    data["algorithms"] = {"maml-ppo": {"params": {"tasks": 4, "episodes": 3, "hidden": 8, "epochs": 2}}}
    data["train"] = {"env_steps": 100_000, "validations": 2}
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
