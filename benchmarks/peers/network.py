"""Conv4 in plain PyTorch, with metabench's parameter names.

Equal names let contestants exchange weights.
"""

from __future__ import annotations

import torch
from contestants import WAY
from torch import Tensor, nn
from torch.nn import functional as F

CHANNELS = 64


class Block(nn.Module):
    """Convolution, batch norm, ReLU, max-pooling; or a convolution with stride 2 in the place of pooling."""

    def __init__(self, inputs: int, channels: int, running: bool, strides: bool) -> None:
        super().__init__()
        self.pools = not strides
        self.conv = nn.Conv2d(inputs, channels, 3, padding=1, stride=2 if strides else 1)
        self.norm = nn.BatchNorm2d(channels, track_running_stats=running)

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, C, H, W] to [n, C', H/2, W/2]."""
        x = F.relu(self.norm(self.conv(x)))
        return F.max_pool2d(x, 2) if self.pools else x


class Conv4(nn.Module):
    """Embeds [n, 1, 28, 28] images as [n, channels] features.

    Args:
        running: whether batch norm keeps running averages; otherwise it always uses the batch's statistics.
        strides: whether convolutions halve the image, and the last maps are averaged; otherwise pooling does.
        channels: number of channels of every block.
    """

    def __init__(self, running: bool, strides: bool = False, channels: int = CHANNELS) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(1 if i == 0 else channels, channels, running, strides) for i in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, 1, 28, 28] images to [n, channels] features."""
        for block in self.blocks:
            x = block(x)
        return x.mean(dim=(2, 3))  # one pixel is left of 28 after pooling, four after strides


class Classifier(Conv4):
    """MAML's network: Conv4 with batch statistics and a linear layer."""

    def __init__(self, strides: bool = False, channels: int = CHANNELS) -> None:
        super().__init__(False, strides, channels)
        self.head = nn.Linear(channels, WAY)

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, 1, 28, 28] images to [n, N] scores."""
        scores: Tensor = self.head(super().forward(x))
        return scores


def initial_embedding() -> Conv4:
    """Return the network of the evaluations, equal in every process."""
    torch.manual_seed(0)
    return Conv4(running=True)


def initial_classifier() -> Classifier:
    """Return MAML's network, with equal weights in every process."""
    torch.manual_seed(0)
    return Classifier()


def initial_context() -> tuple[nn.LSTM, nn.LSTMCell]:
    """Return matching networks' encoders, equal in every process."""
    torch.manual_seed(1)
    support = nn.LSTM(CHANNELS, CHANNELS, batch_first=True, bidirectional=True)
    return support, nn.LSTMCell(2 * CHANNELS, CHANNELS)
