"""ResNet-10 and ResNet-18 (He et al. 2016), with the stems of few-shot papers."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from metabench.api import Backbone, Config
from metabench_plugins.backbones.conv_norm import ConvNorm, draw_weights
from metabench_plugins.backbones.episode_norm import Norm
from metabench_plugins.backbones.layout import channels_last


class ResNetConfig(Config):
    """Parameters of `ResNet10` and `ResNet18`.

    Attributes:
        channels: number of channels of the first stage; each of the other three has twice those before.
        stem: the layers before the stages.
            ``standard``: 7×7 convolution with stride 2 and max-pooling, for 224×224 images (Chen et al. 2019).
            ``small``: 3×3 convolution, for 84×84 images (SimpleShot, TIM, LaplacianShot).
        norm: statistics of batch norm, as in `metabench_plugins.backbones.conv4.Conv4Config`.
    """

    channels: PositiveInt = 64
    stem: Literal["standard", "small"] = "standard"
    norm: Norm = "running"


class ResNet(Backbone):
    """Map [n, C, H, W] images to [n, D] features by four stages of residual blocks, the last one averaged.

    D is 512 with 64 channels.
    """

    Config = ResNetConfig
    #: Number of blocks of a stage.
    depth: ClassVar[int]

    def __init__(self, config: ResNetConfig, image_shape: tuple[int, int, int]) -> None:
        super().__init__(config, image_shape)
        channels, norm = config.channels, config.norm
        standard = config.stem == "standard"
        self.stem = ConvNorm(image_shape[0], channels, 7 if standard else 3, norm, stride=2 if standard else 1)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1) if standard else nn.Identity()
        blocks, inputs = [], channels
        for stage in range(4):
            channels = config.channels * 2**stage
            for place in range(self.depth):
                blocks.append(_Block(inputs, channels, 2 if stage and not place else 1, norm))
                inputs = channels
        self.blocks = nn.ModuleList(blocks)
        draw_weights(self)
        self.needs_support = norm == "support"
        self.per_image = norm == "running"
        self.features = channels

    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        """See `metabench.api.Backbone.forward`."""
        x = self.pool(F.relu_(self.stem(channels_last(x), support)))
        for block in self.blocks:
            x = block(x, support)
        return x.mean(dim=(2, 3))


class ResNet10(ResNet):
    """Map [n, C, H, W] images to [n, D] features by four residual blocks (ResNet-10 of Chen et al. 2019).

    D is 512 with 64 channels.
    """

    depth = 1


class ResNet18(ResNet):
    """Map [n, C, H, W] images to [n, D] features by four stages of two residual blocks (He et al. 2016).

    D is 512 with 64 channels.
    """

    depth = 2


class _Block(nn.Module):
    """Two convolutions and a shortcut, which is a convolution where the shape changes."""

    def __init__(self, inputs: int, channels: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.first = ConvNorm(inputs, channels, 3, norm, stride)
        self.second = ConvNorm(channels, channels, 3, norm)
        same = stride == 1 and inputs == channels
        self.shortcut = None if same else ConvNorm(inputs, channels, 1, norm, stride)

    def forward(self, x: Tensor, support: int | None) -> Tensor:
        y = self.second(F.relu_(self.first(x, support)), support)
        return F.relu_(y + (x if self.shortcut is None else self.shortcut(x, support)))
