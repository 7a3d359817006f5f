"""The progress of a cell, and how to ask it to stop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from metabench.errors import CellFailed
from metabench.machine.stops import seconds_awake

#: Pairs of a step and the metric that ranks in the validation after it.
Curve = Sequence[tuple[int, float]]
#: Returns whether a training with these validations so far is to end.
Judge = Callable[[Curve], bool]


class Interrupted(Exception):
    """The user asked to stop; a checkpoint has been written."""


class Pruned(Exception):
    """A training has ended early, because it is worse than others were at the same step.

    Args:
        curve: pairs of a step and the validation after it.
    """

    def __init__(self, curve: Curve) -> None:
        super().__init__(curve)
        self.curve = curve


class Watcher(Protocol):
    """Sees the progress of a cell, and may ask it to stop."""

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """Called when a phase starts.

        Args:
            name: ``"train"``, ``"test"``, ….
            total: number of its steps or episodes.
            done: number of them done by an earlier run.
        """

    def advance(self, done: int, note: str = "") -> None:
        """Called during a phase.

        Args:
            done: number of steps or episodes done.
            note: the current loss or accuracy, if known.
        """

    def should_stop(self) -> bool:
        """Return whether the cell should write a checkpoint and stop."""


class Quiet:
    """A watcher that shows nothing, and never asks to stop."""

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """See `Watcher`."""

    def advance(self, done: int, note: str = "") -> None:
        """See `Watcher`."""

    def should_stop(self) -> bool:
        """See `Watcher`."""
        return False


class TimeLimit:
    """Pass the progress of a test on; fail the test when its time is over.

    Args:
        watcher: sees the progress.
        seconds: the time limit.
    """

    def __init__(self, watcher: Watcher, seconds: float) -> None:
        self._watcher = watcher
        self._seconds = seconds
        self._end = seconds_awake() + seconds

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """See `Watcher`."""
        self._watcher.phase(name, total, done)

    def advance(self, done: int, note: str = "") -> None:
        """See `Watcher`.

        Raises:
            CellFailed: the time is over.
        """
        self._watcher.advance(done, note)
        if seconds_awake() > self._end:
            raise CellFailed(f"the test took longer than its time_limit of {self._seconds:g} s")

    def should_stop(self) -> bool:
        """See `Watcher`."""
        return self._watcher.should_stop()


def as_phases(watcher: Watcher) -> Callable[[int, int, str], None]:
    """Return a `metabench.api.Progress`, of loading a dataset, that a watcher sees as phases."""
    phase = ""

    def progress(done: int, total: int, name: str) -> None:
        nonlocal phase
        if name != phase:
            watcher.phase(name, total)
            phase = name
        watcher.advance(done)

    return progress
