"""In which precision backbones compute: float32 unless a suite says otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from metabench.api import Backbone
from metabench.errors import SuiteError
from metabench.planning.plan import Cell


class InBfloat16(Backbone):
    """A backbone whose convolutions and products are computed in bfloat16.

    Weights, their gradients and the features stay in float32, as does all that an algorithm does with them.

    Args:
        backbone: in float32.
        image_shape: (C, H, W).
    """

    def __init__(self, backbone: Backbone, image_shape: tuple[int, int, int]) -> None:
        super().__init__(backbone.config, image_shape)
        self.backbone = backbone
        self.features = backbone.features
        self.needs_support = backbone.needs_support
        self.per_image = backbone.per_image

    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        """See `metabench.api.Backbone.forward`."""
        with torch.autocast(x.device.type, torch.bfloat16):
            features: Tensor = self.backbone(x, support)
        return features.float()


def in_precision(backbone: Backbone, precision: str, image_shape: tuple[int, int, int]) -> Backbone:
    """Return the backbone as it computes in ``float32``, ``tf32`` (see `tf32`) or ``bf16``."""
    return InBfloat16(backbone, image_shape) if precision == "bf16" else backbone


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Let NVIDIA GPUs round factors to TF32, or not; torch by itself does so in convolutions."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def check_precisions(cells: Sequence[Cell], device: torch.device) -> None:
    """Check that the device has what the cells ask for.

    Raises:
        SuiteError: TF32 is asked of a CPU.
    """
    for cell in cells:
        if cell.precision == "tf32" and device.type != "cuda":
            raise SuiteError(f"{cell.title}: tf32 is a precision of NVIDIA GPUs: on a CPU, use float32 or bf16")
