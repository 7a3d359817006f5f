"""Progress on standard error: bars in a terminal, else plain lines."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

from metabench.cli.streams import say
from metabench.engine.progress import as_phases
from metabench.text import duration

if TYPE_CHECKING:  # imports torch
    from metabench import api

#: Smallest width of a terminal, in characters, that shows bars.
_WIDE = 110
#: Seconds before the progress of packing a dataset appears.
_PACK_PATIENCE = 1.0
#: Seconds between plain lines about packing.
_PACK_INTERVAL = 5.0


class ProgressLine:
    """Show the progress of one piece of work.

    Args:
        title: name of the work; may be empty.
        bars: the progress bars of a terminal; None prints plain lines.
        patience: seconds before the first plain line, or before a bar without title appears.
        interval: seconds between plain lines.
    """

    def __init__(self, title: str, bars: Progress | None, patience: float, interval: float) -> None:
        self._title = title
        self._bars = bars
        self._task = bars.add_task(title, total=None, note="", visible=False) if bars else None
        self._interval = interval
        self._phase = self._note = ""
        self._total = self._first = 0
        self._start = time.monotonic()
        self._due = self._start + patience

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """Show the start of a phase ("train", "test", …) of `total` steps or episodes."""
        self._phase, self._total, self._first, self._note = name, total, done, ""
        self._start = time.monotonic()
        if self._bars and self._task is not None:
            self._bars.reset(self._task, total=total, completed=done, visible=bool(self._title), note="")

    def advance(self, done: int, note: str = "") -> None:
        """Show the progress within the phase.

        Args:
            done: number of steps or episodes done.
            note: the current loss or accuracy; if empty, the last one of the phase stays.
        """
        now = time.monotonic()
        self._note = note or self._note
        count = f" {done}/{self._total}" if self._total else ""  # to wait for another process has no end
        state = f"{self._phase}{count} {self._note}".rstrip()
        if self._bars and self._task is not None:
            visible = bool(self._title) or now >= self._due
            self._bars.update(self._task, completed=done, visible=visible, note=state)
        elif now >= self._due:
            self._due = now + self._interval
            left = (now - self._start) / max(1, done - self._first) * (self._total - done)
            title = f"{self._title}: " if self._title else ""
            say(f"{title}{state}, {duration(left)} left" if self._total else f"{title}{state}", err=True)

    def should_stop(self) -> bool:
        """See `metabench.engine.progress.Watcher`: Ctrl-C ends the command at once."""
        return False

    def end(self) -> None:
        """Remove the bar."""
        if self._bars and self._task is not None:
            self._bars.remove_task(self._task)


@contextlib.contextmanager
def terminal_bars() -> Iterator[Progress | None]:
    """Yield the progress bars of a terminal; None if standard error is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    console = Console(stderr=True)
    columns = (
        # A narrow terminal truncates the title, and keeps the other columns.
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, ratio=1)),
        *([BarColumn(bar_width=20)] if console.width >= _WIDE else []),
        TextColumn("{task.fields[note]}", markup=False, table_column=Column(no_wrap=True)),
        TimeElapsedColumn(table_column=Column(no_wrap=True, min_width=7)),
        TimeRemainingColumn(table_column=Column(no_wrap=True, min_width=7)),
    )
    with Progress(*columns, console=console, refresh_per_second=4, expand=True, transient=True) as bars:
        yield bars


@contextlib.contextmanager
def pack_progress(patience: float = _PACK_PATIENCE) -> Iterator[api.Progress]:
    """Yield a `metabench.api.Progress` that appears after `patience` seconds."""
    with terminal_bars() as bars:
        yield as_phases(ProgressLine("", bars, patience, _PACK_INTERVAL))
