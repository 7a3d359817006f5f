from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from metabench.api import Unfit
from metabench_plugins.backbones import conv4
from metabench_plugins.backbones.conv4 import Conv4, Conv4Config, channels_last, halved


def build(norm: str, downsample: str = "pool", size: int = 16) -> Conv4:
    torch.manual_seed(0)
    config = Conv4Config.model_validate({"channels": 4, "norm": norm, "downsample": downsample})
    return Conv4(config, (1, size, size)).double()


def images(count: int, seed: int) -> Tensor:
    return torch.rand(count, 1, 16, 16, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def embed(net: Conv4, support: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
    """Return the features of the support images, and of the first query."""
    with torch.no_grad():
        features = net(torch.cat([support, queries]), support=len(support))
    return features[: len(support)], features[len(support)]


@pytest.mark.parametrize(("image_shape", "features"), [((1, 28, 28), 64), ((3, 84, 84), 1600), ((1, 16, 16), 64)])
def test_the_number_of_features_is_that_of_the_papers(image_shape: tuple[int, int, int], features: int) -> None:
    net = Conv4(Conv4Config(), image_shape).eval()
    assert net.features == features
    with torch.no_grad():
        assert net(torch.zeros(2, *image_shape)).shape == (2, features)


@pytest.mark.parametrize("size", [28, 84, 5, 1])
def test_strided_convolutions_average_over_images_of_any_size(size: int) -> None:
    net = build("batch", "stride", size)
    assert net.features == 4
    with torch.no_grad():
        assert net(torch.rand(3, 1, size, size, dtype=torch.float64)).shape == (3, 4)


def test_each_strided_block_halves_the_image_rounding_up() -> None:
    x = torch.rand(2, 1, 28, 28, dtype=torch.float64)
    sizes = []
    with torch.no_grad():
        for block in build("batch", "stride", 28).blocks:
            x = block(x, None)
            sizes.append(tuple(x.shape[1:]))
    assert sizes == [(4, 14, 14), (4, 7, 7), (4, 4, 4), (4, 2, 2)]


@pytest.mark.parametrize("shape", [(1, 15, 28), (1, 28, 15)])
def test_an_image_that_would_be_halved_to_nothing_is_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(Unfit, match="too small"):
        Conv4(Conv4Config(), shape)


@pytest.mark.parametrize("wrong", [{"norm": "layer"}, {"downsample": "none"}, {"channels": 0}, {"chanels": 4}])
def test_wrong_parameters_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Conv4Config.model_validate(wrong)


@pytest.mark.parametrize("training", [True, False])
def test_norm_support_makes_a_query_independent_of_the_other_queries(training: bool) -> None:
    net = build("support").train(training)
    support, queries = images(6, seed=1), images(4, seed=2)
    others = torch.cat([queries[:1], 9 * images(3, seed=3)])
    support_features, feature = embed(net, support, queries)
    torch.testing.assert_close(embed(net, support, others)[1], feature, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(embed(net, support, others)[0], support_features, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(embed(net, support, queries[:1])[1], feature, rtol=1e-12, atol=1e-12)


def test_norm_support_makes_a_query_depend_on_the_support_set() -> None:
    net = build("support").eval()
    queries = images(4, seed=2)
    before, after = (embed(net, images(6, seed), queries)[1] for seed in (1, 4))
    assert (before - after).abs().max() > 1e-3


def test_norm_support_normalises_the_support_set_as_one_batch() -> None:
    net, plain = build("support").eval(), build("batch").eval()
    assert net.needs_support
    assert not plain.needs_support
    support = images(6, seed=1)
    expected = plain(support)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(embed(net, support, images(4, seed=2))[0], expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(net(support), expected, rtol=1e-10, atol=1e-10)


def test_norm_support_scales_and_shifts_by_the_learned_weights() -> None:
    net, plain = build("support").eval(), build("batch").eval()
    for module in (net, plain):
        for block in module.blocks:
            torch.nn.init.constant_(block.norm.weight, 1.7)
            torch.nn.init.constant_(block.norm.bias, 0.3)
    support = images(6, seed=1)
    torch.testing.assert_close(embed(net, support, images(4, seed=2))[0], plain(support), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("training", [True, False])
def test_norm_batch_makes_a_query_depend_on_the_other_queries(training: bool) -> None:
    net = build("batch").train(training)
    support, queries = images(6, seed=1), images(4, seed=2)
    others = torch.cat([queries[:1], 9 * images(3, seed=3)])
    assert (embed(net, support, queries)[1] - embed(net, support, others)[1]).abs().max() > 1e-3


def test_norm_running_at_test_normalises_every_image_alone() -> None:
    net = build("running")
    net.train()(images(20, seed=5))
    net.eval()
    support, queries = images(6, seed=1), images(4, seed=2)
    feature = embed(net, support, queries)[1]
    assert feature.abs().max() > 0.01
    others = torch.cat([queries[:1], 9 * images(3, seed=3)])
    torch.testing.assert_close(embed(net, 9 * images(6, seed=4), others)[1], feature, rtol=1e-12, atol=1e-12)


def test_norm_running_learns_its_averages_in_training_only() -> None:
    net = build("running")
    before = {name: value.clone() for name, value in net.named_buffers()}
    assert before
    with torch.no_grad():
        net.eval()(images(6, seed=1))
        assert all(torch.equal(before[name], value) for name, value in net.named_buffers())
        net.train()(images(6, seed=1))
    assert not any(torch.equal(before[name], value) for name, value in net.named_buffers())


@pytest.mark.parametrize("norm", ["batch", "support"])
def test_norms_batch_and_support_have_no_running_averages(norm: str) -> None:
    assert not list(build(norm).buffers())


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (2, 3)])
def test_pooling_is_the_same_with_and_without_a_gradient(size: tuple[int, int]) -> None:
    x = torch.randn(3, 4, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.nn.functional.max_pool2d(x, 2)
    assert torch.equal(halved(x), expected)
    assert torch.equal(halved(x.requires_grad_()), expected)


@pytest.mark.parametrize("norm", ["running", "batch", "support"])
def test_images_pooled_in_parts_are_what_they_are_at_once(monkeypatch: pytest.MonkeyPatch, norm: str) -> None:
    network = Conv4(Conv4Config.model_validate({"channels": 20, "norm": norm}), (1, 20, 22)).double()
    x = torch.rand(7, 1, 20, 22, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    network(9 * x)  # averages that are not those of a fresh network
    network.eval()
    at_once = network(x, support=2)
    assert at_once.requires_grad  # parts are for those who want no gradient
    monkeypatch.setattr(conv4, "_AT_ONCE", 3 * 20 * 20 * 22)
    with torch.no_grad():
        torch.testing.assert_close(network(x, support=2), at_once.detach(), rtol=1e-9, atol=1e-9)


def test_parts_are_rounded_to_bfloat16_as_the_whole_is(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Conv4(Conv4Config(channels=16), (1, 16, 16)).eval()
    x = torch.rand(7, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        at_once = network(x)
        monkeypatch.setattr(conv4, "_AT_ONCE", 3 * 16 * 16 * 16)
        parts = network(x)
    assert parts.dtype == at_once.dtype == torch.bfloat16
    torch.testing.assert_close(parts, at_once)


@pytest.mark.parametrize("norm", ["running", "batch", "support"])
def test_a_network_is_per_image_if_features_depend_on_one_image_alone(norm: str) -> None:
    network = build(norm)
    with torch.no_grad():
        network(9 * images(6, seed=1))
        together = network.eval()(images(4, seed=2))
        alone = torch.cat([network(image) for image in images(4, seed=2).split(1)])
    assert network.per_image == torch.allclose(together, alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("chosen", [slice(None), [2, 0]])
def test_images_on_a_cpu_become_channels_last_from_any_strides(channels: int, chosen: Any) -> None:
    images = torch.rand(4, channels, 6, 8)[chosen]
    converted = channels_last(images)
    assert torch.equal(converted, images)
    assert converted.stride() == (6 * 8 * channels, 1, 8 * channels, channels)


def test_weights_of_an_inner_loop_keep_the_layout_of_the_first_block() -> None:
    backbone = Conv4(Conv4Config(channels=8, norm="batch"), (1, 16, 16))
    adapted = {name: weight.contiguous() * 1.0 for name, weight in backbone.named_parameters()}
    layouts: list[bool] = []
    backbone.blocks[1].register_forward_pre_hook(
        lambda block, inputs: layouts.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
    )
    torch.func.functional_call(backbone, adapted, (torch.rand(2, 1, 16, 16),))
    assert layouts == [True]
