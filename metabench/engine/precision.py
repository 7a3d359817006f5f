"""The precision of backbones: float32 unless a suite sets another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from metabench.errors import SuiteError
from metabench.planning.cells import Cell
from metabench.planning.suite import Precision


def autocast_of(precision: Precision) -> torch.dtype | None:
    """Return the dtype for `metabench.api.Backbone.autocast`; None for float32 and TF32."""
    return torch.bfloat16 if precision == "bf16" else None


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Allow or forbid TF32 on NVIDIA GPUs within the block.

    torch's default would use it in convolutions.
    """
    cudnn = torch.backends.cudnn
    value: str | bool
    if hasattr(cudnn, "conv"):  # torch ≥ 2.9
        attribute, value = "fp32_precision", "tf32" if allowed else "ieee"
        switches: list[Any] = [torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn]
    else:
        attribute, value = "allow_tf32", allowed
        switches = [torch.backends.cuda.matmul, cudnn]
    previous = [getattr(switch, attribute) for switch in switches]
    try:
        for switch in switches:
            setattr(switch, attribute, value)
        yield
    finally:
        for switch, setting in zip(switches, previous, strict=True):
            setattr(switch, attribute, setting)


def check_precisions(cells: Sequence[Cell], device: torch.device) -> None:
    """Check that the device supports the precision of each cell.

    Raises:
        SuiteError: a cell asks for TF32 on a CPU.
    """
    for cell in cells:
        if cell.training.precision == "tf32" and device.type != "cuda":
            raise SuiteError(f"{cell.title}: tf32 is a precision of NVIDIA GPUs: on a CPU, use float32 or bf16")
