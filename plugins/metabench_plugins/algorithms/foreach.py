"""One call for all weights of a network."""

from __future__ import annotations

import torch
from torch import Tensor

from metabench.api import is_vectorised


def foreach(operation: str, *operands: list[Tensor] | float, **options: float) -> list[Tensor]:
    """Apply a function of torch, such as ``add``, to each of many tensors.

    Args:
        operation: the function's name.
        operands: the first one is a list of tensors; others are as long, or a number that goes with each tensor.
        options: keywords of the function.
    """
    if not is_vectorised():
        # One call for all weights of a network takes a fraction of the time of one call each.
        return list(getattr(torch, f"_foreach_{operation}")(*operands, **options))
    function = getattr(torch, operation)
    count = len(operands[0]) if isinstance(operands[0], list) else 0
    rows = [[operand[i] if isinstance(operand, list) else operand for operand in operands] for i in range(count)]
    return [function(*row, **options) for row in rows]
