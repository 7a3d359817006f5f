"""The four-block convolutional network of R2D2 (Bertinetto et al. 2019, section 4.2)."""

from __future__ import annotations

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from metabench.api import Backbone, Config, Unfit
from metabench_plugins.backbones.conv_norm import ConvNorm
from metabench_plugins.backbones.episode_norm import Norm
from metabench_plugins.backbones.layout import channels_last, halved

#: Negative slope of the leaky ReLU.
_SLOPE = 0.1


class Conv512Config(Config):
    """Parameters of `Conv512`.

    Attributes:
        channels: numbers of channels of the four blocks.
        dropout: shares of features that are dropped after each block in training.
        norm: statistics of batch norm, as in `metabench_plugins.backbones.conv4.Conv4Config`.
    """

    channels: list[PositiveInt] = Field(default=[96, 192, 384, 512], min_length=4, max_length=4)
    dropout: list[float] = Field(default=[0.0, 0.0, 0.1, 0.3], min_length=4, max_length=4)
    norm: Norm = "running"


class Conv512(Backbone):
    """Map [n, C, H, W] images to [n, D] features: all values of the third and of the fourth block.

    A block is convolution, batch norm, max-pooling and leaky ReLU, which the last one lacks. D is 51 200 for 84×84
    images with the default parameters.

    Raises:
        Unfit: the image is too small to be halved four times.
    """

    Config = Conv512Config

    def __init__(self, config: Conv512Config, image_shape: tuple[int, int, int]) -> None:
        super().__init__(config, image_shape)
        height, width = image_shape[1:]
        if min(height, width) < 2**4:
            raise Unfit(f"conv-512 halves an image four times: {image_shape[1:]} is too small (at least 16×16)")
        inputs = [image_shape[0], *config.channels]
        self.blocks = nn.ModuleList(
            ConvNorm(given, channels, 3, config.norm, bias=True)
            for given, channels in zip(inputs, config.channels, strict=False)
        )
        self.needs_support = config.norm == "support"
        self.per_image = config.norm == "running"
        self.features = sum(
            channels * (height // 2**halvings) * (width // 2**halvings)
            for channels, halvings in zip(config.channels[2:], (3, 4), strict=True)
        )

    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        """See `metabench.api.Backbone.forward`."""
        x = channels_last(x)
        outputs: list[Tensor] = []
        for block, share in zip(self.blocks, self.config.dropout, strict=True):
            x = halved(block(x, support))
            if len(outputs) < 3:
                x = F.leaky_relu_(x, _SLOPE)
            x = F.dropout(x, share, self.training)
            outputs.append(x)
        return torch.cat([output.flatten(1) for output in outputs[2:]], dim=1)
