"""Scores by the cosine of features and class weights, and how a loss of them moves the weights."""

from __future__ import annotations

import torch
from torch import Tensor


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
        scores: Tensor = weight @ self._x.T * (self._factor / lengths(weight))
        return scores

    def slope(self, weight: Tensor, scores: Tensor, slopes: Tensor) -> Tensor:
        """Return the [N, D] gradient of a loss by the class weights.

        Written out, a step takes a fraction of autograd's time, and is vectorised over episodes.

        Args:
            weight: [N, D] class weights.
            scores: their [N, n] scores.
            slopes: [N, n] gradient of the loss by the scores.
        """
        length = lengths(weight)
        pulled = (slopes * (self._factor / length)) @ self._x
        # The part along the weight, which does not turn it: features pull with slopes times cosines.
        along = (slopes * scores).sum(dim=1, keepdim=True) / length**2
        return torch.addcmul(pulled, along, weight, value=-1)


def lengths(weight: Tensor) -> Tensor:
    """Return the [N, 1] lengths of [N, D] class weights; that of a zero is 1e-12, so that its cosines are zero."""
    length: Tensor = torch.linalg.vector_norm(weight, dim=1, keepdim=True)
    return length.clamp_min(1e-12)
