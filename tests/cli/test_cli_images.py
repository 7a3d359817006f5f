"""Trainings on images that are killed."""

from __future__ import annotations

import signal
import textwrap
from pathlib import Path

import pytest
from test_cli_interruption import TRIPWIRE, run_and_signal, tripwire

from command_line import Command, Distributions
from metabench.records.store import Store

__all__ = ["tripwire"]  # a fixture

pytestmark = pytest.mark.usefixtures("one_thread")

SUITE = """\
name: small
datasets: {glyphs: {}}
backbones: {conv4: {params: {channels: 2, downsample: stride, norm: running}}}
algorithms:
  tripwire:
    params: {optimiser: sgd, lr: 0.05, momentum: 0.9, nesterov: true, weight_decay: 5.0e-4, warm_up: 5,
             schedule: cosine}
    train: {epochs: 2, batch: 128, augment: [{crop: {padding: 2}}, {jitter: {}}, {affine: {}}]}
ways: [2]
shots: [1]
queries: 2
train: {steps: 60, validate_every: 20, validation_episodes: 3}
eval: {episodes: 10}
"""


def test_a_killed_training_on_images_resumes_bit_for_bit(tripwire: Command, distributions: Distributions) -> None:
    on_images = TRIPWIRE.replace("protonet import ProtoNet", "simpleshot import SimpleShot").replace(
        "(ProtoNet)", "(SimpleShot)"
    )
    (distributions.folder / "fake_tripwire.py").write_text(textwrap.dedent(on_images), encoding="utf-8")
    Path("small.yaml").write_text(SUITE, encoding="utf-8")
    stopped = run_and_signal(distributions.folder, 35, signal.SIGKILL, "--in-process")
    assert stopped.code == -9, stopped.err
    assert len(list(Path("out/checkpoints").iterdir())) == 1
    results = []
    for output in ("out", "undisturbed"):
        ended = tripwire("run", "small.yaml", "--output", output)
        assert ended.code == 0, ended.err
        (record,) = Store(Path(output)).records()
        assert record.train is not None
        assert record.train.steps > 35
        assert record.weights is not None
        files = sorted(Path(output, "weights").glob("*.safetensors"))
        accuracies = Store(Path(output)).episodes(record).figures["accuracy"].tobytes()
        results.append((record.weights.sha256, accuracies, [path.read_bytes() for path in files]))
    assert results[0] == results[1]
