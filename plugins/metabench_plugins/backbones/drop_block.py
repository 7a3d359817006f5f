"""DropBlock (Ghiasi et al. 2018): dropout of connected regions of feature maps."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class DropBlock(nn.Module):
    """Zero square regions of feature maps in training, and rescale all others.

    As in the code of MetaOptNet (Lee et al. 2019), the share of dropped values rises linearly with the number of
    training forwards, which is a buffer: a training that resumes goes on at its share.

    Args:
        size: height and width of a region.
        rate: share of values that are dropped in the end, but for overlaps.
        steps: number of training forwards until then.
    """

    forwards: Tensor

    def __init__(self, size: int, rate: float, steps: int) -> None:
        super().__init__()
        self.size, self.rate, self.steps = size, rate, steps
        self.register_buffer("forwards", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """Return [n, C, H, W] features; in eval mode, as they are.

        A region is no larger than the map. Its corner is drawn where the region fits into the map, with the probability
        γ = rate / size² · H·W / ((H - size + 1)(W - size + 1)).
        """
        if not self.training or not self.rate:
            return x
        self.forwards.add_(1)
        rate = self.rate * (self.forwards / self.steps).clamp_max(1)  # a tensor: reading it would wait for a GPU
        n, channels, height, width = x.shape
        size = min(self.size, height, width)
        corners = n, channels, height - size + 1, width - size + 1
        gamma = rate / size**2 * (height * width) / (corners[2] * corners[3])
        drawn = (torch.rand(corners, device=x.device) < gamma).float()
        kept = 1 - F.max_pool2d(F.pad(drawn, (size - 1,) * 4), size, stride=1)
        return x * (kept * (kept.numel() / kept.sum().clamp_min(1))).to(x.dtype)
