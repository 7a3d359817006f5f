"""Batches of labelled images."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Images:
    """Images with labels that all batches share, on the device.

    Attributes:
        x: [B, C, H, W] float images; [B, D] features for an algorithm that reads features.
        y: [B] labels 0 … classes-1: the classes of the training split, sorted by name.
        classes: number of classes of the training split.
        embedded: whether the images are features already.
    """

    x: Tensor
    y: Tensor
    classes: int
    embedded: bool = False

    def __len__(self) -> int:
        return len(self.x)
