"""WRN-28-10 (Zagoruyko & Komodakis 2016), as few-shot papers use it."""

from __future__ import annotations

from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from metabench.api import Backbone, Config
from metabench_plugins.backbones.conv_norm import draw_weights, every
from metabench_plugins.backbones.episode_norm import EpisodeNorm, Norm
from metabench_plugins.backbones.layout import channels_last

#: Blocks of each of the three stages of a network of 28 layers.
_DEPTH = 4


class WideResNetConfig(Config):
    """Parameters of `WideResNet`.

    Attributes:
        widen: factor k of the numbers of channels, 16k, 32k and 64k.
        dropout: share of features that are dropped between the convolutions of a block in training.
        norm: statistics of batch norm, as in `metabench_plugins.backbones.conv4.Conv4Config`.
    """

    widen: PositiveInt = 10
    dropout: float = Field(default=0.3, ge=0, lt=1)
    norm: Norm = "running"


class WideResNet(Backbone):
    """Map [n, C, H, W] images to [n, 64 k] features by 28 layers, the last one averaged.

    Batch norm and ReLU come before each convolution. The features are 640 with the default parameters.
    """

    Config = WideResNetConfig

    def __init__(self, config: WideResNetConfig, image_shape: tuple[int, int, int]) -> None:
        super().__init__(config, image_shape)
        inputs = 16
        self.stem = nn.Conv2d(image_shape[0], inputs, 3, padding=1, bias=False)
        blocks = []
        for stage in range(3):
            channels = 16 * 2**stage * config.widen
            for place in range(_DEPTH):
                blocks.append(_Block(inputs, channels, 2 if stage and not place else 1, config))
                inputs = channels
        self.blocks = nn.ModuleList(blocks)
        self.norm = EpisodeNorm(inputs, config.norm)
        draw_weights(self)
        self.needs_support = config.norm == "support"
        self.per_image = config.norm == "running"
        self.features = inputs

    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        """See `metabench.api.Backbone.forward`."""
        x = self.stem(channels_last(x))
        for block in self.blocks:
            x = block(x, support)
        return F.relu_(self.norm(x, support)).mean(dim=(2, 3))


class _Block(nn.Module):
    """Two convolutions, each after batch norm and ReLU; the shortcut is a convolution where the shape changes."""

    def __init__(self, inputs: int, channels: int, stride: int, config: WideResNetConfig) -> None:
        super().__init__()
        self.first_norm = EpisodeNorm(inputs, config.norm)
        self.first = nn.Conv2d(inputs, channels, 3, stride=stride, padding=1, bias=False)
        self.second_norm = EpisodeNorm(channels, config.norm)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        same = stride == 1 and inputs == channels
        self.shortcut = None if same else nn.Conv2d(inputs, channels, 1, bias=False)
        self.stride = stride
        self.dropout = config.dropout

    def forward(self, x: Tensor, support: int | None) -> Tensor:
        y = F.relu_(self.first_norm(x, support))
        shortcut = x if self.shortcut is None else self.shortcut(every(y, self.stride))
        y = F.relu_(self.second_norm(self.first(y), support))
        residual: Tensor = self.second(F.dropout(y, self.dropout, self.training))
        return shortcut + residual
