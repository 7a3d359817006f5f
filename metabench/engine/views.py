"""Distort images of a support set as a training distorts its images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from metabench.api import SourceSplit, Split
from metabench.engine.augmentation import Augmentation
from metabench.engine.scaling import Scale
from metabench.planning.cells import Training
from metabench.planning.distortions import Distortion


class Views:
    """Distorts normalised images; its draws come from torch's default generator.

    Args:
        distortions: the distortions, in the order in which they are applied.
        split: the split of the images.
        device: the device of the images.
    """

    def __init__(self, distortions: Sequence[Distortion], split: Split, device: torch.device) -> None:
        self._distortions, self._scale = distortions, Scale(split, device)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the distorted [n, C, H, W] images."""
        drawn = Augmentation(self._distortions, int(torch.randint(2**62, ())))
        return self._scale.distorted(images, lambda pixels: drawn(pixels, 0))


def views_of(training: Training, split: Split | SourceSplit, device: torch.device) -> Views | None:
    """Return what distorts images as a training does; None if it distorts none.

    Args:
        training: the training of the weights.
        split: the split of the episodes, of images.
        device: the device of the images.
    """
    distortions = training.schedule.augment if training.schedule else ()
    return Views(distortions, split, device) if distortions and isinstance(split, Split) else None
