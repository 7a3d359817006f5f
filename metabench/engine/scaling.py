"""Scale images to the input of a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from metabench.api import Backbone, SourceSplit, Split
from metabench.errors import Unfit


class Scale:
    """The mean and the standard deviation by which a split's images are normalised.

    Args:
        split: the split.
        device: the device of the images.
    """

    def __init__(self, split: Split, device: torch.device) -> None:
        self._mean = torch.as_tensor(split.mean, dtype=torch.float32, device=device).reshape(-1, 1, 1)
        self._std = torch.as_tensor(split.std, dtype=torch.float32, device=device).reshape(-1, 1, 1)

    def __call__(self, rows: Tensor, distort: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Return float images of uint8 ones; vectors stay as they are.

        Args:
            rows: [..., C, H, W] images, or [..., D] vectors.
            distort: changes images between 0 and 1, before they are normalised.
        """
        if rows.dtype != torch.uint8:
            return rows
        images = rows.float().div_(255)
        if distort is not None:
            images = distort(images)
        return images.sub_(self._mean).div_(self._std)

    def distorted(self, images: Tensor, distort: Callable[[Tensor], Tensor]) -> Tensor:
        """Return normalised [n, C, H, W] images, which `distort` has changed between 0 and 1."""
        pixels = (images * self._std).add_(self._mean).clamp_(0, 1)
        return distort(pixels).sub(self._mean).div_(self._std)


def scaled(splits: Mapping[str, Split | SourceSplit], backbone: Backbone) -> dict[str, Split | SourceSplit]:
    """Return the splits with the mean and the std that the backbone's weights were made for, where it has them.

    A source stays as it is.

    Raises:
        Unfit: the images have another number of channels.
    """
    scales = {"mean": backbone.input.mean, "std": backbone.input.std}
    given: dict[str, Any] = {name: values for name, values in scales.items() if values is not None}
    channels = splits["train"].input_shape[0]
    for name, values in given.items():
        if len(values) not in (1, channels):
            raise Unfit(f"the backbone has a {name} of {len(values)} channels, and the images have {channels}")
    return {name: replace(split, **given) if isinstance(split, Split) else split for name, split in splits.items()}
