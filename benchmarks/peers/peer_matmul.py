"""Time a matrix product, as a yardstick of the machine."""

from __future__ import annotations

from pathlib import Path

import torch
from contestants import Contestant

SIDE = 2048


def product(data: Path) -> Contestant:
    """Multiply square float32 matrices; the rate counts floating-point operations."""
    a, b = torch.rand(SIDE, SIDE), torch.rand(SIDE, SIDE)
    result = torch.empty(SIDE, SIDE)

    def step() -> int:
        torch.mm(a, b, out=result)
        return 2 * SIDE**3

    return Contestant(step)
