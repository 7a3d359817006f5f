"""Checkpoints: the state of a training on disk, and when to write it."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from metabench.api import Algorithm
from metabench.errors import StoreError, in_one_line
from metabench.files import atomic_file
from metabench.machine.meter import Used
from metabench.planning.cells import Selection


@dataclass
class ValidationCurve:
    """The validations of a training for one selection, and its best weights.

    Attributes:
        points: pairs of a step and the value of the metric that ranks after it.
        best_step: step with the best value; of equal ones, the last.
        best_state: the state dict after `best_step`.
        problem: why a validation failed, which ends the curve; empty if none did.
    """

    points: list[tuple[int, float]] = field(default_factory=list)
    best_step: int = 0
    best_state: dict[str, Any] = field(default_factory=dict)
    problem: str = ""

    @property
    def best(self) -> float | None:
        """Return the best value; None before the first validation."""
        return next((value for step, value in self.points if step == self.best_step), None)

    def improves(self, value: float, sign: int) -> bool:
        """Return whether no value was better; `sign` is 1 where high values are better, -1 where low ones are."""
        return self.best is None or sign * value >= sign * self.best

    def note(self, step: int, value: float, sign: int, state: dict[str, Any]) -> None:
        """Add a value to the curve; keep the weights if none were better."""
        improves = self.improves(value, sign)
        self.points.append((step, value))
        if improves:
            self.best_step, self.best_state = step, state


@dataclass
class TrainingProgress:
    """The progress of a training, as a checkpoint holds it beside the weights.

    Attributes:
        step: number of outer updates made.
        seconds: time of the timed outer updates.
        timed_steps: number of timed outer updates; warm-up steps are not timed.
        peak_memory_bytes: peak memory so far.
        curves: the validations and best weights, by selection.
        used: what the training has used (`metabench.machine.meter.Used` as plain data); None where an earlier version
            made a part of it.
    """

    step: int = 0
    seconds: float = 0.0
    timed_steps: int = 0
    peak_memory_bytes: int = 0
    curves: dict[Selection, ValidationCurve] = field(default_factory=dict)
    used: dict[str, float | None] | None = field(default_factory=lambda: asdict(Used()))

    @classmethod
    def of(cls, selections: Iterable[Selection]) -> TrainingProgress:
        """Return the progress of a new training."""
        return cls(curves={selection: ValidationCurve() for selection in selections})

    @property
    def going(self) -> dict[Selection, ValidationCurve]:
        """Return the curves without a failed validation."""
        return {selection: curve for selection, curve in self.curves.items() if not curve.problem}

    @property
    def curve(self) -> list[tuple[int, float]]:
        """Return the validations, mean over the selections without a failed one."""
        points: dict[int, list[float]] = {}
        for curve in self.going.values():
            for step, value in curve.points:
                points.setdefault(step, []).append(value)
        return [(step, sum(values) / len(values)) for step, values in points.items()]

    @property
    def validated(self) -> int:
        """Return the last validated step; 0 before the first validation."""
        return max((step for curve in self.curves.values() for step, _ in curve.points), default=0)

    def note(self, values: Mapping[Selection, float], sign: int, algorithm: Algorithm) -> None:
        """Add a validation of the current weights; keep them for selections that they are best for.

        Args:
            values: the metric that ranks in validation, by selection.
            sign: 1 where high values are better, -1 where low ones are.
            algorithm: the algorithm with the current weights.
        """
        improved = any(self.curves[selection].improves(value, sign) for selection, value in values.items())
        state = copy.deepcopy(algorithm.state_dict()) if improved else {}
        for selection, value in values.items():
            self.curves[selection].note(self.step, value, sign, state)

    def is_out_of_patience(self, patience: int | None) -> bool:
        """Return whether no selection has had a better value in its last `patience` validations."""
        if patience is None or not self.validated:
            return False

        def validations_since_best(curve: ValidationCurve) -> int:
            return sum(step > curve.best_step for step, _ in curve.points)

        return all(validations_since_best(curve) >= patience for curve in self.going.values())


class CheckpointClock:
    """Decide when the next checkpoint is due.

    The first one is due early, so that a training that is killed repeatedly still advances. Later ones take at most a
    twentieth of the time, unless that would leave more than five minutes between them.
    """

    #: Seconds until the first checkpoint, and the minimum and maximum between two checkpoints.
    FIRST, SHORTEST, LONGEST = 2.0, 10.0, 300.0
    #: Seconds of training per second of writing.
    SHARE = 20.0

    def __init__(self) -> None:
        self._due = time.monotonic() + self.FIRST

    @property
    def is_due(self) -> bool:
        """Return whether a checkpoint is due."""
        return time.monotonic() >= self._due

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Time the block that writes a checkpoint, and schedule the next one."""
        start = time.monotonic()
        yield
        now = time.monotonic()
        self._due = now + min(self.LONGEST, max(self.SHORTEST, self.SHARE * (now - start)))


def save_checkpoint(algorithm: Algorithm, progress: TrainingProgress, origin: Mapping[str, str], path: Path) -> None:
    """Write the state of a training to `path`.

    Args:
        algorithm: the algorithm with the current weights.
        progress: the progress of the training.
        origin: device, data and versions that the training depends on.
        path: the checkpoint file.

    Raises:
        StoreError: the file cannot be written; an earlier checkpoint stays as it was.
    """
    state = {
        "origin": dict(origin),
        "progress": {name: value for name, value in vars(progress).items() if name != "curves"},
        "curves": {selection.name: vars(curve) for selection, curve in progress.curves.items()},
        "weights": algorithm.state_dict(),
        "training": algorithm.training_state(),
    }
    with writing_weights(path), atomic_file(path) as temporary:
        torch.save(state, temporary)


@contextmanager
def writing_weights(path: Path) -> Iterator[None]:
    """Turn an error of writing weights or a checkpoint into a `StoreError`."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError of its zip writer
        reason = error.strerror if isinstance(error, OSError) else "the file is incomplete; is the disk full?"
        raise StoreError(
            f"cannot write {path}: {reason}. Finished cells are kept: free some space and run the same command again, "
            "or give another --output"
        ) from error


def load_checkpoint(
    algorithm: Algorithm, path: Path, origin: Mapping[str, str], selections: Sequence[Selection]
) -> TrainingProgress | None:
    """Load the checkpoint at `path` into `algorithm`.

    Args:
        algorithm: the algorithm to change.
        path: the checkpoint file.
        origin: device, data and versions that the checkpoint must have.
        selections: the selections that the checkpoint must have.

    Returns:
        The progress of the training; None if there is no checkpoint of this origin with these selections. A checkpoint
        of another origin (device, data, code) is renamed, so that it is not overwritten.

    Raises:
        StoreError: the checkpoint is damaged, or of another algorithm.
    """
    try:
        if not os.path.exists(path):
            return None
        # To the CPU: `load_state_dict` then moves each tensor to its device, which for Adam's counters may be the CPU.
        state: dict[str, Any] = torch.load(str(path), map_location="cpu", weights_only=True)
        if state["origin"] != dict(origin) or "curves" not in state:
            path.replace(path.with_name(f"{path.stem}.{other_code(state['origin'])}{path.suffix}"))
            return None
        kept = state["curves"]
        if any(selection.name not in kept for selection in selections):
            return None
        for curve in kept.values():
            curve.pop("best_accuracy", None)  # of earlier versions
        curves = {selection: ValidationCurve(**kept[selection.name]) for selection in selections}
        algorithm.load_state_dict(state["weights"])
        algorithm.load_training_state(state["training"])
        return TrainingProgress(**{"used": None, **state["progress"]}, curves=curves)
    except Exception as error:  # a damaged file can raise nearly anything
        raise StoreError(
            f"the checkpoint {path} cannot be used ({in_one_line(error)}): delete it, or run with --fresh"
        ) from error


def other_code(origin: Mapping[str, str]) -> str:
    """Return a name for files of another origin, with a hash of that."""
    digest = hashlib.sha256(json.dumps(dict(origin), sort_keys=True).encode()).hexdigest()[:8]
    return f"other-code-{digest}"
