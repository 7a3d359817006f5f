"""ResNet-12 of the few-shot papers: TADAM (Oreshkin et al. 2018), as in the code of MetaOptNet (Lee et al. 2019)."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from metabench.api import Backbone, Config, Unfit
from metabench_plugins.backbones.conv_norm import ConvNorm, draw_weights
from metabench_plugins.backbones.drop_block import DropBlock
from metabench_plugins.backbones.episode_norm import Norm
from metabench_plugins.backbones.layout import channels_last, halved

#: Negative slope of the leaky ReLU.
_SLOPE = 0.1


class ResNet12Config(Config):
    """Parameters of `ResNet12`.

    Attributes:
        channels: numbers of channels of the four blocks. The default is the wide network of MetaOptNet, RFS and FEAT;
            ``[64, 128, 256, 512]`` with ``drop: 0`` is the narrow one of Meta-Baseline.
        drop: share of features that are dropped in training: single ones after the first two blocks, regions
            (DropBlock) after the last two.
        drop_block: height and width of a region; None takes 5, or 2 of images that end in maps smaller than 5×5, as
            MetaOptNet on CIFAR.
        drop_steps: number of training forwards in which the share of DropBlock rises from 0. An episode is one forward,
            and so is a batch of images.
        pool: ``average`` averages the last maps; ``none`` takes all their values, as MetaOptNet.
        norm: statistics of batch norm, as in `metabench_plugins.backbones.conv4.Conv4Config`.
    """

    channels: list[PositiveInt] = Field(default=[64, 160, 320, 640], min_length=4, max_length=4)
    drop: float = Field(default=0.1, ge=0, lt=1)
    drop_block: PositiveInt | None = None
    drop_steps: PositiveInt = 40_000
    pool: Literal["average", "none"] = "average"
    norm: Norm = "running"


class ResNet12(Backbone):
    """Map [n, C, H, W] images to [n, D] features by four residual blocks, each halving the image.

    D is 640 with the default parameters, and 16 000 for 84×84 images with ``pool: none``.

    Raises:
        Unfit: the image is too small to be halved four times.
    """

    Config = ResNet12Config

    def __init__(self, config: ResNet12Config, image_shape: tuple[int, int, int]) -> None:
        super().__init__(config, image_shape)
        inputs, *size = image_shape
        height, width = (side // 2**4 for side in size)
        if height == 0 or width == 0:
            raise Unfit(f"resnet12 halves an image four times: {image_shape[1:]} is too small (at least 16×16)")
        region = config.drop_block or (5 if min(height, width) >= 5 else 2)
        blocks, drops = [], list[nn.Module]()
        for place, channels in enumerate(config.channels):
            blocks.append(_Block(inputs, channels, config.norm))
            drops.append(nn.Dropout(config.drop) if place < 2 else DropBlock(region, config.drop, config.drop_steps))
            inputs = channels
        self.blocks, self.drops = nn.ModuleList(blocks), nn.ModuleList(drops)
        draw_weights(self, _SLOPE)
        self.needs_support = config.norm == "support"
        self.per_image = config.norm == "running"
        self.map_shape = (inputs, height, width) if config.pool == "none" else None
        self.features = math.prod(self.map_shape) if self.map_shape else inputs

    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        """See `metabench.api.Backbone.forward`."""
        x = channels_last(x)
        for block, drop in zip(self.blocks, self.drops, strict=True):
            x = drop(block(x, support))
        return x.flatten(1) if self.map_shape else x.mean(dim=(2, 3))


class _Block(nn.Module):
    """Three convolutions and a shortcut, leaky ReLU, and halving of the image."""

    def __init__(self, inputs: int, channels: int, norm: Norm) -> None:
        super().__init__()
        self.first = ConvNorm(inputs, channels, 3, norm)
        self.second = ConvNorm(channels, channels, 3, norm)
        self.third = ConvNorm(channels, channels, 3, norm)
        self.shortcut = ConvNorm(inputs, channels, 1, norm)

    def forward(self, x: Tensor, support: int | None) -> Tensor:
        y = F.leaky_relu_(self.first(x, support), _SLOPE)
        y = F.leaky_relu_(self.second(y, support), _SLOPE)
        y = self.third(y, support) + self.shortcut(x, support)
        # Leaky ReLU and max-pooling commute; after pooling, leaky ReLU has a quarter of the work.
        return F.leaky_relu_(halved(y), _SLOPE)
