"""The messages of a run on standard error, its progress, and Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType

import click
import torch
from rich.progress import Progress

from metabench.cli.progress import ProgressLine, duration, terminal_bars
from metabench.executors.loading import LoadedDataset
from metabench.executors.rehearsal import rehearse, shorter_profiles
from metabench.machine.device import describe_device, in_threads, share_of_threads
from metabench.planning.plan import Cell, sharing_a_training
from metabench.planning.suite import Suite, SuiteFile
from metabench.records.record import Record
from metabench.records.store import Store
from metabench.registry.manager import PluginManager

#: Seconds from one plain line about a cell to the next.
_INTERVAL = 20.0
#: Seconds of a run that needs no hint at a shorter profile.
_SHORT = 60.0


class RunConsole:
    """The `metabench.executors.driver.Reporter` of the command line, on standard error.

    Args:
        bars: the progress bars of a terminal; None prints plain lines.
        interrupts: the signals received so far.
    """

    def __init__(self, bars: Progress | None, interrupts: list[int]) -> None:
        self._bars = bars
        self._interrupts = interrupts
        self._lines: dict[str, CellLine] = {}

    def rehearse(
        self,
        cells: Sequence[Cell],
        kept: Mapping[str, Record],
        device: torch.device,
        datasets: Mapping[str, LoadedDataset],
        plugins: PluginManager,
        file: SuiteFile,
        suite: Suite,
        jobs: int,
    ) -> dict[str, float]:
        """Say which cells will run where, how long they should take, and which profiles are shorter.

        Returns:
            The expected seconds of each cell, by its id; empty where they are unknown.

        Raises:
            SuiteError: an algorithm or backbone refuses its cell.
        """
        waiting = [cell for cell in cells if cell.id not in kept]
        finished = f", {len(cells) - len(waiting)} of them finished before" if kept else ""
        profile = f", profile {suite.profile}" if suite.profile else ""
        self.say(f"{suite.name}{profile}: {len(cells)} cells{finished}")
        missing = "" if device.type == "cuda" else " (no CUDA device is used)"
        jobs = max(1, min(jobs, len(sharing_a_training(waiting))))
        at_once = f", {jobs} cells at once" if jobs > 1 else ""
        with in_threads(share_of_threads(jobs)):
            self.say(f"device: {describe_device(device)}{at_once}{missing}")
            if not waiting:
                return {}
            self.say("timing a few steps and episodes …")
            splits = {label: dataset.splits for label, dataset in datasets.items()}
            expected = rehearse(waiting, splits, device, plugins)
        if not expected:
            self.say("expected: unknown, since a cell fails")
            return {}
        seconds = sum(expected.values()) / jobs
        shorter = shorter_profiles(file, suite, plugins) if seconds > _SHORT else []
        hint = f" (shorter: {', '.join(f'--profile {name}' for name in shorter)})" if shorter else ""
        self.say(f"expected: about {duration(seconds)}{hint}")
        return expected

    def say(self, text: str) -> None:
        """Print a line."""
        if self._bars:
            self._bars.console.print(text, highlight=False, markup=False, soft_wrap=True)
        else:
            click.echo(text, err=True)

    def cell_started(self, cell: Cell, number: int, of: int) -> CellLine:
        """See `metabench.executors.driver.Reporter`."""
        self._lines[cell.id] = CellLine(f"[{number}/{of}] {cell.title}", self._bars, self._interrupts)
        return self._lines[cell.id]

    def cell_done(self, record: Record, kept: bool) -> None:
        """See `metabench.executors.driver.Reporter`."""
        cell = f"{record.algorithm} · {record.dataset} · {record.way}-way {record.shot}-shot · seed {record.seed}"
        if record.accuracy is None:
            self.say(f"FAILED  {cell}: {record.error}")
        else:
            accuracy = f"{record.accuracy.mean * 100:.2f} ± {record.accuracy.ci95 * 100:.2f} %"
            self.say(f"{'kept' if kept else 'done':<6}  {cell}: {accuracy}")
        if record.cell in self._lines:
            self._lines.pop(record.cell).end()

    def interrupted(self, store: Store, fresh: bool) -> None:
        """Say that finished cells are kept, and how to go on."""
        command = "the same command without --fresh" if fresh else "the same command again"
        self.say(f"Stopped. Everything finished is in {store.path}; run {command} to go on.")


class CellLine(ProgressLine):
    """The `metabench.engine.progress.Watcher` of one cell.

    Args:
        title: the cell's title.
        bars: the progress bars of a terminal; None prints plain lines.
        interrupts: the signals received so far.
    """

    def __init__(self, title: str, bars: Progress | None, interrupts: list[int]) -> None:
        super().__init__(title, bars, patience=_INTERVAL, interval=_INTERVAL)
        self._interrupts = interrupts

    def should_stop(self) -> bool:
        """See `metabench.engine.progress.Watcher`."""
        return bool(self._interrupts)


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
        with terminal_bars() as bars:
            yield RunConsole(bars, interrupts)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
