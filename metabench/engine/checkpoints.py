"""Checkpoints: the state of a training on disk, and when to write it."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import torch

from metabench.api import Algorithm
from metabench.data.sampler import EpisodeShape
from metabench.errors import StoreError, in_one_line
from metabench.files import atomic_file


@dataclass
class Selection:
    """The validation curve of a training, and its best weights.

    Attributes:
        validation: pairs of a step and the validation accuracy after it.
        best_step: step with the best accuracy; of equal ones, the last.
        best_accuracy: the accuracy after `best_step`; -1 before the first validation.
        best_state: the state dict after `best_step`.
    """

    validation: list[tuple[int, float]] = field(default_factory=list)
    best_step: int = 0
    best_accuracy: float = -1.0
    best_state: dict[str, Any] = field(default_factory=dict)

    def note(self, step: int, accuracy: float, state: dict[str, Any]) -> None:
        """Add an accuracy to the curve; keep the weights if none were better."""
        self.validation.append((step, accuracy))
        if accuracy >= self.best_accuracy:
            self.best_step, self.best_accuracy, self.best_state = step, accuracy, state


@dataclass
class TrainingProgress:
    """The progress of a training, as a checkpoint holds it beside the weights.

    Attributes:
        step: number of outer updates made.
        seconds: time of the timed outer updates.
        timed_steps: number of timed outer updates; warm-up steps are not timed.
        peak_memory_bytes: peak memory so far.
        selections: the best weights by test shape, for the cells that share this training.
    """

    step: int = 0
    seconds: float = 0.0
    timed_steps: int = 0
    peak_memory_bytes: int = 0
    selections: dict[EpisodeShape, Selection] = field(default_factory=dict)

    @classmethod
    def of(cls, shapes: Iterable[EpisodeShape]) -> TrainingProgress:
        """Return the progress of a new training for these test shapes."""
        return cls(selections={shape: Selection() for shape in shapes})

    @property
    def validated(self) -> int:
        """Return the last validated step; 0 before the first validation."""
        return max((step for selection in self.selections.values() for step, _ in selection.validation), default=0)

    def note(self, accuracies: Mapping[EpisodeShape, float], algorithm: Algorithm) -> None:
        """Add a validation of the current weights; keep them for shapes that they are best for.

        Args:
            accuracies: validation accuracy by test shape. A shape without one is dropped: its cells will not use this
                training.
            algorithm: the algorithm with the current weights.
        """
        self.selections = {shape: self.selections[shape] for shape in accuracies}
        improved = any(accuracy >= self.selections[shape].best_accuracy for shape, accuracy in accuracies.items())
        state = copy.deepcopy(algorithm.state_dict()) if improved else {}
        for shape, accuracy in accuracies.items():
            self.selections[shape].note(self.step, accuracy, state)

    def forget_weights(self) -> None:
        """Free the memory of the best weights."""
        for selection in self.selections.values():
            selection.best_state = {}


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
        "progress": {name: value for name, value in vars(progress).items() if name != "selections"},
        "selections": [(astuple(shape), vars(selection)) for shape, selection in progress.selections.items()],
        "weights": algorithm.state_dict(),
        "training": algorithm.training_state(),
    }
    try:
        with atomic_file(path) as temporary:
            torch.save(state, temporary)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError of its zip writer
        reason = error.strerror if isinstance(error, OSError) else "the file is incomplete; is the disk full?"
        raise StoreError(
            f"cannot write the checkpoint {path}: {reason}. Finished cells are kept: free some space and "
            "run the same command again, or give another --output"
        ) from error


def load_checkpoint(
    algorithm: Algorithm, path: Path, origin: Mapping[str, str], shape: EpisodeShape
) -> TrainingProgress | None:
    """Load the checkpoint at `path` into `algorithm`.

    Args:
        algorithm: the algorithm to change.
        path: the checkpoint file.
        origin: device, data and versions that the checkpoint must have.
        shape: a test shape that the checkpoint must have.

    Returns:
        The progress of the training; None if there is no checkpoint of this origin with this shape. A checkpoint of
        another origin (device, data, code) is renamed, so that it is not overwritten.

    Raises:
        StoreError: the checkpoint is damaged, or of another algorithm.
    """
    try:
        state = _read(path)
        if state is not None and not _is_of(state, origin):
            _set_aside(path, state["origin"])
            state = None
        if state is None or shape not in _shapes(state):
            return None
        algorithm.load_state_dict(state["weights"])
        algorithm.load_training_state(state["training"])
        selections = [Selection(**fields) for _, fields in state["selections"]]
        return TrainingProgress(**state["progress"], selections=dict(zip(_shapes(state), selections, strict=True)))
    except Exception as error:  # a damaged file can raise nearly anything
        raise StoreError(
            f"the checkpoint {path} cannot be used ({in_one_line(error)}): delete it, or run with --fresh"
        ) from error


def shapes_of(path: Path, origin: Mapping[str, str]) -> list[EpisodeShape] | None:
    """Return the test shapes of the checkpoint at `path`.

    Returns:
        The shapes; None if there is no readable checkpoint of this origin.
    """
    try:
        state = _read(path, mapped=True)
        return _shapes(state) if state is not None and _is_of(state, origin) else None
    except Exception:  # a damaged file can raise nearly anything; `load_checkpoint` reports it
        return None


def _is_of(state: Mapping[str, Any], origin: Mapping[str, str]) -> bool:
    """Return whether a checkpoint has an origin."""
    return state["origin"] == dict(origin) and "selections" in state


def _set_aside(path: Path, origin: Mapping[str, str]) -> None:
    """Rename a checkpoint of another origin, by a hash of that."""
    digest = hashlib.sha256(json.dumps(dict(origin), sort_keys=True).encode()).hexdigest()[:8]
    path.replace(path.with_name(f"{path.stem}.other-code-{digest}{path.suffix}"))


def _read(path: Path, mapped: bool = False) -> dict[str, Any] | None:
    """Return the content of the checkpoint at `path`; None if there is none.

    Args:
        path: the checkpoint file.
        mapped: memory-map the file, so that the weights are read only if they are used.
    """
    if not os.path.exists(path):
        return None
    # Load to the CPU: `load_state_dict` then moves each tensor to its device, which for Adam's counters may be the CPU.
    state: dict[str, Any] = torch.load(str(path), map_location="cpu", weights_only=True, mmap=mapped)
    return state


def _shapes(state: Mapping[str, Any]) -> list[EpisodeShape]:
    return [EpisodeShape(*sizes) for sizes, _ in state["selections"]]
