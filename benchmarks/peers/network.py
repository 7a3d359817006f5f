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
    """Convolution, batch norm, ReLU, max-pooling."""

    def __init__(self, channels: int, running: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, CHANNELS, 3, padding=1)
        self.norm = nn.BatchNorm2d(CHANNELS, track_running_stats=running)

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, C, H, W] to [n, 64, H/2, W/2]."""
        return F.max_pool2d(F.relu(self.norm(self.conv(x))), 2)


class Conv4(nn.Module):
    """Embeds [n, 1, 28, 28] images as [n, 64] features.

    Args:
        running: whether batch norm keeps running averages; otherwise it always uses the batch's statistics.
    """

    def __init__(self, running: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(1 if i == 0 else CHANNELS, running) for i in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, 1, 28, 28] images to [n, 64] features."""
        for block in self.blocks:
            x = block(x)
        return x.flatten(1)


class Classifier(Conv4):
    """MAML's network: Conv4 with batch statistics and a linear layer."""

    def __init__(self) -> None:
        super().__init__(running=False)
        self.head = nn.Linear(CHANNELS, WAY)

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
