"""What makes a run repeat itself: seeds with a purpose, and deterministic kernels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive_seed(seed: int, purpose: str) -> int:
    """Return a seed for one purpose, unrelated to those of other purposes and seeds."""
    return int.from_bytes(hashlib.sha256(f"{seed}|{purpose}".encode()).digest()[:8], "little") >> 1


@contextmanager
def deterministic() -> Iterator[None]:
    """Let torch use deterministic kernels only (where it has them), and put its settings back afterwards.

    Without this, even indexing a tensor twice at one place gives gradients that differ from run to run on two threads.
    """
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filling = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.utils.deterministic.fill_uninitialized_memory = filling  # type: ignore[attr-defined]
