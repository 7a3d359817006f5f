"""The state of a training on disk, from which it goes on as if it had not been cut."""

from __future__ import annotations

import copy
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
    """Which of the weights that a training came by are to be tested: those that validated best.

    Attributes:
        validation: the steps, each with the accuracy of the weights that they led to.
        best_step: the step with the best accuracy, the later of two equals.
        best_accuracy: that accuracy.
        best_state: those weights.
    """

    validation: list[tuple[int, float]] = field(default_factory=list)
    best_step: int = 0
    best_accuracy: float = -1.0
    best_state: dict[str, Any] = field(default_factory=dict)

    def note(self, step: int, accuracy: float, state: dict[str, Any]) -> None:
        """Keep an accuracy, and the weights if none were better."""
        self.validation.append((step, accuracy))
        if accuracy >= self.best_accuracy:
            self.best_step, self.best_accuracy, self.best_state = step, accuracy, state


@dataclass
class TrainingProgress:
    """How far a training is: with the weights, everything that a checkpoint holds.

    Attributes:
        step: outer updates made.
        seconds: spent in those whose time counts.
        timed_steps: how many of them counted.
        peak_memory_bytes: the most in use so far.
        selections: the weights to be tested, by the shape of the test episodes: cells that differ in nothing else
            share a training.
    """

    step: int = 0
    seconds: float = 0.0
    timed_steps: int = 0
    peak_memory_bytes: int = 0
    selections: dict[EpisodeShape, Selection] = field(default_factory=dict)

    @classmethod
    def of(cls, shapes: Iterable[EpisodeShape]) -> TrainingProgress:
        """Return the beginning of a training for test episodes of these shapes."""
        return cls(selections={shape: Selection() for shape in shapes})

    @property
    def validated(self) -> int:
        """Return the last step whose weights were validated; 0 where none were."""
        return max((step for selection in self.selections.values() for step, _ in selection.validation), default=0)

    def note(self, accuracies: Mapping[EpisodeShape, float], algorithm: Algorithm) -> None:
        """Keep the accuracy of the present weights in validation episodes of each shape, and them where it is best.

        Shapes without an accuracy are dropped: nobody will be tested in them with weights of this training.
        """
        self.selections = {shape: self.selections[shape] for shape in accuracies}
        improved = any(accuracy >= self.selections[shape].best_accuracy for shape, accuracy in accuracies.items())
        state = copy.deepcopy(algorithm.state_dict()) if improved else {}
        for shape, accuracy in accuracies.items():
            self.selections[shape].note(self.step, accuracy, state)

    def forget_weights(self) -> None:
        """Free the memory of the weights that did best."""
        for selection in self.selections.values():
            selection.best_state = {}


class CheckpointClock:
    """Says when the next checkpoint is due.

    The first one is due early, so that a training that is killed often still gets on. Later ones take at most a
    twentieth of the time, but come at least every five minutes.
    """

    #: Seconds until the first checkpoint; between two of them at least, and at most.
    FIRST, SHORTEST, LONGEST = 2.0, 10.0, 300.0
    #: Seconds of training for a second of writing.
    SHARE = 20.0

    def __init__(self) -> None:
        self._due = time.monotonic() + self.FIRST

    @property
    def is_due(self) -> bool:
        """Return whether a checkpoint is to be written now."""
        return time.monotonic() >= self._due

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Time the writing of a checkpoint, and set when the next one is due."""
        begun = time.monotonic()
        yield
        now = time.monotonic()
        self._due = now + min(self.LONGEST, max(self.SHORTEST, self.SHARE * (now - begun)))


def save_checkpoint(algorithm: Algorithm, progress: TrainingProgress, origin: Mapping[str, str], path: Path) -> None:
    """Write the state of a training of this origin to `path`.

    Raises:
        StoreError: it cannot be written; an earlier checkpoint is left as it was.
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
        reason = error.strerror if isinstance(error, OSError) else "it was not written whole; is the disk full?"
        raise StoreError(
            f"cannot write the checkpoint {path}: {reason}. Finished cells are kept: free some space and "
            "run the same command again, or give another --output"
        ) from error


def load_checkpoint(
    algorithm: Algorithm, path: Path, origin: Mapping[str, str], shape: EpisodeShape
) -> TrainingProgress | None:
    """Put the state of the checkpoint at `path` into `algorithm`, and return how far it is.

    Returns:
        None where there is no checkpoint of this origin, or the training was not validated in episodes of this shape.

    Raises:
        StoreError: the checkpoint is damaged, or of another algorithm.
    """
    try:
        state = _read(path, origin)
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
    """Return the shapes of the test episodes that the checkpoint at `path` has weights for.

    Returns:
        None where there is no checkpoint of this origin that can be read.
    """
    try:
        state = _read(path, origin, mapped=True)
    except Exception:  # a damaged file can raise nearly anything; `load_checkpoint` reports it
        return None
    return None if state is None else _shapes(state)


def _read(path: Path, origin: Mapping[str, str], mapped: bool = False) -> dict[str, Any] | None:
    """Return the content of the checkpoint at `path`; None where there is none of this origin and kind.

    Args:
        path: the file.
        origin: the wanted origin.
        mapped: leave the weights on disk until they are used.
    """
    if not os.path.exists(path):
        return None
    # To the CPU: loading moves each tensor to where it belongs, and Adam's counters belong there.
    state: dict[str, Any] = torch.load(str(path), map_location="cpu", weights_only=True, mmap=mapped)
    return state if state["origin"] == dict(origin) and "selections" in state else None


def _shapes(state: Mapping[str, Any]) -> list[EpisodeShape]:
    return [EpisodeShape(*sizes) for sizes, _ in state["selections"]]
