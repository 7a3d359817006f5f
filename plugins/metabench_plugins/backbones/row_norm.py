"""Batch norm and ReLU of pixels, with their second derivative, within `torch.vmap` too.

The second derivative of torch's batch norm is made of dozens of operations, and is wrong where `torch.vmap` gives it
scales (docs/performance.md). Here, each derivative is a sum of three tensors with one coefficient for each channel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from metabench_plugins.backbones.products import batched


def normalised_relu(y: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
    """Return relu(γ z + β), z = (y - μ)/σ with mean and deviation of each channel; it can be differentiated twice.

    Args:
        y: [M, C] pixels.
        scale: [C] scales γ.
        shift: [C] shifts β.
        eps: added to the variance.
    """
    out: Tensor = _NormalisedRelu.apply(y, scale, shift, eps)[0]
    return out


class _NormalisedRelu(torch.autograd.Function):
    """Return the output, z and 1/σ."""

    @staticmethod
    def forward(y: Tensor, scale: Tensor, shift: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        z = y - _mean(y)
        inverse = torch.rsqrt(_mean(z * z) + eps)
        z.mul_(inverse)
        return torch.addcmul(shift.unsqueeze(-2), z, scale.unsqueeze(-2)).relu_(), z, inverse

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        y, scale, _, _ = inputs
        out, z, inverse = output
        ctx.mark_non_differentiable(z, inverse)
        ctx.save_for_backward(y, scale, z, inverse, out)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        of_y, of_scale, of_shift, _ = _Slopes.apply(gradients[0], *ctx.saved_tensors)
        return of_y, of_scale, of_shift, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        return _NormalisedRelu.apply(*batched(inputs, in_dims, info.batch_size)), (0, 0, 0)


class _Slopes(torch.autograd.Function):
    """Return the gradients of y, γ and β from g, that of the norm's output, and g.

    They are γ/σ P g, Σ g z and Σ g, where P u = u - mean(u) - z mean(u z).
    """

    @staticmethod
    def forward(
        g: Tensor, y: Tensor, scale: Tensor, z: Tensor, inverse: Tensor, out: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        g = _where_positive(g, out)
        mean_g, mean_gz = _mean(g), _mean(g * z)
        of_y = torch.addcmul(mean_g, z, mean_gz).sub_(g).mul_(-inverse * scale.unsqueeze(-2))
        count = g.shape[-2]
        return of_y, (count * mean_gz).squeeze(-2), (count * mean_g).squeeze(-2), g

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _, _, scale, z, inverse, out = inputs
        _, of_scale, of_shift, g = output
        ctx.mark_non_differentiable(g)
        ctx.save_for_backward(scale, z, inverse, out, g, of_scale, of_shift)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        scale, z, inverse, out, g, of_scale, of_shift = ctx.saved_tensors
        a, b, c = gradients[0], gradients[1].unsqueeze(-2), gradients[2].unsqueeze(-2)
        count, slope = g.shape[-2], inverse * scale.unsqueeze(-2)
        mean_g, mean_gz = of_shift.unsqueeze(-2) / count, of_scale.unsqueeze(-2) / count
        mean_a, mean_az = _mean(a), _mean(a * z)
        projected = _mean(a * g) - mean_a * mean_g - mean_az * mean_gz  # mean(a P g)
        along = b - slope * mean_az
        second_g = torch.addcmul(c - slope * mean_a, z, along).addcmul_(a, slope)
        second_scale = count * (inverse * projected).squeeze(-2)
        # The gradient of z is u = b g - γ/σ (a mean(g z) + g mean(a z)); that of y is P u / σ, and 1/σ changes with y.
        mean_u = b * mean_g - slope * (mean_a * mean_gz + mean_g * mean_az)
        mean_uz = b * mean_gz - 2 * slope * mean_gz * mean_az
        second_y = torch.addcmul(-inverse * mean_u, z, -inverse * (mean_uz + slope * projected))
        second_y.addcmul_(a, -inverse * slope * mean_gz).addcmul_(g, inverse * along)
        return _where_positive(second_g, out), second_y, second_scale, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        return _Slopes.apply(*batched(inputs, in_dims, info.batch_size)), (0, 0, 0, 0)


def _mean(values: Tensor) -> Tensor:
    return values.mean(dim=-2, keepdim=True)


def _where_positive(values: Tensor, out: Tensor) -> Tensor:
    """Return the values where the ReLU's output is positive, and 0 elsewhere."""
    return torch.ops.aten.threshold_backward(values, out, 0)  # type: ignore[no-any-return]
