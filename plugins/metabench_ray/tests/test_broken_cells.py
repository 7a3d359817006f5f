"""A run of 200 cells on a real Ray, five of which are broken."""

from __future__ import annotations

from pathlib import Path

import pytest
from real_ray import RealRay
from runs import SUITE, Run

from metabench.files import write_whole

#: An algorithm that is broken in some way, or good.
TRIAL = """
import os, signal, time
from typing import Literal
import torch
from metabench.api import AlgorithmConfig
from metabench_plugins.algorithms.protonet import ProtoNet

class TrialConfig(AlgorithmConfig):
    kind: Literal["good", "raises", "exits", "killed", "late", "nan"] = "good"
    number: int = 0

class Trial(ProtoNet):
    Config = TrialConfig

    def __init__(self, config, setup):
        super().__init__(config, setup)
        self.kind = config.kind

    def train_step(self, batch):
        if self.kind == "raises": raise ValueError("on purpose")
        if self.kind == "exits": os._exit(3)
        if self.kind == "killed": os.kill(os.getpid(), signal.SIGKILL)
        if self.kind == "late": time.sleep(10**6)
        return super().train_step(batch)

    def episode_loss(self, episode):
        loss = super().episode_loss(episode)
        return loss * float("nan") if self.kind == "nan" else loss
"""
BROKEN = {
    "raises": "ValueError: on purpose",
    "exits": "exit code 3",
    "killed": "signal 9",
    "late": "limit of 60 s",
    "nan": "nan",
}
GOOD = 195


@pytest.mark.slow
def test_five_broken_cells_of_200_fail_alone(ray: RealRay, tmp_path: Path) -> None:
    entries = [f"  {kind}: {{use: ./trial.py:Trial, params: {{kind: {kind}}}}}" for kind in BROKEN]
    entries += [f"  good-{n}: {{use: ./trial.py:Trial, params: {{number: {n}}}}}" for n in range(GOOD)]
    suite = SUITE.replace("  protonet: {}", "\n".join(entries)).replace("steps: 60, validate_every: 20", "steps: 1")
    run = Run(tmp_path, suite + "limits: {training: 60s}\n", ["--retries", "1"], ray)
    write_whole(tmp_path / "trial.py", TRIAL.encode())
    assert run.finish(3000) == 1, run.errors
    records = {record.algorithm: record for record in run.records.values()}
    assert len(records) == GOOD + len(BROKEN)
    assert {name: record.status for name, record in records.items() if name not in BROKEN} == {
        f"good-{n}": "ok" for n in range(GOOD)
    }
    reasons = {name: records[name].error or "" for name in BROKEN}
    assert {name: records[name].status for name in BROKEN} == dict.fromkeys(BROKEN, "failed")
    assert [reasons for name, part in BROKEN.items() if part.lower() not in reasons[name].lower()] == [], reasons
