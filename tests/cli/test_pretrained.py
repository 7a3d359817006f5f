"""Pretrained weights from the command line: files by content, and remarks on test images that weights may have seen."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from command_line import Command

pytestmark = pytest.mark.usefixtures("one_thread", "few_latencies")

SPLITS = {
    "train": ["ant", "gadget", "gizmo"],
    "val": ["folding_chair", "thing", "widget"],
    "test": ["dalmatian", "Flamingo", "what"],
}
#: A network in a file; its weights are in another.
NETWORK = """
from torch import nn

def small():
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 5))
"""
SUITE = """\
name: photographs
datasets:
  photos: {use: folder, params: {root: photos, image_size: 16}}
backbones:
  small: {use: ./network.py:small, params: {drop: ["3"], weights: small.pth, pretrained_on: PRETRAINED}}
algorithms: {protonet: {train: none}}
ways: [2]
shots: [1]
queries: 2
train: {steps: 1}
eval: {episodes: 10}
"""


def write_photos(folder: Path, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    for split, names in SPLITS.items():
        for name in names:
            (folder / split / name).mkdir(parents=True)
            for i in range(5):
                pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{i}.png")


def write_weights(path: Path, seed: int = 0, last: int = 5) -> None:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, last))
    torch.save(network.state_dict(), path)


@pytest.fixture
def suite(metabench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a suite in a folder of its own, with the network, its weights and nine classes of photographs."""
    folder = tmp_path / "suites"
    write_photos(Path("photos"))
    folder.mkdir()
    (folder / "network.py").write_text(NETWORK, encoding="utf-8")
    write_weights(folder / "small.pth")
    (folder / "photographs.yaml").write_text(SUITE.replace("PRETRAINED", "moths"), encoding="utf-8")
    monkeypatch.setenv("METABENCH_CACHE", str(tmp_path / "cache"))
    return folder / "photographs.yaml"


def run(metabench: Command, suite: Path, output: str = "out") -> str:
    ended = metabench("run", str(suite), "--output", output)
    assert ended.code == 0, ended.err
    return ended.err


def record_in(output: str) -> dict[str, Any]:
    (path,) = Path(output).glob("cells/*.json")
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def test_a_file_of_weights_is_beside_the_suite_and_counts_by_its_content(metabench: Command, suite: Path) -> None:
    run(metabench, suite)
    first = record_in("out")
    assert len(first["identity"]["backbone"]["params"]["weights"]) == 64
    moved = suite.parent / "weights" / "renamed.pth"
    moved.parent.mkdir()
    (suite.parent / "small.pth").rename(moved)
    text = suite.read_text(encoding="utf-8")
    suite.write_text(text.replace("small.pth", "weights/renamed.pth"), encoding="utf-8")
    assert "kept    protonet" in run(metabench, suite), "the same weights in another place"
    write_weights(moved, seed=1)
    assert "kept    protonet" not in run(metabench, suite)
    second = record_in("out")
    assert second["cell"] != first["cell"]
    assert second["metrics"] != first["metrics"]


def test_the_stored_suite_finds_the_file_from_its_place(metabench: Command, suite: Path) -> None:
    run(metabench, suite)
    run(metabench, Path("out") / "suite.yaml", "again")
    assert record_in("again")["cell"] == record_in("out")["cell"]
    assert record_in("again")["metrics"] == record_in("out")["metrics"]


def test_a_missing_file_is_reported_with_its_line_and_a_wrong_one_before_the_run(
    metabench: Command, suite: Path
) -> None:
    (suite.parent / "small.pth").unlink()
    ended = metabench("run", str(suite), "--output", "out")
    assert ended.code == 2
    assert "photographs.yaml:5: backbones.small.params.weights: cannot read the weights" in ended.err
    torch.save({"0.weight": torch.zeros(4, 3, 5, 5), "0.bias": torch.zeros(4)}, suite.parent / "small.pth")
    ended = metabench("run", str(suite), "--output", "out")
    assert ended.code == 2
    assert "small.pth do not fit Sequential: another shape has '0.weight'" in ended.err
    assert "Traceback" not in ended.err
    assert not list(Path("out").glob("cells/*"))


def test_tables_show_what_weights_were_pretrained_on(metabench: Command, suite: Path) -> None:
    run(metabench, suite)
    assert record_in("out")["pretrained_on"] == "moths"
    table = metabench("leaderboard", "out").out
    assert "pretrained on" in table
    assert "pretrained on: images that the weights of the backbone were pretrained on" in table
    (row,) = csv.DictReader(io.StringIO(metabench("leaderboard", "out", "--format", "csv").out))
    assert row["pretrained_on"] == "moths"
    assert "pretrained on" in Path("out", "leaderboard.md").read_text(encoding="utf-8")


def test_tables_without_pretrained_weights_do_not_mention_them(metabench: Command, suite: Path) -> None:
    suite.write_text(SUITE.replace(", pretrained_on: PRETRAINED", ""), encoding="utf-8")
    run(metabench, suite)
    assert "pretrained on" not in metabench("leaderboard", "out").out


def test_test_classes_with_names_of_imagenet_are_remarked(metabench: Command, suite: Path) -> None:
    suite.write_text(SUITE.replace("PRETRAINED", "'ImageNet-21k, ImageNet-1k'"), encoding="utf-8")
    run(metabench, suite)
    known = "the weights were pretrained on ImageNet-21k, ImageNet-1k: 2 of 3 test classes have names of its classes"
    assert f"photos: {known} (Flamingo, dalmatian)" in metabench("leaderboard", "out").out


def test_training_images_among_the_test_images_of_another_dataset_are_counted(metabench: Command, suite: Path) -> None:
    write_photos(Path("others"), seed=1)
    for copied, original in (("test/what/0", "train/ant/1"), ("test/dalmatian/3", "train/gizmo/4")):
        Path("others", f"{copied}.png").write_bytes(Path("photos", f"{original}.png").read_bytes())
    # Copies of images that do not train the network are no matter.
    Path("others", "test/what/1.png").write_bytes(Path("photos", "val/thing/1.png").read_bytes())
    text = SUITE.replace("PRETRAINED", "moths, frozen: false").replace("{train: none}", "{}")
    text = text.replace("image_size: 16}}", "image_size: 16}, test_on: [photos, others]}")
    others = "  others: {use: folder, params: {root: others, image_size: 16}, test_on: []}"
    suite.write_text(text.replace("backbones:\n", f"{others}\nbackbones:\n"), encoding="utf-8")
    run(metabench, suite)
    records = [json.loads(path.read_text(encoding="utf-8")) for path in Path("out").glob("cells/*.json")]
    remarks = {record["dataset"]: record["data"]["remarks"] for record in records}
    assert remarks == {"photos": [], "others": ["2 of 15 test images are also training images of photos"]}
