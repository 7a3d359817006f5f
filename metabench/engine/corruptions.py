"""Corrupt images as Hendrycks & Dietterich 2019, "Benchmarking neural network robustness to common corruptions".

https://arxiv.org/abs/1903.12261. The strengths are those of the authors' ImageNet-C, https://github.com/hendrycks/robustness.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from metabench.machine.reproducible import derive_seed

#: Side of ImageNet-C's images. A blur covers the same share of the side of any other image.
_SIDE = 224

#: Draws random numbers of a shape; each episode has its own seed.
_Draw = Callable[[Callable[..., Tensor]], Tensor]


def _gaussian_noise(images: Tensor, strength: float, draw: _Draw) -> Tensor:
    return images + strength * draw(torch.randn)


def _impulse_noise(images: Tensor, strength: float, draw: _Draw) -> Tensor:
    """Replace a share of the values by 0 or 1."""
    drawn = draw(torch.rand)
    replaced = torch.where(drawn < strength / 2, 0.0, torch.where(drawn < strength, 1.0, images))
    return replaced.to(images.dtype)


def _gaussian_blur(images: Tensor, strength: float, draw: _Draw) -> Tensor:
    from torchvision.transforms.functional import gaussian_blur  # slow to import, and most runs corrupt nothing

    sigma = strength * images.shape[-1] / _SIDE
    radius = min(max(1, math.ceil(4 * sigma)), *(side - 1 for side in images.shape[-2:]))
    blurred: Tensor = gaussian_blur(images, [2 * radius + 1] * 2, [sigma] * 2)
    return blurred


def _contrast(images: Tensor, strength: float, draw: _Draw) -> Tensor:
    return torch.lerp(images.mean(dim=(-2, -1), keepdim=True), images, strength)


def _brightness(images: Tensor, strength: float, draw: _Draw) -> Tensor:
    """Raise the value of hue, saturation and value: the largest channel of a pixel."""
    value = images.amax(dim=-3, keepdim=True)
    raised = (value + strength).clamp(max=1)
    return torch.where(value > 0, images * (raised / value.clamp(min=1e-6)), raised)


#: The function of each corruption, and its strength by severity.
_CORRUPTIONS: Mapping[str, tuple[Callable[[Tensor, float, _Draw], Tensor], tuple[float, ...]]] = {
    "gaussian_noise": (_gaussian_noise, (0.08, 0.12, 0.18, 0.26, 0.38)),
    "impulse_noise": (_impulse_noise, (0.03, 0.06, 0.09, 0.17, 0.27)),
    "gaussian_blur": (_gaussian_blur, (1, 2, 3, 4, 6)),
    "contrast": (_contrast, (0.4, 0.3, 0.2, 0.1, 0.05)),
    "brightness": (_brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),
}


class Corruption:
    """A corruption whose draws are a function of seed and episode.

    Args:
        name: its name in `metabench.planning.suite.CorruptionName`.
        severity: 1 to 5.
        seed: the seed.
    """

    def __init__(self, name: str, severity: int, seed: int) -> None:
        self._function, strengths = _CORRUPTIONS[name]
        self._strength, self._name, self._seed = strengths[severity - 1], name, seed

    def __call__(self, images: Tensor, first: int, episodes: int) -> Tensor:
        """Return the corrupted images of some episodes, [n, C, H, W] between 0 and 1.

        Args:
            images: the images, those of an episode one after the other.
            first: number of the first episode.
            episodes: number of episodes, which have as many images each.
        """
        shape = (len(images) // episodes, *images.shape[1:])

        def draw(distribution: Callable[..., Tensor]) -> Tensor:
            seeds = (derive_seed(self._seed, f"{self._name} {number}") for number in range(first, first + episodes))
            generators = (torch.Generator().manual_seed(seed) for seed in seeds)
            return torch.cat([distribution(shape, generator=generator) for generator in generators]).to(images.device)

        return self._function(images, self._strength, draw).clamp(0, 1)
