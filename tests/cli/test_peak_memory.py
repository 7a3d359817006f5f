"""The peak memory of a run, measured in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SUITE = """\
name: memory
datasets: {{glyphs: {{}}}}
backbones: {{conv4: {{params: {{channels: 4, norm: batch}}}}}}
algorithms: {{protonet: {{}}}}
ways: [5]
shots: [1]
queries: 15
train: {{steps: {steps}, meta_batch: 2, validate_every: {steps}, validation_episodes: 2}}
eval: {{episodes: {episodes}, inductive_episodes: 2}}
"""
IMAGE_BYTES = 28 * 28 * 4


def peak(folder: Path, steps: int, episodes: int) -> int:
    """Return the peak memory of a run in bytes."""
    folder.mkdir()
    (folder / "memory.yaml").write_text(SUITE.format(steps=steps, episodes=episodes))
    command = "from metabench.cli import main; main()"
    subprocess.run(
        [sys.executable, "-c", command, "run", "memory.yaml", "--in-process", "--output", "kept"],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=True,
    )
    (record,) = (folder / "kept").glob("cells/*.json")
    bytes_ = json.loads(record.read_text())["peak_memory_bytes"]
    assert isinstance(bytes_, int)
    return bytes_


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak memory can be reset on Linux only")
def test_memory_does_not_grow_with_the_number_of_episodes(tmp_path: Path) -> None:
    few, many = peak(tmp_path / "few", steps=10, episodes=100), peak(tmp_path / "many", steps=1000, episodes=2000)
    images = 2000 * 5 * (1 + 15) * IMAGE_BYTES
    assert images > 400 * 2**20
    assert many - few < images / 4
