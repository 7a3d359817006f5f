"""Memory layout and max-pooling of images, for speed on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from metabench.api import is_vectorised


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
