"""Messages and progress of a run on standard error, and Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from types import FrameType

import torch
from rich.progress import Progress

from metabench.cli.progress import ProgressLine, duration, terminal_bars
from metabench.cli.streams import say
from metabench.engine.progress import Interrupted
from metabench.executors.loading import LoadedDataset
from metabench.executors.rehearsal import rehearse, rehearse_in_worker, shorter_profiles
from metabench.machine.device import describe_device, in_threads, share_of_threads
from metabench.planning.cells import Cell, Training, sharing_a_training
from metabench.planning.suite import Suite, SuiteFile
from metabench.records.record import Record
from metabench.records.store import Store
from metabench.registry.manager import PluginManager
from metabench.reporting.leaderboard import shown
from metabench.text import shape_text, visible_lines

#: Seconds between plain progress lines of a cell.
_INTERVAL = 20.0
#: Longest expected seconds of a run without a hint at shorter profiles.
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
        datasets: Mapping[str, LoadedDataset] | None,
        plugins: PluginManager,
        file: SuiteFile,
        suite: Suite,
        jobs: int,
        planned: Callable[[Suite, SuiteFile], Sequence[Cell]],
        weights: Collection[str],
    ) -> dict[str, float]:
        """Time each setup, and print the cells, device, expected time and shorter profiles.

        Args:
            cells: the cells of the run.
            kept: records of finished cells, by the cell's id.
            device: the device that cells run on.
            datasets: the loaded datasets, by label, to time the setups in this process; None times them in a worker.
            plugins: the provider of the classes.
            file: the suite file.
            suite: the resolved suite.
            jobs: number of cells to run at once.
            planned: returns the plan of a resolved suite.
            weights: ids of the trainings whose weights an earlier run has kept.

        Returns:
            The expected seconds of each cell, by its id; empty if unknown.

        Raises:
            SuiteError: an algorithm or backbone refuses its cell.
            Interrupted: the user asked to stop.
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
            waiting = [cell for cell in waiting if not cell.problem]
            if not waiting:
                return {}
            self.say("timing a few steps and episodes …")
            if datasets is not None:
                splits = {label: dataset.splits for label, dataset in datasets.items()}
                expected = rehearse(waiting, splits, device, plugins, weights)
            else:
                line = CellLine("timing", self._bars, self._interrupts)
                expected = rehearse_in_worker(waiting, device, share_of_threads(jobs), line, weights)
                line.end()
            if self._interrupts:
                raise Interrupted
        if not expected:
            self.say("expected: unknown, because a cell fails")
            return {}
        seconds = sum(expected.values()) / jobs
        shorter = shorter_profiles(file, suite, planned) if seconds > _SHORT else []
        hint = f" (shorter: {', '.join(f'--profile {name}' for name in shorter)})" if shorter else ""
        self.say(f"expected: about {duration(seconds)}{hint}")
        return expected

    def say(self, text: str) -> None:
        """Print a line."""
        if self._bars:
            self._bars.console.print(visible_lines(text), highlight=False, markup=False, soft_wrap=True)
        else:
            say(text, err=True)

    def cell_started(self, cell: Cell, number: int, of: int) -> CellLine:
        """See `metabench.executors.driver.Reporter`."""
        self._lines[cell.id] = CellLine(f"[{number}/{of}] {cell.title}", self._bars, self._interrupts)
        return self._lines[cell.id]

    def training_started(self, training: Training) -> CellLine:
        """See `metabench.executors.driver.Reporter`."""
        self._lines[training.id] = CellLine(f"training of {training.title}", self._bars, self._interrupts)
        return self._lines[training.id]

    def training_done(self, training: Training, problem: str) -> None:
        """See `metabench.executors.driver.Reporter`."""
        self.say(f"{'FAILED' if problem else 'done':<7} training of {training.title}{': ' if problem else ''}{problem}")
        self._lines.pop(training.id).end()

    def cell_done(self, record: Record, kept: bool) -> None:
        """See `metabench.executors.driver.Reporter`."""
        shape = shape_text(record.way, record.shot)
        cell = f"{record.algorithm} · {record.dataset} · {record.backbone} · {shape} · seed {record.seed}"
        if record.primary is None:
            self.say(f"{'skipped' if record.status == 'skipped' else 'FAILED':<7} {cell}: {record.error}")
        else:
            result = shown(record.ranking, record.primary.value, record.primary.ci95)
            self.say(f"{'kept' if kept else 'done':<7} {cell}: {result} {record.ranking.unit}".rstrip())
        if record.cell in self._lines:
            self._lines.pop(record.cell).end()

    def interrupted(self, store: Store, fresh: bool) -> None:
        """Print that finished cells are kept, and how to resume."""
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
    """Yield a console, with Ctrl-C, SIGTERM and SIGHUP asking the run to stop.

    A second signal raises KeyboardInterrupt at once; further ones are ignored, so that the process ends in order.
    """
    interrupts: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        interrupts.append(number)
        if len(interrupts) > 1:
            for other in handlers:
                signal.signal(other, signal.SIG_IGN)
            raise KeyboardInterrupt

    names = ("SIGINT", "SIGTERM", "SIGHUP")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    # A signal that is ignored, e.g. SIGHUP by `nohup`, stays ignored.
    handlers = {n: handler for n in numbers if (handler := signal.getsignal(n)) not in (None, signal.SIG_IGN)}
    for number in handlers:
        signal.signal(number, interrupt)
    try:
        with terminal_bars() as bars:
            yield RunConsole(bars, interrupts)
    finally:
        for number, handler in handlers.items() if len(interrupts) < 2 else ():
            signal.signal(number, handler)
