"""Convolutions as matrix products, for weights of each episode's own within `torch.vmap`.

On a CPU, torch convolves with each episode's weights in turn, and finds the patches of images anew for each derivative.
A product of patches and weights is one batched product for several episodes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

#: Numbers of patches in a part of the episodes: 2 MiB of float32.
_AT_ONCE = 2**19


class Window(NamedTuple):
    """The square windows of a convolution.

    Attributes:
        size: height and width k.
        stride: distance of two windows.
        padding: rows and columns of zeros on each side of the image.
    """

    size: int
    stride: int
    padding: int

    def count(self, side: int) -> int:
        """Return the number of windows along a side of the image."""
        return (side + 2 * self.padding - self.size) // self.stride + 1

    def rows(self, x: Tensor) -> int:
        """Return the number of windows of all images of an episode, of [E, n, H, W, C]."""
        return x.shape[1] * self.count(x.shape[2]) * self.count(x.shape[3])


def convolved(x: Tensor, weight: Tensor, window: Window) -> Tensor:
    """Return the convolution of [n, H, W, C] images; it can be differentiated twice.

    Args:
        x: [n, H, W, C] images.
        weight: [C', C, k, k] weights.
        window: the windows of the convolution.

    Returns:
        [n, H', W', C'] images.
    """
    y: Tensor = _Convolution.apply(x.unsqueeze(0), weight.permute(0, 2, 3, 1).flatten(1).unsqueeze(0), window)
    n, height, width, _ = x.shape
    return y.view(n, window.count(height), window.count(width), -1)


def patches(images: Tensor, window: Window) -> Tensor:
    """Return the […, n·H'·W', k·k·C] patches of […, n, H, W, C] images, each by row, column and channel."""
    k, stride, border = window
    *batch, n, height, width, channels = images.shape
    padded = F.pad(images, (0, 0, border, border, border, border)).reshape(
        -1, height + 2 * border, width + 2 * border, channels
    )
    image, row, pixel, _ = padded.stride()
    # The pixels in a row of a window are neighbours in memory: k·C numbers are copied at once.
    size = (len(padded), window.count(height), window.count(width), k, k * channels)
    windows = padded.as_strided(size, (image, stride * row, stride * pixel, row, 1))
    return windows.reshape(*batch, n * size[1] * size[2], k**2 * channels)


def sum_of_patches(rows: Tensor, window: Window, shape: tuple[int, ...]) -> Tensor:
    """Add patches at their places: the adjoint of `patches`.

    Args:
        rows: […, n·H'·W', k·k·C] patches.
        window: the windows that they come from.
        shape: (…, n, H, W, C) of the images.
    """
    k, stride, border = window
    height, width, channels = shape[-3:]
    down, across = window.count(height), window.count(width)
    rows = rows.reshape(-1, down, across, k, k * channels)
    high, wide = (max(border + side, stride * (count - 1) + k) for side, count in ((height, down), (width, across)))
    padded = rows.new_zeros(len(rows), high, wide, channels)
    image, row, pixel, _ = padded.stride()
    # Parts of a window no larger than the stride: within one, no two windows overlap.
    for top in range(0, k, stride):
        for left in range(0, k, stride):
            size = (min(stride, k - top), min(stride, k - left) * channels)
            strides = (image, stride * row, stride * pixel, row, 1)
            place = padded.as_strided((len(rows), down, across, *size), strides, top * row + left * pixel)
            place += rows[..., top : top + size[0], left * channels : left * channels + size[1]]
    return padded[:, border : border + height, border : border + width].view(shape)


class _Convolution(torch.autograd.Function):
    """Return the [E, M, C'] products of patches and weights."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, window: Window) -> Tensor:
        y = x.new_empty(len(x), window.rows(x), weight.shape[1])
        for part in _parts(x, window):
            torch.bmm(patches(x[part], window), weight[part].mT, out=y[part])
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, ctx.window = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, None]:
        of_weight, *of_x = _Slopes.apply(gradients[0], *ctx.saved_tensors, ctx.window, ctx.needs_input_grad[0])
        return (of_x[0] if of_x else None), of_weight, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Tensor, int]:
        return _over_episodes(_Convolution, info.batch_size, in_dims, inputs)[0], 0


class _Slopes(torch.autograd.Function):
    """Return the gradients of weights and, if needed, of images from g, that of the convolution."""

    @staticmethod
    def forward(g: Tensor, x: Tensor, weight: Tensor, window: Window, needs_x: bool) -> tuple[Tensor, ...]:
        of_weight = weight.new_empty(weight.shape)
        of_x = x.new_empty(x.shape if needs_x else 0)
        for part in _parts(x, window):
            torch.bmm(g[part].mT, patches(x[part], window), out=of_weight[part])
            if needs_x:
                of_x[part] = sum_of_patches(g[part] @ weight[part], window, x[part].shape)
        return (of_weight, of_x) if needs_x else (of_weight,)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *tensors, ctx.window, _ = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_weight: Tensor, *of_x: Tensor) -> tuple[Tensor | None, ...]:
        window = ctx.window
        g, x, weight = ctx.saved_tensors
        needs_x = ctx.needs_input_grad[1]
        second_g = g.new_empty(g.shape)
        second_x = x.new_empty(x.shape) if needs_x else None
        second_weight = weight.new_empty(weight.shape) if of_x else None
        for part in _parts(x, window):
            torch.bmm(patches(x[part], window), of_weight[part].mT, out=second_g[part])
            if second_x is not None:
                second_x[part] = sum_of_patches(g[part] @ of_weight[part], window, x[part].shape)
            if second_weight is not None:
                rows = patches(of_x[0][part], window)
                second_g[part].baddbmm_(rows, weight[part].mT)
                torch.bmm(g[part].mT, rows, out=second_weight[part])
        return second_g, second_x, second_weight, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        slopes = _over_episodes(_Slopes, info.batch_size, in_dims, inputs)
        return slopes, (0,) * len(slopes)


def _parts(x: Tensor, window: Window) -> list[slice]:
    """Return parts of the episodes whose patches stay in a cache."""
    at_once = max(1, _AT_ONCE // (window.rows(x) * window.size**2 * x.shape[-1]))
    return [slice(start, start + at_once) for start in range(0, len(x), at_once)]


def batched(inputs: tuple[Any, ...], in_dims: tuple[Any, ...], size: int) -> list[Any]:
    """Return tensors with the dimension of `torch.vmap` first, and other arguments as they are."""
    return [
        value
        if not isinstance(value, Tensor)
        else value.expand(size, *value.shape)
        if dim is None
        else value.movedim(dim, 0)
        for value, dim in zip(inputs, in_dims, strict=True)
    ]


def _over_episodes(function: Any, size: int, in_dims: tuple[Any, ...], inputs: tuple[Any, ...]) -> tuple[Tensor, ...]:
    """Apply a function of [E, …] tensors to tensors with one more dimension E', as E'·E episodes."""
    flat = [value.flatten(0, 1) if isinstance(value, Tensor) else value for value in batched(inputs, in_dims, size)]
    results = function.apply(*flat)
    return tuple(r.unflatten(0, (size, -1)) for r in (results if isinstance(results, tuple) else (results,)))
