"""The state of a training on disk, from which it goes on as if it had not been cut."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from metabench.api import Algorithm
from metabench.errors import StoreError
from metabench.files import atomic_file
from metabench.plugins import in_one_line


@dataclass
class TrainingProgress:
    """How far the training of a cell is: with the weights, everything that a checkpoint holds."""

    step: int = 0
    seconds: float = 0.0
    timed_steps: int = 0
    best_step: int = 0
    best_accuracy: float = -1.0
    best_state: dict[str, Any] = field(default_factory=dict)
    validation: list[tuple[int, float]] = field(default_factory=list)


def save_checkpoint(algorithm: Algorithm, progress: TrainingProgress, origin: Mapping[str, str], path: Path) -> None:
    """Write the state of a training of this origin to `path`.

    Raises:
        StoreError: it cannot be written; an earlier checkpoint is left as it was.
    """
    state = {
        "origin": dict(origin),
        "progress": vars(progress),
        "weights": algorithm.state_dict(),
        "training": algorithm.training_state(),
    }
    try:
        with atomic_file(path) as temporary:
            torch.save(state, temporary)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError of its zip writer
        reason = error.strerror if isinstance(error, OSError) else "it was not written whole; is the disk full?"
        raise StoreError(
            f"cannot write the checkpoint {path}: {reason}. Finished cells are kept: free some space and "
            "run the same command again, or give another --output"
        ) from error


def load_checkpoint(algorithm: Algorithm, path: Path, origin: Mapping[str, str]) -> TrainingProgress | None:
    """Put the state of the checkpoint at `path` into `algorithm`, and return how far it is; None where there is none.

    Raises:
        StoreError: the checkpoint is damaged, or of another algorithm.
    """
    if not os.path.exists(path):
        return None
    try:
        # To the CPU: loading moves each tensor to where it belongs, and Adam's counters belong there.
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["origin"] != dict(origin):
            return None
        algorithm.load_state_dict(state["weights"])
        algorithm.load_training_state(state["training"])
        return TrainingProgress(**state["progress"])
    except Exception as error:  # a damaged file can raise nearly anything
        raise StoreError(
            f"the checkpoint {path} cannot be used ({in_one_line(error)}): delete it, or run with --fresh"
        ) from error
