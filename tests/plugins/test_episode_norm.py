"""Batch norm folded into a convolution computes the same function as the two in sequence."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metabench_plugins.backbones.conv4 import Conv4, Conv4Config
from metabench_plugins.backbones.episode_norm import EpisodeNorm, folded

Norm = Literal["running", "batch", "support"]

CASES = pytest.mark.parametrize(
    ("norm", "training", "channels", "stride"),
    [
        (norm, training, channels, stride)
        for norm in ("running", "batch", "support")
        for training in (True, False)
        for channels in (1, 3)  # 3 is too many for the moments to be taken from the patches
        for stride in (1, 2)
    ],
)
SUPPORT, IMAGES, OUT = 4, 10, 20


def layers(norm: Norm, channels: int, stride: int) -> tuple[nn.Conv2d, EpisodeNorm]:
    """Return a convolution and a norm with running averages, some of whose scales are negative."""
    torch.manual_seed(0)
    convolution = nn.Conv2d(channels, OUT, 3, stride=stride, padding=1)
    normalise = EpisodeNorm(OUT, norm)
    with torch.no_grad():
        normalise.weight.copy_(torch.randn(OUT))
        normalise.bias.copy_(torch.randn(OUT))
    if norm == "running":
        normalise.train()(5 + 3 * torch.randn(8, OUT, 6, 6))
    return convolution.double(), normalise.double()


def reference(convolution: nn.Conv2d, norm: EpisodeNorm, x: Tensor) -> Tensor:
    """Return the convolution followed by torch's batch norm."""
    y = convolution(x)
    if norm.from_support:
        mean = y[:SUPPORT].mean(dim=(0, 2, 3), keepdim=True)
        variance = y[:SUPPORT].var(dim=(0, 2, 3), keepdim=True, correction=0)
        return (y - mean) / (variance + norm.eps).sqrt() * norm.weight.view(-1, 1, 1) + norm.bias.view(-1, 1, 1)
    return nn.BatchNorm2d.forward(norm, y)


def by_folding(convolution: nn.Conv2d, norm: EpisodeNorm, x: Tensor) -> Tensor:
    """Return the convolution with the folded norm."""
    affine = folded(convolution, norm, x, SUPPORT)
    if affine is None:
        return norm(convolution(x), SUPPORT)  # type: ignore[no-any-return]
    return F.conv2d(x, *affine, convolution.stride, convolution.padding)


def images(channels: int) -> Tensor:
    return 2 + torch.rand(IMAGES, channels, 9, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@CASES
def test_folding_changes_neither_the_output_nor_derivatives_of_first_and_second_order(
    norm: Norm, training: bool, channels: int, stride: int
) -> None:
    results = []
    for apply in (by_folding, reference):
        convolution, normalise = layers(norm, channels, stride)
        normalise.train(training)
        x = images(channels).requires_grad_()
        weights = [x, *convolution.parameters(), *normalise.parameters()]
        y = apply(convolution, normalise, x)
        first = torch.autograd.grad((torch.sin(y) + y**2).sum(), weights, create_graph=True)
        second = torch.autograd.grad(sum(torch.cos(g).sum() for g in first), weights)
        results.append([y, *first, *second, *normalise.buffers()])
    for fast, plain in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain, rtol=0, atol=1e-9 * max(1.0, float(plain.detach().abs().max())))


@pytest.mark.parametrize("downsample", ["pool", "stride"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm", ["running", "batch"])
def test_conv4_is_convolution_norm_relu_and_halving(
    norm: Norm, training: bool, downsample: Literal["pool", "stride"]
) -> None:
    torch.manual_seed(0)
    net = Conv4(Conv4Config(channels=OUT, norm=norm, downsample=downsample), (1, 28, 28)).double().train(training)
    x = torch.rand(6, 1, 28, 28, dtype=torch.float64)
    with torch.no_grad():
        expected = x
        for block in net.blocks:
            y = block.conv(expected)
            of_batch = norm == "batch" or training
            moments = (None, None) if of_batch else (block.norm.running_mean, block.norm.running_var)
            y = F.batch_norm(y, *moments, block.norm.weight, block.norm.bias, training=of_batch)
            expected = F.max_pool2d(F.relu(y), 2) if downsample == "pool" else F.relu(y)
        expected = expected.flatten(1) if downsample == "pool" else expected.mean(dim=(2, 3))
        torch.testing.assert_close(net(x), expected, rtol=1e-9, atol=1e-9)
