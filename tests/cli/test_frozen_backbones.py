"""Frozen backbones from the command line: nothing is trained, and each split is embedded once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from command_line import Command

pytestmark = pytest.mark.usefixtures("one_thread", "few_latencies")

SUITE = """\
name: frozen
datasets: {glyphs: {}}
backbones:
  pixels: {use: identity}
  flat: {use: "module:torch.nn:Flatten", params: {size: 224}}
  small: {use: ./networks.py:small}
  colour: {use: ./networks.py:colour}
algorithms:
  protonet: {train: none}
ways: [3]
shots: [1, 2]
queries: 2
train: {steps: 1}
eval: {episodes: 20}
"""
NETWORKS = """
from torch import nn

def colour():
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten())

def small():
    return nn.Sequential(nn.AvgPool2d(4), nn.Flatten())
"""


def records(folder: Path) -> list[dict[str, Any]]:
    found = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("cells/*.json")]
    return sorted(found, key=lambda record: (record["backbone"], record["shot"]))


def accuracy(record: dict[str, Any]) -> float:
    return float(record["metrics"]["accuracy"]["value"])


def test_nearest_class_means_of_frozen_backbones(
    metabench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METABENCH_CACHE", str(tmp_path / "cache"))
    Path("suite.yaml").write_text(SUITE, encoding="utf-8")
    Path("networks.py").write_text(NETWORKS, encoding="utf-8")
    ended = metabench("run", "suite.yaml", "--output", "out")
    assert ended.code == 0, ended.err
    colour, flat, pixels, small = (records(Path("out"))[i : i + 2] for i in (0, 2, 4, 6))
    assert {record["status"] for record in colour} == {"skipped"}
    assert "the module cannot take images of 1×28×28" in colour[0]["error"]
    assert [record["metrics"] for record in flat] == [record["metrics"] for record in pixels]
    assert min(accuracy(flat[0]), accuracy(small[0])) > 0.4
    assert "the backbone's input is 28, and its weights were made for 224" in flat[0]["remarks"]
    features = sorted((tmp_path / "cache" / "glyphs" / "features").glob("*.safetensors"))
    said = "of the validation and the test split by `small`, for both shots; the others have as many numbers as pixels"
    assert len(features) == 2, said

    again = metabench("run", "suite.yaml", "--output", "out")
    assert again.code == 0, again.err
    assert "kept    protonet" in again.err
    assert sorted((tmp_path / "cache" / "glyphs" / "features").glob("*.safetensors")) == features
