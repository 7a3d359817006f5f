"""The trained backbone of a cell in files for other programs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.torch_version import TorchVersion

import metabench as interface
from command_line import Command, assert_refused
from trained_on_pictures import trained_on_pictures

pytestmark = pytest.mark.usefixtures("one_thread")

PROTONET = ("--only", "algorithm=protonet", "--only", "dataset=pictures")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, glyphs_cache: Path) -> Iterator[Path]:
    with trained_on_pictures(tmp_path_factory.mktemp("export"), glyphs_cache) as folder:
        yield folder


def features(kept: Path, pixels: torch.Tensor) -> torch.Tensor:
    """Return the features of the network for uint8 pixels."""
    run = interface.load_run(kept / "out", only={"dataset": "pictures", "algorithm": "protonet"})
    learner = run.learner(device="cpu")
    mean, std = learner.scale_of_images
    with torch.no_grad():
        return learner.backbone((pixels / 255 - mean) / std)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("count", [1, 3, 70])
def test_an_exported_backbone_has_the_features_of_the_network(metabench: Command, kept: Path, count: int) -> None:
    ended = metabench("export", str(kept / "out"), *PROTONET, "--output", "b.pt2")
    assert ended.code == 0, ended.err
    assert "[n, 1, 16, 16]" in ended.out
    extra = {"metabench.json": ""}
    with open("b.pt2", "rb") as file:
        network = torch.export.load(file, extra_files=extra).module()
    pixels = torch.randint(0, 256, (count, 1, 16, 16), dtype=torch.uint8)
    assert torch.allclose(network(pixels / 255), features(kept, pixels), rtol=1e-4, atol=1e-5)
    assert json.loads(extra["metabench.json"])["dataset"]["params"]["resize"] == [18, 20]


@pytest.mark.filterwarnings("ignore")  # of the exporter of ONNX and the packages that it needs
def test_onnx_has_the_features_of_the_network(metabench: Command, kept: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    ended = metabench("export", str(kept / "out"), *PROTONET, "--output", "b.onnx")
    if torch.__version__ < TorchVersion("2.6"):
        assert_refused(ended, ["ONNX needs torch 2.6 or newer, and this is 2."])
        return
    assert ended.code == 0, ended.err
    session = runtime.InferenceSession("b.onnx", providers=["CPUExecutionProvider"])
    pixels = torch.randint(0, 256, (7, 1, 16, 16), dtype=torch.uint8)
    (found,) = session.run(None, {session.get_inputs()[0].name: (pixels / 255).numpy()})
    assert np.allclose(found, features(kept, pixels).numpy(), rtol=1e-4, atol=1e-5)


def test_what_cannot_be_exported_is_refused(metabench: Command, kept: Path) -> None:
    run = str(kept / "out")
    assert_refused(metabench("export", run, *PROTONET, "--output", "b.txt"), ["give FILE.pt2 for torch.export"])
    options = ("--only", "algorithm=maml", "--only", "dataset=pictures", "--output", "b.pt2")
    assert_refused(metabench("export", run, *options), ["depend on the other images of an episode"])
    assert not Path("b.pt2").exists()
    Path("b.pt2").touch()
    assert_refused(metabench("export", run, *PROTONET, "--output", "b.pt2"), ["b.pt2 exists already"])
