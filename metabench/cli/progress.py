"""Progress on standard error: bars in a terminal, else a plain line now and then."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

if TYPE_CHECKING:  # imports torch
    from metabench import api

#: Columns of a terminal that has room for a bar.
_WIDE = 110
#: Seconds without progress while a dataset is packed: shorter work needs none.
_PACK_PATIENCE = 1.0
#: Seconds from one plain line about packing to the next.
_PACK_INTERVAL = 5.0


class ProgressLine:
    """One piece of work on the display: a bar in a terminal, else a plain line now and then.

    Args:
        title: the name of the work; may be empty.
        bars: the bars of a terminal; None prints plain lines.
        patience: seconds before the first plain line, or before a bar without title appears.
        interval: seconds from one plain line to the next.
    """

    def __init__(self, title: str, bars: Progress | None, patience: float, interval: float) -> None:
        self._title = title
        self._bars = bars
        self._task = bars.add_task(title, total=None, note="", visible=False) if bars else None
        self._interval = interval
        self._phase = ""
        self._total = self._first = 0
        self._begun = time.monotonic()
        self._due = self._begun + patience

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """Show that a phase ("train", "test", …) of `total` steps or episodes starts."""
        self._phase, self._total, self._first = name, total, done
        self._begun = time.monotonic()
        if self._bars and self._task is not None:
            self._bars.reset(self._task, total=total, completed=done, visible=bool(self._title), note="")

    def advance(self, done: int, note: str = "") -> None:
        """Show how much of the phase is done.

        Args:
            done: steps or episodes.
            note: a few words on how it goes; empty keeps the last ones in a terminal.
        """
        now = time.monotonic()
        state = f"{self._phase} {done}/{self._total}"
        if self._bars and self._task is not None:
            fields: dict[str, Any] = {"note": f"{state}  {note}".rstrip()} if note or not self._title else {}
            self._bars.update(self._task, completed=done, visible=bool(self._title) or now >= self._due, **fields)
        elif now >= self._due:
            self._due = now + self._interval
            left = (now - self._begun) / max(1, done - self._first) * (self._total - done)
            title = f"{self._title}: " if self._title else ""
            click.echo(f"{title}{state} {note}".rstrip() + f", {duration(left)} left", err=True)

    def end(self) -> None:
        """Take the bar away."""
        if self._bars and self._task is not None:
            self._bars.remove_task(self._task)


@contextlib.contextmanager
def terminal_bars() -> Iterator[Progress | None]:
    """Yield the bars of a terminal; None where standard error is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    console = Console(stderr=True)
    columns = (
        # In a narrow terminal the title loses its end; the other columns stay.
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, ratio=1)),
        *([BarColumn(bar_width=20)] if console.width >= _WIDE else []),
        TaskProgressColumn(table_column=Column(no_wrap=True, min_width=4)),
        TextColumn("{task.fields[note]}", markup=False, table_column=Column(no_wrap=True)),
        TimeElapsedColumn(table_column=Column(no_wrap=True, min_width=7)),
        TimeRemainingColumn(table_column=Column(no_wrap=True, min_width=7)),
    )
    with Progress(*columns, console=console, refresh_per_second=4, expand=True, transient=True) as bars:
        yield bars


@contextlib.contextmanager
def pack_progress(patience: float = _PACK_PATIENCE) -> Iterator[api.Progress]:
    """Yield a `metabench.api.Progress` that shows nothing in the first `patience` seconds."""
    with terminal_bars() as bars:
        line = ProgressLine("", bars, patience, _PACK_INTERVAL)
        phase = ""

        def progress(done: int, total: int, what: str) -> None:
            nonlocal phase
            if what != phase:
                line.phase(what, total)
                phase = what
            line.advance(done)

        yield progress


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
