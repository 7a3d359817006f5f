"""Reproducible runs: derived seeds and deterministic kernels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive_seed(seed: int, purpose: str) -> int:
    """Return a seed for one purpose, independent of other purposes and seeds."""
    return int.from_bytes(hashlib.sha256(f"{seed}|{purpose}".encode()).digest()[:8], "little") >> 1


def seed_generators(seed: int) -> None:
    """Seed torch's default generators, as `torch.manual_seed` does.

    Without a GPU in use, `torch.manual_seed` formats three stack traces for later: 76 µs at the top of a script, more
    within a run, at each step and prediction.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)


def generator_states() -> list[torch.Tensor]:
    """Return the states of torch's default generators, of the CPU and of GPUs in use."""
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    return [torch.get_rng_state(), *gpus]


@contextmanager
def deterministic() -> Iterator[None]:
    """Let torch use deterministic kernels, where they exist, within the block.

    Without them, even the gradient of an indexing that repeats an index differs between runs with two threads.
    """
    mode = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filling = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(mode[0], warn_only=mode[1])
        torch.utils.deterministic.fill_uninitialized_memory = filling  # type: ignore[attr-defined]
