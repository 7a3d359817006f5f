from __future__ import annotations

from pathlib import Path
from typing import get_args

import click
import pytest
import torch
from torch import Tensor, nn

from command_line import Command, assert_refused
from metabench.api import Backbone, Config
from metabench.cli.run import run
from metabench.engine.precision import autocast_of, tf32
from metabench.planning.suite import Precision
from metabench.records.store import Store

SHAPE = (1, 8, 8)


class Probe(Backbone):
    """A backbone that records the dtype of its layer's output."""

    def __init__(self) -> None:
        super().__init__(Config(), SHAPE)
        self.layer = nn.Conv2d(1, 4, 3)
        self.features = 4
        self.needs_support = self.per_image = True
        self.seen: list[tuple[torch.dtype, int | None]] = []

    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        y = self.layer(x)
        self.seen.append((y.dtype, support))
        return y.mean(dim=(2, 3))


def test_bf16_rounds_only_convolutions_and_products() -> None:
    torch.manual_seed(0)
    backbone = Probe()
    backbone.autocast = autocast_of("bf16")
    x = torch.rand(5, *SHAPE)
    features = backbone(x, support=2)
    features.sum().backward()
    assert backbone.seen == [(torch.bfloat16, 2)]
    assert features.dtype == torch.float32
    assert {parameter.dtype for parameter in backbone.parameters()} == {torch.float32}
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in backbone.parameters())
    backbone.autocast = autocast_of("float32")
    exact = backbone(x)
    assert 0 < (features - exact).abs().max() < 0.02 * exact.abs().max()


def test_weights_have_the_same_names_in_every_precision() -> None:
    rounded, exact = Probe(), Probe()
    rounded.autocast = torch.bfloat16
    exact.load_state_dict(rounded.state_dict())
    assert list(rounded.state_dict()) == ["layer.weight", "layer.bias"]


@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_float32_and_tf32_need_no_autocast(precision: Precision) -> None:
    assert autocast_of(precision) is None


def test_tf32_restores_the_settings_of_torch() -> None:
    cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn

    def flags() -> tuple[str | bool, ...]:
        if hasattr(cudnn, "conv"):
            return cuda.fp32_precision, cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision
        return cuda.allow_tf32, cudnn.allow_tf32

    before = flags()
    for allowed in (True, False):
        with tf32(allowed):
            assert set(flags()) == ({"tf32" if allowed else "ieee"} if hasattr(cudnn, "conv") else {allowed})
        assert flags() == before


# ------------------------------------------------------------------------------------------- in a suite


@pytest.mark.usefixtures("one_thread")
def test_a_suite_sets_the_precision_of_all_or_of_one_algorithm(metabench: Command) -> None:
    suite = Path("small.yaml")
    text = suite.read_text().replace("  protonet: {}", "  protonet: {precision: float32}")
    suite.write_text(text + "precision: bf16\n")
    ended = metabench("run", "small.yaml", "--profile", "smoke", "--output", "out")
    assert ended.code == 0, ended.err
    records = Store(Path("out")).records()
    precisions = {record.algorithm: record.identity.get("precision", "float32") for record in records}
    assert precisions == {"protonet": "float32", "siamese": "bf16"}
    (heading,) = [line for line in ended.out.splitlines() if "algorithm" in line and "accuracy" in line]
    assert "precision" in heading
    (row,) = [line for line in ended.out.splitlines() if " siamese " in line]
    assert "bf16" in row


@pytest.mark.usefixtures("one_thread")
def test_the_precision_option_applies_to_all_algorithms_and_names_the_output(metabench: Command) -> None:
    suite = Path("small.yaml")
    suite.write_text(suite.read_text().replace("  protonet: {}", "  protonet: {precision: float32}"))
    assert metabench("run", "small.yaml", "--profile", "smoke", "--precision", "bf16").code == 0
    records = Store(Path("runs/small/smoke-bf16")).records()
    assert {record.identity.get("precision") for record in records} == {"bf16"}
    assert {record.algorithm for record in records} == {"protonet", "siamese"}
    assert not Path("runs/small/smoke").exists()


def test_the_precision_option_offers_all_precisions() -> None:
    (option,) = [parameter for parameter in run.params if parameter.name == "precision"]
    assert isinstance(option.type, click.Choice)
    assert tuple(option.type.choices) == get_args(Precision)


def test_tf32_on_a_cpu_is_refused_before_anything_runs(metabench: Command) -> None:
    suite = Path("small.yaml")
    suite.write_text(suite.read_text() + "precision: tf32\n")
    refused = metabench("run", "small.yaml", "--device", "cpu", "--output", "out")
    assert_refused(refused, ["tf32 is a precision of NVIDIA GPUs", "float32 or bf16"])
    assert not Path("out").exists()
