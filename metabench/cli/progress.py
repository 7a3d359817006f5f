"""Progress of long work on standard error: a bar in a terminal, else a plain line now and then."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from metabench.api import Progress

#: Seconds of silence: what is done by then needs no progress.
_PATIENCE = 1.0
#: Seconds from one plain line to the next.
_INTERVAL = 5.0


@contextlib.contextmanager
def pack_progress(patience: float = _PATIENCE) -> Iterator[Progress]:
    """Yield a `metabench.api.Progress` that shows nothing in the first `patience` seconds."""
    with _bar(patience) if sys.stderr.isatty() else _lines(patience) as progress:
        yield progress


@contextlib.contextmanager
def _bar(patience: float) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import Progress as Bar

    bar = Bar(console=Console(stderr=True), transient=True)
    task = bar.add_task("", total=None)
    begun = time.monotonic()

    def progress(done: int, total: int, what: str) -> None:
        bar.update(task, completed=done, total=total, description=what)
        if time.monotonic() - begun >= patience:
            bar.start()

    try:
        yield progress
    finally:
        bar.stop()


@contextlib.contextmanager
def _lines(patience: float) -> Iterator[Progress]:
    due = time.monotonic() + patience

    def progress(done: int, total: int, what: str) -> None:
        nonlocal due
        now = time.monotonic()
        if now >= due:
            due = now + _INTERVAL
            click.echo(f"{what}: {done} of {total}", err=True)

    yield progress
