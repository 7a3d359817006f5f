"""The four-block convolutional network of the few-shot papers (Vinyals et al. 2016, section 4.1)."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from metabench.api import Backbone, Config, Unfit, is_vectorised
from metabench_plugins.backbones.episode_norm import EpisodeNorm, Norm, folded
from metabench_plugins.backbones.layout import channels_last, halved, maxima
from metabench_plugins.backbones.products import Window, convolved
from metabench_plugins.backbones.row_norm import normalised_relu

#: By `Conv4Config.downsample`: the number of blocks that pool, the same in words, and the side of the smallest image.
_POOLING = {
    "pool": (4, "four times", 16),
    "stride": (0, "", 1),
    "average": (3, "three times", 8),
    "twice": (2, "twice", 10),
}
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
        downsample: the halving of the image, and the features of the last maps.
            ``pool``: every block by max-pooling; flattened.
            ``stride``: every block by strided convolution; averaged, as MAML and Reptile do on Omniglot.
            ``average``: the first three blocks by max-pooling; averaged, as RFS (Tian et al. 2020).
            ``twice``: the first two blocks by max-pooling, after convolutions without padding; flattened, as
            RelationNet (Sung et al. 2018).
    """

    channels: PositiveInt = 64
    norm: Norm = "running"
    downsample: Literal["pool", "stride", "average", "twice"] = "pool"


class Conv4(Backbone):
    """Map [n, C, H, W] images to [n, D] features by four convolutional blocks.

    With 64 channels and pooling, D is 64 for 28×28 images and 1600 for 84×84 images.

    Raises:
        Unfit: the image is too small to be halved so often.
    """

    Config = Conv4Config

    def __init__(self, config: Conv4Config, image_shape: tuple[int, int, int]) -> None:
        super().__init__(config, image_shape)
        channels, height, width = image_shape
        pools, times, smallest = _POOLING[config.downsample]
        if min(height, width) < smallest:
            size = f"{smallest}×{smallest}"
            raise Unfit(f"conv4 halves an image {times}: {image_shape[1:]} is too small (at least {size})")
        blocks = []
        for place in range(4):
            blocks.append(_Block(channels, config, place < pools))
            channels = config.channels
            height, width = blocks[-1].side(height), blocks[-1].side(width)
        self.blocks = nn.ModuleList(blocks)
        self.needs_support = config.norm == "support"
        self.per_image = config.norm == "running"
        self.vectorises = config.norm == "batch" and config.downsample == "stride"
        self.map_shape = (channels, height, width) if config.downsample in ("pool", "twice") else None
        self.features = math.prod(self.map_shape) if self.map_shape else channels

    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        """See `metabench.api.Backbone.forward`."""
        if self.vectorises and is_vectorised() and x.device.type == "cpu":
            return self._by_products(x)
        x = channels_last(x)
        for block in self.blocks:
            x = block(x, support)
        return x.flatten(1) if self.map_shape else x.mean(dim=(2, 3))

    def _by_products(self, x: Tensor) -> Tensor:
        """Return the features by blocks whose convolutions are matrix products."""
        x = x.permute(0, 2, 3, 1)
        for block in self.blocks:
            assert isinstance(block, _Block)
            x = block.by_product(x)
        return x.mean(dim=(1, 2))


class _Block(nn.Module):
    """Convolution, batch norm, ReLU, and halving of the image, by pooling or by the stride."""

    def __init__(self, channels: int, config: Conv4Config, pool: bool) -> None:
        super().__init__()
        self.pool = pool
        stride = 2 if config.downsample == "stride" else 1
        padding = 0 if pool and config.downsample == "twice" else 1
        self.conv = nn.Conv2d(channels, config.channels, 3, stride=stride, padding=padding)
        self.norm = EpisodeNorm(config.channels, config.norm)

    def side(self, side: int) -> int:
        """Return height or width of the output for those of the input."""
        convolved = (side + 2 * int(self.conv.padding[0]) - 3) // self.conv.stride[0] + 1
        return convolved // 2 if self.pool else convolved

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

    def by_product(self, x: Tensor) -> Tensor:
        """Map [n, H, W, C] images to [n, H', W', C'], with the statistics of the batch and without pooling."""
        conv, norm = self.conv, self.norm
        window = Window(conv.kernel_size[0], conv.stride[0], int(conv.padding[0]))
        affine = folded(conv, norm, x.permute(0, 3, 1, 2), None)
        if affine is not None:
            weight, bias = affine
            return F.relu(convolved(x, weight, window) + bias)
        # The norm subtracts the mean of each channel, and with it the bias of the convolution.
        y = convolved(x, conv.weight, window)
        return normalised_relu(y.flatten(0, 2), norm.weight, norm.bias, norm.eps).view_as(y)

    def _halved(self, x: Tensor) -> Tensor:
        # ReLU and max-pooling commute; after pooling, ReLU has a quarter of the work.
        return F.relu_(halved(x) if self.pool else x)


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
