"""Messages and progress of a run on standard error, and Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from rich.progress import Progress

from metabench.cli.progress import ProgressLine, terminal_bars
from metabench.cli.streams import say
from metabench.contracts import Cell, Job, RunOptions
from metabench.records.record import Record
from metabench.records.store import Store
from metabench.reporting.figures import shown
from metabench.text import visible_lines

#: Seconds between plain progress lines of a cell.
_INTERVAL = 20.0


class RunConsole:
    """The `metabench.executors.job_line.Reporter` and `metabench.contracts.Console` of the command line.

    It writes on standard error.

    Args:
        bars: the progress bars of a terminal; None prints plain lines.
        interrupts: the signals received so far.
    """

    def __init__(self, bars: Progress | None, interrupts: list[int]) -> None:
        self._bars = bars
        self._interrupts = interrupts
        self._lines: dict[str, CellLine] = {}

    @property
    def interrupted(self) -> bool:
        """Return whether the user asked to stop."""
        return bool(self._interrupts)

    @contextlib.contextmanager
    def watching(self, title: str) -> Iterator[CellLine]:
        """See `metabench.contracts.Console`."""
        line = CellLine(title, self._bars, self._interrupts)
        yield line
        line.end()

    def say(self, text: str) -> None:
        """Print a line."""
        if self._bars:
            self._bars.console.print(visible_lines(text), highlight=False, markup=False, soft_wrap=True)
        else:
            say(text, err=True)

    def cell_started(self, cell: Cell, number: int, of: int) -> CellLine:
        """See `metabench.executors.job_line.Reporter`."""
        self._lines[cell.id] = CellLine(f"[{number}/{of}] {cell.title}", self._bars, self._interrupts)
        return self._lines[cell.id]

    def job_started(self, job: Job) -> CellLine:
        """See `metabench.executors.job_line.Reporter`."""
        self._lines[job.key] = CellLine(job.title, self._bars, self._interrupts)
        return self._lines[job.key]

    def job_retried(self, job: Job, reason: str) -> None:
        """See `metabench.executors.job_line.Reporter`."""
        self.say(f"{'LOST':<7} {job.title}: {reason}; it is tried again")

    def job_done(self, job: Job, problem: str) -> None:
        """See `metabench.executors.job_line.Reporter`."""
        self.say(f"{'FAILED' if problem else 'done':<7} {job.title}{': ' if problem else ''}{problem}")
        self._lines.pop(job.key).end()

    def cell_done(self, record: Record, kept: bool) -> None:
        """See `metabench.executors.job_line.Reporter`."""
        names = [record.algorithm, record.dataset, record.backbone, record.shape, f"seed {record.seed}"]
        cell = " · ".join(filter(None, names))
        if record.primary is None:
            self.say(f"{'skipped' if record.status == 'skipped' else 'FAILED':<7} {cell}: {record.error}")
        else:
            result = shown(record.ranking, record.primary.value, record.primary.ci95)
            self.say(f"{'kept' if kept else 'done':<7} {cell}: {result} {record.ranking.unit}".rstrip())
        if record.cell in self._lines:
            self._lines.pop(record.cell).end()

    def stopped(self, store: Store, options: RunOptions) -> None:
        """Print that finished cells are kept, and how to resume."""
        command = "the same command without --fresh" if options.fresh else "the same command again"
        if options.executor is not None and options.executor.outlives_driver:
            self.say(
                f"Stopped. The jobs go on (`metabench status {store.path}`): run {command} to make their records, or "
                f"end them by `metabench cancel {store.path}`."
            )
            return
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

    A second signal raises KeyboardInterrupt at once; further ones are ignored, so that the process ends in order. Only
    the main thread of Python can watch signals.
    """
    interrupts: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        interrupts.append(number)
        if len(interrupts) > 1:
            for other in handlers:
                signal.signal(other, signal.SIG_IGN)
            raise KeyboardInterrupt

    in_main = threading.current_thread() is threading.main_thread()
    names = ("SIGINT", "SIGTERM", "SIGHUP") if in_main else ()
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
