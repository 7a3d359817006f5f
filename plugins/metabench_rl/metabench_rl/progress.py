"""The progress of a training, and its checkpoint."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from metabench.jobs import StoreError, Used, atomic_file, in_one_line, other_code, writing_weights
from metabench_rl.api import Algorithm


@dataclass
class Progress:
    """How far a training is, beside weights and optimiser.

    Attributes:
        updates: outer updates made.
        steps: environment steps made, those of validations included.
        seconds: seconds of the updates.
        simulation_seconds: seconds of the updates within environments.
        peak_memory_bytes: peak memory so far.
        curve: pairs of an update and the validation after it.
        best_update: the update of the best validation; of equal ones, the last.
        best_weights: the weights after it; empty before the first validation.
        used: what the training has used (`metabench.jobs.Used` as plain data).
    """

    updates: int = 0
    steps: int = 0
    seconds: float = 0.0
    simulation_seconds: float = 0.0
    peak_memory_bytes: int = 0
    curve: list[tuple[int, float]] = field(default_factory=list)
    best_update: int = 0
    best_weights: dict[str, Any] = field(default_factory=dict)
    used: dict[str, float | None] = field(default_factory=lambda: asdict(Used()))

    def note(self, value: float, algorithm: Algorithm) -> None:
        """Add a validation, of which high values are better; keep the weights if none was better."""
        best = max((earlier for _, earlier in self.curve), default=value)
        self.curve.append((self.updates, value))
        if value >= best:
            self.best_update = self.updates
            self.best_weights = {name: weight.clone() for name, weight in algorithm.state_dict().items()}


def save(algorithm: Algorithm, progress: Progress, origin: Mapping[str, str], path: Path) -> None:
    """Write a checkpoint.

    Raises:
        StoreError: it cannot be written; an earlier one stays as it was.
    """
    state = {
        "origin": dict(origin),
        "progress": dict(vars(progress)),
        "weights": algorithm.state_dict(),
        "optimiser": algorithm.optimiser.state_dict(),
    }
    with writing_weights(path), atomic_file(path) as temporary:
        torch.save(state, temporary)


def load(algorithm: Algorithm, origin: Mapping[str, str], path: Path) -> Progress:
    """Load a checkpoint into the algorithm; without one of this origin, return the progress of a new training.

    A checkpoint of another origin is renamed, so that it is not overwritten.

    Raises:
        StoreError: the checkpoint is damaged.
    """
    if not os.path.exists(path):
        return Progress()
    try:
        state: dict[str, Any] = torch.load(str(path), map_location="cpu", weights_only=True)
        if state["origin"] != dict(origin):
            path.replace(path.with_name(f"{path.stem}.{other_code(state['origin'])}{path.suffix}"))
            return Progress()
        progress = Progress(**state["progress"])
        algorithm.load_state_dict(state["weights"])
        algorithm.optimiser.load_state_dict(state["optimiser"])
        return progress
    except Exception as error:  # a damaged file can raise nearly anything
        raise StoreError(
            f"the checkpoint {path} cannot be used ({in_one_line(error)}): delete it, or run with --fresh"
        ) from error
