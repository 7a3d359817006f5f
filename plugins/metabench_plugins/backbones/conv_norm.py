"""A convolution and the batch norm of its output, as one layer."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from metabench_plugins.backbones.episode_norm import EpisodeNorm, Norm, folded


class ConvNorm(nn.Module):
    """A convolution that keeps the size of an image, or divides it by `stride`, and the batch norm of its output.

    Args:
        inputs: number of channels C of the input.
        channels: number of channels C' of the output.
        kernel: height and width of the kernel, an odd number.
        norm: statistics of batch norm, see `EpisodeNorm`.
        stride: stride of the convolution.
        bias: whether the convolution has a bias of its own.
    """

    def __init__(
        self, inputs: int, channels: int, kernel: int, norm: Norm, stride: int = 1, bias: bool = False
    ) -> None:
        super().__init__()
        self.step = stride if kernel == 1 else 1
        self.conv = nn.Conv2d(inputs, channels, kernel, stride=stride // self.step, padding=kernel // 2, bias=bias)
        self.norm = EpisodeNorm(channels, norm)

    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        """Map [n, C, H, W] to [n, C', H', W']; the first `support` images are the support set."""
        x = every(x, self.step)
        affine = folded(self.conv, self.norm, x, support)
        if affine is None:
            normalised: Tensor = self.norm(self.conv(x), support)
            return normalised
        weight, bias = affine
        return F.conv2d(x, weight, bias, self.conv.stride, self.conv.padding)


def every(x: Tensor, step: int) -> Tensor:
    """Return every `step`-th row and column of [n, C, H, W], for a convolution of one pixel.

    A strided convolution of one pixel is the same, but its backward pass in torch 2.14 writes beyond its memory on
    processors without AVX-512, if the channels are not a multiple of 8.
    """
    return x if step == 1 else x[:, :, ::step, ::step]


def draw_weights(network: nn.Module, slope: float = 0.0) -> None:
    """Draw the weights of all convolutions as He et al. 2015, from the number of outputs.

    Args:
        network: the network.
        slope: negative slope of its leaky ReLU; 0 of ReLU.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, a=slope, mode="fan_out", nonlinearity="leaky_relu")
