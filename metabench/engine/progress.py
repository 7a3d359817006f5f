"""The progress of a cell, and how to ask it to stop."""

from __future__ import annotations

from typing import Protocol


class Interrupted(Exception):
    """The user asked to stop; a checkpoint has been written."""


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
