"""Distort batches of training images on the device."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from metabench.machine.reproducible import derive_seed
from metabench.planning.distortions import Affine, Crop, Distortion, Flip, Jitter, ResizedCrop, Rotation

#: Shares of red, green and blue in the grey of an image (ITU-R BT.601).
_GREY = (0.299, 0.587, 0.114)


class Augmentation:
    """A sequence of distortions, whose draws are a function of seed and step.

    Args:
        distortions: the distortions, in the order in which they are applied.
        seed: the training seed.
    """

    def __init__(self, distortions: Sequence[Distortion], seed: int) -> None:
        self._distortions = distortions
        self._seed = seed

    def __bool__(self) -> bool:
        return bool(self._distortions)

    def __call__(self, images: Tensor, step: int) -> Tensor:
        """Return the distorted images of a step, [n, C, H, W] between 0 and 1.

        Each distortion has a generator of its own, so that another one before it does not change its draws.
        """
        for place, distortion in enumerate(self._distortions):
            generator = torch.Generator().manual_seed(derive_seed(self._seed, f"augment {step} {place}"))
            images = _FUNCTIONS[type(distortion.params)](images, distortion.params, generator)
        return images


def crop(images: Tensor, params: Crop, generator: torch.Generator) -> Tensor:
    """Shift each image by up to `Crop.padding` pixels along each axis; black moves in."""
    n, _, height, width = images.shape
    padding = params.padding
    corners = torch.randint(2 * padding + 1, (n, 2), generator=generator).to(images.device)
    padded = F.pad(images, (padding, padding, padding, padding))
    rows = corners[:, :1] + torch.arange(height, device=images.device)
    columns = corners[:, 1:] + torch.arange(width, device=images.device)
    each = torch.arange(n, device=images.device)
    return padded.permute(0, 2, 3, 1)[each[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def resized_crop(images: Tensor, params: ResizedCrop, generator: torch.Generator) -> Tensor:
    """Cut out a rectangle of each image, and resize it to the size of the image."""
    n, _, height, width = images.shape
    area = _uniform(n, params.area, generator) * height * width
    ratio = _uniform(n, (math.log(params.ratio[0]), math.log(params.ratio[1])), generator).exp()
    across = (area * ratio).sqrt().clamp(max=width) / width
    down = (area / ratio).sqrt().clamp(max=height) / height
    # Coordinates run from -1 to 1: a rectangle of half the width has its centre within ±1/2.
    x = (1 - across) * _uniform(n, (-1.0, 1.0), generator)
    y = (1 - down) * _uniform(n, (-1.0, 1.0), generator)
    zero = torch.zeros(n)
    return _warped(images, [[across, zero, x], [zero, down, y]], "border")


def flip(images: Tensor, params: Flip, generator: torch.Generator) -> Tensor:
    """Exchange left and right of some images."""
    return _where(torch.rand(len(images), generator=generator) < params.chance, images.flip(-1), images)


def jitter(images: Tensor, params: Jitter, generator: torch.Generator) -> Tensor:
    """Change brightness, contrast and saturation of each image."""

    def factors(most: float) -> Tensor:
        drawn = _uniform(len(images), (1 - most, 1 + most), generator)
        return drawn.to(images.device, images.dtype).reshape(-1, 1, 1, 1)

    images = (images * factors(params.brightness)).clamp(0, 1)
    grey = _grey(images).mean(dim=(2, 3), keepdim=True)
    images = torch.lerp(grey, images, factors(params.contrast)).clamp(0, 1)
    if images.shape[1] == len(_GREY):
        images = torch.lerp(_grey(images), images, factors(params.saturation)).clamp(0, 1)
    return images


def rotation(images: Tensor, params: Rotation, generator: torch.Generator) -> Tensor:
    """Rotate each image about its centre."""
    only = Affine(chance=1.0, component=1.0, degrees=params.degrees, shear=0.0, scale=(1.0, 1.0), shift=0.0)
    return affine(images, only, generator)


def affine(images: Tensor, params: Affine, generator: torch.Generator) -> Tensor:
    """Rotate, shear, scale and shift some images."""
    n = len(images)

    def component(low: float, high: float, neutral: float) -> Tensor:
        value = _uniform(n, (low, high), generator)
        used = torch.rand(n, generator=generator) < params.component
        return torch.where(used, value, torch.full_like(value, neutral))

    angle = component(-math.radians(params.degrees), math.radians(params.degrees), 0.0)
    shear_x, shear_y = (component(-params.shear, params.shear, 0.0) for _ in range(2))
    scale_x, scale_y = (component(*params.scale, 1.0) for _ in range(2))
    # Coordinates run from -1 to 1: the side of an image is 2.
    shift_x, shift_y = (component(-2 * params.shift, 2 * params.shift, 0.0) for _ in range(2))
    cos, sin = angle.cos(), angle.sin()
    rows = [
        [cos / scale_x, (shear_x - sin) / scale_x, shift_x],
        [(shear_y + sin) / scale_y, cos / scale_y, shift_y],
    ]
    distorted = _warped(images, rows, "zeros")
    return _where(torch.rand(n, generator=generator) < params.chance, distorted, images)


_FUNCTIONS: dict[type, Callable[[Tensor, Any, torch.Generator], Tensor]] = {
    Crop: crop,
    ResizedCrop: resized_crop,
    Flip: flip,
    Jitter: jitter,
    Rotation: rotation,
    Affine: affine,
}


def _uniform(n: int, limits: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Return [n] draws, made on the CPU so that they are the same for every device."""
    low, high = limits
    return low + (high - low) * torch.rand(n, generator=generator)


def _warped(images: Tensor, rows: Sequence[Sequence[Tensor]], padding: str) -> Tensor:
    """Return the images, sampled along 2×3 matrices of [n] entries."""
    matrices = torch.stack([torch.stack(list(row), dim=-1) for row in rows], dim=1)
    grid = F.affine_grid(matrices.to(images.device, images.dtype), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode=padding, align_corners=False)


def _where(chosen: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Return `one` for the [n] chosen images, `other` for the rest."""
    return torch.where(chosen.to(one.device).reshape(-1, 1, 1, 1), one, other)


def _grey(images: Tensor) -> Tensor:
    """Return [n, 1, H, W] grey images."""
    if images.shape[1] != len(_GREY):
        return images.mean(dim=1, keepdim=True)
    return (images * images.new_tensor(_GREY).reshape(-1, 1, 1)).sum(dim=1, keepdim=True)
