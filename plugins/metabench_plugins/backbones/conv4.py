"""The four-block convolutional network of the few-shot papers (Vinyals et al. 2016, section 4.1)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from metabench.api import Backbone, Config, Unfit, is_vectorised
from metabench_plugins.backbones.episode_norm import EpisodeNorm, folded

#: Convolution outputs per part, sized so that pooling reads them from the L3 cache.
_AT_ONCE = 3 * 2**19


class Conv4Config(Config):
    """Parameters of `Conv4`.

    Attributes:
        channels: number of channels of every block.
        norm: statistics of batch norm.
            ``running``: of the batch in training, running averages at test (inductive; ProtoNet).
            ``batch``: always of the batch, queries included (transductive; MAML and Reptile).
            ``support``: always of the episode's support set, also for queries (inductive).
        downsample: ``pool`` halves the image by max-pooling and flattens the last one; ``stride`` halves it by strided
            convolution and averages the last one, as MAML and Reptile do on Omniglot.
    """

    channels: PositiveInt = 64
    norm: Literal["running", "batch", "support"] = "running"
    downsample: Literal["pool", "stride"] = "pool"


class Conv4(Backbone):
    """Map [n, C, H, W] images to [n, D] features by four convolutional blocks.

    With 64 channels and pooling, D is 64 for 28×28 images and 1600 for 84×84 images.

    Raises:
        Unfit: the image is too small to be halved four times.
    """

    Config = Conv4Config

    def __init__(self, config: Conv4Config, image_shape: tuple[int, int, int]) -> None:
        super().__init__(config, image_shape)
        channels, height, width = image_shape
        blocks = []
        for _ in range(4):
            blocks.append(_Block(channels, config))
            channels = config.channels
            height, width = (size // 2 if config.downsample == "pool" else (size + 1) // 2 for size in (height, width))
        if height == 0 or width == 0:
            raise Unfit(f"conv4 halves an image four times: {image_shape[1:]} is too small (at least 16×16)")
        self.blocks = nn.ModuleList(blocks)
        self.needs_support = config.norm == "support"
        self.per_image = config.norm == "running"
        self.map_shape = (channels, height, width) if config.downsample == "pool" else None
        self.features = channels * (height * width if config.downsample == "pool" else 1)

    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        """See `metabench.api.Backbone.forward`."""
        x = channels_last(x)
        for block in self.blocks:
            x = block(x, support)
        return x.flatten(1) if self.config.downsample == "pool" else x.mean(dim=(2, 3))


class _Block(nn.Module):
    """Convolution, batch norm, ReLU, and halving of the image."""

    def __init__(self, channels: int, config: Conv4Config) -> None:
        super().__init__()
        self.pool = config.downsample == "pool"
        self.conv = nn.Conv2d(channels, config.channels, 3, stride=1 if self.pool else 2, padding=1)
        self.norm = EpisodeNorm(config.channels, config.norm)

    def forward(self, x: Tensor, support: int | None) -> Tensor:
        affine = folded(self.conv, self.norm, x, support)
        if affine is None:
            return self._halved(self.norm(self.conv(x), support))
        weight, bias = affine
        convolved = partial(F.conv2d, weight=weight, bias=bias, stride=self.conv.stride, padding=self.conv.padding)
        if not self.pool or x.device.type != "cpu" or torch.is_grad_enabled() or is_vectorised():
            return self._halved(convolved(x))
        outputs = self.conv.out_channels * x.shape[2] * x.shape[3]
        return pooled_in_parts(convolved, x, max(1, _AT_ONCE // outputs))

    def _halved(self, x: Tensor) -> Tensor:
        # ReLU and max-pooling commute; after pooling, ReLU has a quarter of the work.
        return F.relu_(halved(x) if self.pool else x)


def channels_last(x: Tensor) -> Tensor:
    """Return [n, C, H, W] images in channels-last memory on a CPU, for fast convolutions.

    With C = 1, NCHW and NHWC strides are the same, so torch may pick the slow layout for the whole network. Force NHWC
    strides on the input.
    """
    if x.device.type != "cpu" or is_vectorised():
        return x
    n, channels, height, width = x.shape
    return x.permute(0, 2, 3, 1).flatten().view(n, height, width, channels).permute(0, 3, 1, 2)


def halved(x: Tensor) -> Tensor:
    """Return ``F.max_pool2d(x, 2)``."""
    # F.max_pool2d also computes the indices of the maxima, which only a gradient needs; `maxima` takes half the time.
    return F.max_pool2d(x, 2) if x.requires_grad else maxima(x)


def maxima(x: Tensor, out: Tensor | None = None) -> Tensor:
    """Return the largest of every 2×2 numbers, in `out` if it is given."""
    height, width = (size // 2 * 2 for size in x.shape[2:])
    columns = torch.maximum(x[..., 0:width:2], x[..., 1:width:2])
    return torch.maximum(columns[:, :, 0:height:2], columns[:, :, 1:height:2], out=out)


def pooled_in_parts(convolved: Callable[[Tensor], Tensor], x: Tensor, at_once: int) -> Tensor:
    """Return ``F.relu(F.max_pool2d(convolved(x), 2))``, without a gradient on a CPU.

    The output of the convolution is pooled part by part while it is in the cache: .92 of the time of ProtoNet's test.

    Args:
        convolved: a convolution.
        x: [n, C, H, W].
        at_once: images per part.
    """
    first, *others = torch.split(x, at_once)
    first_pooled = F.relu_(maxima(convolved(first)))
    if not others:
        return first_pooled
    pooled = torch.empty((len(x), *first_pooled.shape[1:]), dtype=first_pooled.dtype, memory_format=torch.channels_last)
    pooled[:at_once] = first_pooled
    for part, place in zip(others, torch.split(pooled, at_once)[1:], strict=True):
        F.relu_(maxima(convolved(part), out=place))
    return pooled
