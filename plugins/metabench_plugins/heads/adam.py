"""Adam in an episode (Kingma & Ba 2015, https://arxiv.org/abs/1412.6980)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def descended(weight: Tensor, slope: Callable[[Tensor], Tensor], steps: int, rate: float) -> Tensor:
    """Return a weight after steps of Adam, with torch's defaults of its other parameters.

    Args:
        weight: the initial weight.
        slope: returns the gradient of the loss at a weight.
        steps: number of steps.
        rate: learning rate.
    """
    decay, decay_of_squares = 0.9, 0.999
    mean, square = torch.zeros_like(weight), torch.zeros_like(weight)
    for step in range(1, steps + 1):
        gradient = slope(weight)
        mean = mean.lerp(gradient, 1 - decay)
        square = square.mul_(decay_of_squares).addcmul(gradient, gradient, value=1 - decay_of_squares)
        # Both estimates are too small at first: the factors of the paper, last lines of section 2.
        unbiased = math.sqrt(1 - decay_of_squares**step)
        size = square.sqrt().add_(1e-8 * unbiased)
        weight = weight.addcdiv(mean, size, value=-rate * unbiased / (1 - decay**step))
    return weight
