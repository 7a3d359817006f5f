"""What a run shows: a live line in a terminal, else a plain line now and then; and Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import Any

import click
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

from metabench.executors.driver import LoadedDataset, is_valid, origin
from metabench.executors.estimate import expected_times, shorter_profiles
from metabench.machine.device import describe_device, in_threads, share_of_threads
from metabench.planning.plan import Cell, sharing_a_training
from metabench.planning.suite import Suite, SuiteFile
from metabench.records.record import Record
from metabench.records.store import Store
from metabench.registry.manager import PluginManager

#: Seconds from one plain line to the next.
_INTERVAL = 20.0
#: Columns of a terminal that has room for a bar.
_WIDE = 110
#: Runs shorter than this need no hint at a shorter profile.
_LONG = 60.0


class RunConsole:
    """The `metabench.executors.driver.Reporter` of the command line; all of it goes to standard error.

    Args:
        live: the progress bars of a terminal; None prints plain lines.
        interrupts: the signals received so far.
    """

    def __init__(self, live: Progress | None, interrupts: list[int]) -> None:
        self._live = live
        self._interrupts = interrupts
        self._lines: dict[str, CellLine] = {}

    def start(
        self,
        cells: Sequence[Cell],
        store: Store,
        device: torch.device,
        datasets: Mapping[str, LoadedDataset],
        plugins: PluginManager,
        file: SuiteFile,
        suite: Suite,
        fresh: bool,
        jobs: int,
    ) -> dict[str, float]:
        """Say what will run where, how long it should take, and which profiles are shorter.

        Returns:
            The expected seconds of each cell by its identity; nothing where they are not known.
        """
        waiting = [
            cell for cell in cells if fresh or not _is_kept(store, cell, datasets[cell.dataset.label], device, plugins)
        ]
        kept = len(cells) - len(waiting)
        profile = f", profile {suite.profile}" if suite.profile else ""
        self.say(f"{suite.name}{profile}: {len(cells)} cells" + (f", {kept} of them finished before" if kept else ""))
        missing = "" if device.type == "cuda" else " (no CUDA device is used)"
        jobs = max(1, min(jobs, len(sharing_a_training(waiting))))
        at_once = f", {jobs} cells at once" if jobs > 1 else ""
        with in_threads(share_of_threads(jobs)):
            self.say(f"device: {describe_device(device)}{at_once}{missing}")
            if not waiting:
                return {}
            self.say("timing a few steps and episodes …")
            splits = {label: dataset.splits for label, dataset in datasets.items()}
            try:
                expected = expected_times(waiting, splits, device, plugins)
            except Exception:  # what fails here fails as a cell, with its reason
                self.say("expected: unknown, since a cell fails")
                return {}
        seconds = sum(expected.values()) / jobs
        shorter = shorter_profiles(file, suite, plugins) if seconds > _LONG else []
        hint = f" (shorter: {', '.join(f'--profile {name}' for name in shorter)})" if shorter else ""
        self.say(f"expected: about {_duration(seconds)}{hint}")
        return expected

    def say(self, text: str) -> None:
        """Print a line."""
        if self._live:
            self._live.console.print(text, highlight=False, markup=False, soft_wrap=True)
        else:
            click.echo(text, err=True)

    def cell_started(self, cell: Cell, number: int, of: int) -> CellLine:
        """See `metabench.executors.driver.Reporter`."""
        self._lines[cell.id] = CellLine(f"[{number}/{of}] {cell.title}", self._live, self._interrupts)
        return self._lines[cell.id]

    def cell_done(self, record: Record, kept: bool) -> None:
        """See `metabench.executors.driver.Reporter`."""
        where = f"{record.algorithm} · {record.dataset} · {record.way}-way {record.shot}-shot · seed {record.seed}"
        if record.accuracy is None:
            self.say(f"FAILED  {where}: {record.error}")
        else:
            accuracy = f"{record.accuracy.mean * 100:.2f} ± {record.accuracy.ci95 * 100:.2f} %"
            self.say(f"{'kept' if kept else 'done':<6}  {where}: {accuracy}")
        if record.cell in self._lines:
            self._lines.pop(record.cell).end()

    def interrupted(self, store: Store, fresh: bool) -> None:
        """Say what was kept."""
        command = "the same command without --fresh" if fresh else "the same command again"
        self.say(f"Stopped. Everything finished is in {store.path}; run {command} to go on.")


class CellLine:
    """The `metabench.engine.progress.Watcher` of one cell: a live line, or a plain one now and then.

    Args:
        title: of the cell.
        live: the progress bars of a terminal; None prints plain lines.
        interrupts: the signals received so far.
    """

    def __init__(self, title: str, live: Progress | None, interrupts: list[int]) -> None:
        self._title = title
        self._live = live
        self._task = live.add_task(title, total=None, note="", visible=False) if live else None
        self._interrupts = interrupts
        self._phase = ""
        self._total = self._begin = 0
        self._begun = time.monotonic()
        self._due = self._begun + _INTERVAL

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """See `metabench.engine.progress.Watcher`."""
        self._phase, self._total, self._begin = name, total, done
        self._begun = time.monotonic()
        if self._live and self._task is not None:
            self._live.reset(self._task, total=total, completed=done, visible=True, note="")

    def advance(self, done: int, note: str = "") -> None:
        """See `metabench.engine.progress.Watcher`."""
        if self._live and self._task is not None:
            text = f"{self._phase} {done}/{self._total}"
            fields: dict[str, Any] = {"note": f"{text}  {note}"} if note else {}
            self._live.update(self._task, completed=done, **fields)
        elif time.monotonic() >= self._due:
            now = time.monotonic()
            self._due = now + _INTERVAL
            left = (now - self._begun) / max(1, done - self._begin) * (self._total - done)
            state = f"{self._phase} {done}/{self._total} {note}".rstrip()
            click.echo(f"{self._title}: {state}, {_duration(left)} left", err=True)

    def should_stop(self) -> bool:
        """See `metabench.engine.progress.Watcher`."""
        return bool(self._interrupts)

    def end(self) -> None:
        """Take the live line away."""
        if self._live and self._task is not None:
            self._live.remove_task(self._task)


@contextlib.contextmanager
def make_console() -> Iterator[RunConsole]:
    """Yield a console, during which Ctrl-C and SIGTERM ask the run to stop; a second one stops it at once."""
    interrupts: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        if interrupts:
            raise KeyboardInterrupt
        interrupts.append(number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        if sys.stderr.isatty():
            console = Console(stderr=True)
            columns = (
                # Of a narrow terminal the title loses its end, and nothing else goes.
                TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, ratio=1)),
                *([BarColumn(bar_width=20)] if console.width >= _WIDE else []),
                TextColumn("{task.fields[note]}", markup=False, table_column=Column(no_wrap=True)),
                TimeElapsedColumn(table_column=Column(no_wrap=True, min_width=7)),
                TimeRemainingColumn(table_column=Column(no_wrap=True, min_width=7)),
            )
            with Progress(*columns, console=console, refresh_per_second=4, expand=True) as live:
                yield RunConsole(live, interrupts)
        else:
            yield RunConsole(None, interrupts)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_kept(store: Store, cell: Cell, data: LoadedDataset, device: torch.device, plugins: PluginManager) -> bool:
    record = store.record(cell.id)
    here = origin(cell, data, device, plugins)
    return record is not None and is_valid(record, here) and store.is_complete(record)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
