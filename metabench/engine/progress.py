"""Who watches a cell run, and how it is asked to stop."""

from __future__ import annotations

from typing import Protocol


class Interrupted(Exception):
    """The user asked to stop; a checkpoint has been written."""


class Watcher(Protocol):
    """Sees a cell's progress, and can ask it to stop."""

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """Be told that a phase ("train", "test", …) of `total` episodes or steps begins."""

    def advance(self, done: int, note: str = "") -> None:
        """Be told how much of the phase is done, and now and then how it goes."""

    def should_stop(self) -> bool:
        """Return whether to write a checkpoint and stop."""
