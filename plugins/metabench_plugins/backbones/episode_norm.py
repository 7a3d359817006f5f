"""Batch norm with explicit statistics, foldable into convolutions."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metabench.api import is_vectorised

#: Statistics of batch norm: running averages of training, those of the current batch, or of the support images.
Norm = Literal["running", "batch", "support"]


class EpisodeNorm(nn.BatchNorm2d):
    """Batch norm with an explicit choice of statistics.

    Statistics of the queries leak their classes and make a method transductive (TaskNorm, Bronskill et al. 2020); see
    `metabench_plugins.backbones.conv4.Conv4Config.norm`.

    Args:
        channels: number of channels C.
        norm: the statistics.
    """

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__(channels, track_running_stats=norm == "running")
        self.from_support = norm == "support"

    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        """Normalise features.

        Args:
            x: [n, C, H, W] features.
            support: number of support images, which come first; used by ``norm="support"`` only. None takes the
                statistics of all images.

        Returns:
            [n, C, H, W] normalised features.
        """
        if not self.from_support or support is None:
            if not is_vectorised() or self.track_running_stats:
                return super().forward(x)
            # Inside torch.vmap, batch norm with given scales has a wrong second derivative: scale afterwards.
            normalised = F.batch_norm(x, None, None, training=True, eps=self.eps)
            return normalised * self.weight.reshape(1, -1, 1, 1) + self.bias.reshape(1, -1, 1, 1)
        variance, mean = torch.var_mean(x[:support], dim=(0, 2, 3), correction=0)
        scale, shift = self.affine_map(mean, variance)
        return x * scale.reshape(1, -1, 1, 1) + shift.reshape(1, -1, 1, 1)

    def affine_map(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Return the [C] scales and shifts of the normalisation.

        Args:
            mean: [C] means of the features.
            variance: [C] variances of the features (divisor n).
        """
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return scale, self.bias - mean * scale

    def track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Update the running averages, as `nn.BatchNorm2d` does.

        Args:
            mean: [C] means of the batch.
            variance: [C] variances of the batch (divisor `count`).
            count: number of values per channel.
        """
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        assert self.momentum is not None
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)


def folded(conv: nn.Conv2d, norm: EpisodeNorm, x: Tensor, support: int | None) -> tuple[Tensor, Tensor] | None:
    """Return weights and bias of one convolution equal to ``norm(conv(x))``.

    Given mean and variance of the convolution's output, batch norm is an affine map of each channel, which weights and
    bias can absorb. This saves forward and backward passes over the largest tensors of the network. The moments are
    known beforehand from running averages; for inputs with few channels they follow from the moments of the input's
    patches (`output_moments`).

    Args:
        conv: a convolution with a square kernel.
        norm: the batch norm of its output.
        x: [n, C, H, W] input of the convolution.
        support: number of support images, see `EpisodeNorm.forward`.

    Returns:
        [C', C, k, k] weights and [C'] bias; None where folding would save nothing.
    """
    if norm.track_running_stats and not norm.training:
        mean, variance = norm.running_mean, norm.running_var
    elif 2 * conv.in_channels * max(9, conv.kernel_size[0] ** 2) <= conv.out_channels:  # an image's few channels
        batch = x if support is None or not norm.from_support else x[:support]
        mean, variance, count = output_moments(conv, batch)
        norm.track(mean, variance, count)
    else:
        return None
    assert mean is not None
    assert variance is not None
    scale, shift = norm.affine_map(mean, variance)
    bias = shift if conv.bias is None else shift + conv.bias * scale
    return conv.weight * scale.reshape(-1, 1, 1, 1), bias


def output_moments(conv: nn.Conv2d, x: Tensor) -> tuple[Tensor, Tensor, int]:
    """Return the moments of each channel of ``conv(x)``.

    If the patches of x have mean μ and covariance Σ, the output W·patch + b has mean W μ + b and variance W Σ Wᵀ.

    Args:
        conv: a convolution with a square kernel.
        x: [n, C, H, W] input of the convolution.

    Returns:
        [C'] means, [C'] variances, and the number of values per channel.
    """
    with torch.autocast(x.device.type, enabled=False):  # moments of rounded patches are inaccurate
        return _output_moments(conv, x)


def _output_moments(conv: nn.Conv2d, x: Tensor) -> tuple[Tensor, Tensor, int]:
    size, stride, padding = conv.kernel_size[0], conv.stride[0], int(conv.padding[0])
    patches = F.pad(x, (padding,) * 4).unfold(2, size, stride).unfold(3, size, stride)  # [n, C, H', W', k, k]
    patches = patches.permute(1, 4, 5, 0, 2, 3).reshape(conv.in_channels * size**2, -1)
    mean = patches.mean(dim=1)
    centred = patches - mean.unsqueeze(1)
    weight = conv.weight.flatten(1)
    count = patches.shape[1]
    # Rounding can make a tiny variance negative.
    variance = (weight @ (centred @ centred.T / count) * weight).sum(dim=1).clamp_min(0)
    output_mean = weight @ mean
    return output_mean if conv.bias is None else output_mean + conv.bias, variance, count
