"""The residual networks and Conv-512 compute what their papers say, and keep the rules of backbones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from command_line import Command
from metabench.api import Backbone, Batching, Episodes, Setup, Unfit
from metabench.api.batching import Sequential
from metabench.engine.batching import Threaded, Vmapped
from metabench.registry.configs import validate_config
from metabench.registry.manager import PluginManager
from metabench.testing import BackboneChecks
from metabench_plugins.algorithms.maml import MAML, MAMLConfig

pytestmark = pytest.mark.usefixtures("one_thread", "few_latencies")

SMALL: dict[str, dict[str, Any]] = {
    "resnet12": {"channels": [4, 6, 8, 10]},
    "resnet10": {"channels": 4},
    "resnet18": {"channels": 4, "stem": "small"},
    "wrn28-10": {"widen": 1},
    "conv-512": {"channels": [4, 6, 8, 10]},
}


def build(name: str, shape: tuple[int, int, int] = (3, 32, 32), **params: Any) -> Backbone:
    cls = PluginManager.from_environment().backbone_class(name)
    torch.manual_seed(0)
    return cls(validate_config(cls.Config, params), shape)


def images(count: int, shape: tuple[int, int, int] = (3, 32, 32), seed: int = 1) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ready(name: str, **params: Any) -> Backbone:
    """Return a small network in float64 whose averages and scales are not those of a fresh one."""
    network = build(name, **SMALL[name], **params).double().train()
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
        network(3 * images(16, seed=3))
    return network


# --------------------------------------------------------------------------------------- sizes of the papers


@pytest.mark.parametrize(
    ("name", "params", "side", "parameters", "features"),
    [
        ("resnet12", {}, 84, 12.42, 640),
        ("resnet12", {"pool": "none"}, 84, 12.42, 16_000),
        ("resnet12", {"pool": "none"}, 32, 12.42, 2_560),
        ("resnet12", {"channels": [64, 128, 256, 512], "drop": 0}, 80, 8.00, 512),
        ("resnet10", {}, 224, 4.91, 512),
        ("resnet18", {}, 224, 11.18, 512),
        ("resnet18", {"stem": "small"}, 84, 11.17, 512),
        ("wrn28-10", {}, 84, 36.47, 640),
        ("conv-512", {}, 84, 2.61, 51_200),
        ("conv4", {}, 84, 0.113, 1_600),
        ("conv4", {"channels": 32}, 84, 0.029, 800),
        ("conv4", {"downsample": "average"}, 84, 0.113, 64),
        ("conv4", {"downsample": "twice"}, 84, 0.113, 64 * 19 * 19),
    ],
)
def test_parameters_in_millions_and_features_are_those_of_the_papers(
    name: str, params: dict[str, Any], side: int, parameters: float, features: int
) -> None:
    network = build(name, (3, side, side), **params)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert round(count / 1e6, 3 if parameters < 1 else 2) == parameters
    assert network.features == features


@pytest.mark.parametrize("side", [84, 32])
@pytest.mark.parametrize("name", SMALL)
def test_images_of_the_usual_sizes_have_features_of_the_announced_length(name: str, side: int) -> None:
    network = build(name, (3, side, side), **SMALL[name])
    for training in (True, False):
        features = network.train(training)(torch.randn(3, 3, side, side))
        assert features.shape == (3, network.features)
        assert features.isfinite().all()


@pytest.mark.parametrize("name", ["resnet12", "conv-512"])
def test_an_image_that_would_be_halved_to_nothing_is_refused(name: str) -> None:
    with pytest.raises(Unfit, match=r"halves an image four times: \(15, 28\) is too small"):
        build(name, (3, 15, 28))


# ------------------------------------------------------------------------------------------ plain references


def normalised(y: Tensor, norm: nn.BatchNorm2d, training: bool) -> Tensor:
    mean, var = (y.mean(dim=(0, 2, 3)), y.var(dim=(0, 2, 3), correction=0)) if training else (None, None)
    mean, var = (norm.running_mean, norm.running_var) if mean is None or var is None else (mean, var)
    assert mean is not None
    assert var is not None
    scaled = (y - mean[:, None, None]) / (var[:, None, None] + norm.eps).sqrt()
    return scaled * norm.weight[:, None, None] + norm.bias[:, None, None]


def convolved(x: Tensor, layer: Any, training: bool) -> Tensor:
    conv = layer.conv
    y = F.conv2d(x, conv.weight, conv.bias, stride=conv.stride, padding=conv.kernel_size[0] // 2)
    return normalised(y, layer.norm, training)


@pytest.mark.parametrize("training", [True, False])
def test_resnet12_is_four_blocks_of_convolutions_shortcut_activation_and_pooling(training: bool) -> None:
    network: Any = build("resnet12", drop=0).double()
    with torch.no_grad():
        network.train()(3 * images(4, seed=3))
    network.train(training)
    x = images(4)
    with torch.no_grad():
        expected = x
        for block in network.blocks:
            y = F.leaky_relu(convolved(expected, block.first, training), 0.1)
            y = F.leaky_relu(convolved(y, block.second, training), 0.1)
            y = convolved(y, block.third, training) + convolved(expected, block.shortcut, training)
            expected = F.max_pool2d(F.leaky_relu(y, 0.1), 2)
        torch.testing.assert_close(network(x), expected.mean(dim=(2, 3)), rtol=1e-9, atol=1e-9)


def test_resnet12_drops_values_after_two_blocks_and_regions_after_two() -> None:
    network: Any = build("resnet12", (3, 84, 84), **SMALL["resnet12"])
    assert [type(drop).__name__ for drop in network.drops] == ["Dropout", "Dropout", "DropBlock", "DropBlock"]
    assert [network.drops[3].size, build("resnet12", **SMALL["resnet12"]).drops[3].size] == [5, 2]  # type: ignore[index, union-attr]
    x = torch.randn(4, 3, 84, 84)
    network.train()
    assert not torch.equal(network(x), network(x))


@pytest.mark.parametrize("training", [True, False])
def test_resnet18_is_that_of_torchvision(training: bool) -> None:
    network = build("resnet18").double()
    peer = torchvision.models.resnet18(weights=None).double()
    peer.fc = nn.Identity()
    # The same layers in the same order, under other names.
    state = dict(zip(network.state_dict(), peer.state_dict().values(), strict=True))
    network.load_state_dict(state)
    x = images(4, (3, 64, 64))
    with torch.no_grad():
        peer.train()(x)
        network.train()(x)
        torch.testing.assert_close(network.train(training)(x), peer.train(training)(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("training", [True, False])
def test_wide_resnet_normalises_before_each_convolution(training: bool) -> None:
    network: Any = ready("wrn28-10", dropout=0).train(training)
    x = images(4)
    with torch.no_grad():
        expected = F.conv2d(x, network.stem.weight, padding=1)
        for block in network.blocks:
            y = F.relu(normalised(expected, block.first_norm, training))
            shortcut = expected if block.shortcut is None else F.conv2d(y, block.shortcut.weight, stride=block.stride)
            y = F.relu(normalised(block.first(y), block.second_norm, training))
            expected = shortcut + block.second(y)
        expected = F.relu(normalised(expected, network.norm, training)).mean(dim=(2, 3))
        torch.testing.assert_close(network(x), expected, rtol=1e-9, atol=1e-9)
    assert [block.first.stride[0] for block in network.blocks] == [1] * 4 + [2, 1, 1, 1] * 2


@pytest.mark.parametrize("training", [True, False])
def test_conv512_joins_its_last_two_blocks(training: bool) -> None:
    network: Any = ready("conv-512", dropout=[0, 0, 0, 0]).train(training)
    x = images(4)
    with torch.no_grad():
        outputs = [x]
        for place, block in enumerate(network.blocks):
            y = F.max_pool2d(convolved(outputs[-1], block, training), 2)
            outputs.append(y if place == 3 else F.leaky_relu(y, 0.1))
        expected = torch.cat([output.flatten(1) for output in outputs[-2:]], dim=1)
        torch.testing.assert_close(network(x), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("downsample", "pools", "padding"), [("average", 3, [1] * 4), ("twice", 2, [0, 0, 1, 1])])
def test_conv4_pools_in_its_first_blocks_only(downsample: str, pools: int, padding: list[int]) -> None:
    network: Any = build("conv4", channels=6, downsample=downsample).double().eval()
    x = images(3)
    with torch.no_grad():
        expected = x
        for place, block in enumerate(network.blocks):
            y = F.conv2d(expected, block.conv.weight, block.conv.bias, padding=padding[place])
            y = F.relu(normalised(y, block.norm, training=False))
            expected = F.max_pool2d(y, 2) if place < pools else y
        expected = expected.mean(dim=(2, 3)) if downsample == "average" else expected.flatten(1)
        torch.testing.assert_close(network(x), expected, rtol=1e-9, atol=1e-9)


# --------------------------------------------------------------------------------------------- batch norm


@pytest.mark.parametrize("name", SMALL)
def test_norm_support_normalises_queries_by_the_support_set(name: str) -> None:
    network, plain = ready(name, norm="support").eval(), ready(name, norm="batch").eval()
    assert (network.needs_support, network.per_image, plain.per_image) == (True, False, False)
    plain.load_state_dict(network.state_dict())
    support, queries = images(6), images(3, seed=4)
    with torch.no_grad():
        features = network(torch.cat([support, queries]), len(support))
        others = network(torch.cat([support, queries[:1], 9 * images(5, seed=5)]), len(support))
        torch.testing.assert_close(features[:6], plain(support), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(others[:7], features[:7], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", SMALL)
def test_norm_running_gives_every_image_its_own_features_at_test(name: str) -> None:
    network = ready(name).eval()
    assert network.per_image
    x = images(4)
    with torch.no_grad():
        alone = torch.cat([network(image) for image in x.split(1)])
        torch.testing.assert_close(network(x), alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "still"),
    [
        ("resnet12", {"drop": 0}),
        ("resnet10", {}),
        ("wrn28-10", {"dropout": 0}),
        ("conv-512", {"dropout": [0, 0, 0, 0]}),
    ],
)
def test_every_batching_has_the_same_meta_gradient(
    name: str, still: dict[str, Any], make_episodes: Callable[..., Episodes]
) -> None:
    def gradient(batching: Batching) -> list[Tensor]:
        backbone = build(name, (1, 16, 16), **SMALL[name], **still, norm="batch")
        learner = MAML(MAMLConfig(inner_lr=0.1, inner_steps=2), Setup(backbone, 3, 3, 10)).double()
        learner.training_batching = batching
        learner.train_step(make_episodes(2, seed=3))
        return [parameter.grad for parameter in learner.parameters() if parameter.grad is not None]

    plain = gradient(Sequential())
    assert len(plain) > 10
    for batching in (Threaded(2), Vmapped(torch.device("cpu"))):
        torch.testing.assert_close(gradient(batching), plain, rtol=1e-6, atol=1e-9)


# ------------------------------------------------------------------------------------------ in a suite

SUITE = """\
name: deep
datasets: {glyphs: {}}
backbones:
  resnet12: {params: {channels: [4, 4, 6, 6], drop_steps: 4}}
  wrn: {use: wrn28-10, params: {widen: 1}}
algorithms:
  classifier: {params: {test_epochs: 2}}
  protonet: {}
  maml: {params: {inner_lr: 0.1, test_inner_steps: 1}, backbone: {norm: batch}}
exclude: [{backbone: wrn, algorithm: protonet}, {backbone: wrn, algorithm: maml}]
ways: [3]
shots: [1]
queries: 2
precision: bf16
train: {steps: 4, batch: 8, validate_every: 2, validation_episodes: 2}
eval: {episodes: 10, inductive_episodes: 2}
"""


def results(folder: Path) -> dict[str, Any]:
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("cells/*.json"))]
    return {f"{record['algorithm']} {record['backbone']}": record for record in records}


def test_they_train_in_bfloat16_on_images_episodes_and_inner_loops(
    metabench: Command, glyphs_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METABENCH_CACHE", str(glyphs_cache))
    Path("suite.yaml").write_text(SUITE, encoding="utf-8")
    for output in ("one", "two"):
        ended = metabench("run", "suite.yaml", "--output", output, "--device", "cpu")
        assert ended.code == 0, ended.err
    one, two = results(Path("one")), results(Path("two"))
    assert len(one) == 4
    assert {record["status"] for record in one.values()} == {"ok"}
    assert {record["identity"]["precision"] for record in one.values()} == {"bf16"}
    assert {name: record["metrics"] for name, record in one.items()} == {
        name: record["metrics"] for name, record in two.items()
    }, "DropBlock and dropout draw from the seed of the step"


class TestResNet12(BackboneChecks):
    backbone = "resnet12"
    params = SMALL["resnet12"]


class TestResNet10(BackboneChecks):
    backbone = "resnet10"
    params = SMALL["resnet10"]


class TestResNet18(BackboneChecks):
    backbone = "resnet18"
    params = SMALL["resnet18"]


class TestWideResNet(BackboneChecks):
    backbone = "wrn28-10"
    params = SMALL["wrn28-10"]
    image_shapes = ((1, 20, 20), (3, 16, 16))


class TestConv512(BackboneChecks):
    backbone = "conv-512"
    params = SMALL["conv-512"]


class TestConv4OfRFS(BackboneChecks):
    backbone = "conv4"
    params = {"channels": 4, "downsample": "average"}  # noqa: RUF012


class TestConv4OfRelationNet(BackboneChecks):
    backbone = "conv4"
    params = {"channels": 4, "downsample": "twice"}  # noqa: RUF012
