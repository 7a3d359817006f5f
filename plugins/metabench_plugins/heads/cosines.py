"""Scores by the cosine of features and class weights, and how a loss of them moves the weights."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


class Cosines:
    """Score n feature vectors by N class weights: the cosine times a scale.

    Classes come first in all matrices here: torch then vectorises a softmax over a few classes.

    Args:
        x: [n, D] features.
        scale: the factor.
    """

    def __init__(self, x: Tensor, scale: float) -> None:
        self._x, self._factor = x, scale / x.norm(dim=1).clamp_min(1e-12)

    def scores(self, weight: Tensor) -> Tensor:
        """Return the [N, n] scores by [N, D] class weights."""
        scores: Tensor = F.normalize(weight, dim=1) @ self._x.T * self._factor
        return scores

    def slope(self, weight: Tensor, slopes: Tensor) -> Tensor:
        """Return the [N, D] gradient of a loss by the class weights.

        Written out, a step takes a fraction of autograd's time, and is vectorised over episodes.

        Args:
            weight: [N, D] class weights.
            slopes: [N, n] gradient of the loss by the scores.
        """
        length = weight.norm(dim=1, keepdim=True)
        unit = weight / length
        pulled = (slopes * self._factor) @ self._x
        moved: Tensor = (pulled - (pulled * unit).sum(dim=1, keepdim=True) * unit) / length
        return moved
