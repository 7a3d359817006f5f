"""`metabench status`: what a run does now."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from metabench.cli.streams import say
from metabench.text import counted, duration

if TYPE_CHECKING:  # imported by the command when it runs
    from metabench.executors.status import CellStatus, RunStatus

#: Seconds between two looks of ``--watch``.
_EVERY = 2.0
#: The states in the order in which they are listed; cells that are ok or wait are counted only.
_ORDER = ("running", "lost", "failed", "invalid", "skipped", "waiting", "ok")
_LISTED = _ORDER[:5]


@click.command()
@click.argument("directory", type=click.Path(path_type=Path), metavar="RUN")
@click.option("--format", "style", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--watch", is_flag=True, help="Show it anew every two seconds until nothing runs.")
@click.option(
    "--serve",
    is_flag=False,
    flag_value=0,
    type=click.IntRange(0, 65535),
    metavar="[PORT]",
    help="Show it in a page that refreshes itself, on this computer only [default: a free port].",
)
def status(directory: Path, style: str, watch: bool, serve: int | None) -> None:
    """Show what runs where in the output directory RUN, what is done, failed, lost or waits, and the expected end.

    It reads files only, while the run goes on and after it has ended or was killed, also from another computer.
    """
    from metabench.errors import UsageError
    from metabench.executors.status import status_of

    if watch and (style == "json" or not sys.stdout.isatty()):
        raise UsageError("--watch is for a terminal: leave it out, and ask again")
    if serve is not None and (watch or style == "json"):
        raise UsageError("--serve shows a page: leave out --watch and --format")
    if watch:
        _watch(directory)
        return
    found = status_of(directory)
    if serve is not None:
        _serve(directory, serve)
        return
    say(found.model_dump_json(indent=1) if style == "json" else as_text(found))


def _serve(directory: Path, port: int) -> None:
    """Serve the page until Ctrl-C."""
    from metabench.reporting.status.server import StatusServer

    with StatusServer(directory, port) as server:
        say(f"{server.address} shows {directory} to this computer; Ctrl-C ends it")
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


def _watch(directory: Path) -> None:
    from rich.live import Live
    from rich.text import Text

    from metabench.executors.status import status_of

    found = status_of(directory)
    with Live(Text(as_text(found)), auto_refresh=False, vertical_overflow="crop") as live:
        while found.going is not False or found.counts.get("running"):
            time.sleep(_EVERY)
            found = status_of(directory)
            live.update(Text(as_text(found)), refresh=True)


def as_text(found: RunStatus) -> str:
    """Return the state of a run for people."""
    counts = ", ".join(f"{found.counts[state]} {state}" for state in _ORDER if state in found.counts)
    lines = [f"{found.run}: {counted(len(found.cells), 'cell')}: {counts}", _driver(found)]
    for state in _LISTED:
        lines += [f"{state:<8} {_line(cell)}" for cell in found.cells if cell.state == state]
    if found.seconds_left is not None and found.expected_end is not None:
        lines.append(f"expected end: {found.expected_end[11:16]}, in about {duration(found.seconds_left)}")
    return "\n".join(lines)


def _driver(found: RunStatus) -> str:
    run = found.driver
    if run is None:
        return "no run goes on here"
    at_once = "" if run.slots is None else f", {run.slots} at once"
    place = f"process {run.driver.pid} on {run.host}, executor {run.executor}{at_once}, since {run.started[:16]} UTC"
    if found.going is False:
        if not run.outlives_driver:
            end = "its trainings have stopped"
        elif found.jobs:
            end = f"{counted(found.jobs, 'job')} of it {'goes' if found.jobs == 1 else 'go'} on"
        else:
            end = "none of its jobs goes on"
        return f"driver: ended ({place}); {end}: run the same command again to go on"
    if found.sharing > 1:
        place += f"; {found.sharing - 1} more share the directory"
    return f"driver: {place}" + (" (another computer: whether it is alive is not known)" if found.going is None else "")


def _line(cell: CellStatus) -> str:
    parts = [cell.title]
    if cell.phase:
        parts.append(f"{cell.phase} {cell.done}/{cell.total} {cell.note}".rstrip())
    if cell.host:
        parts.append(f"process {cell.pid} on {cell.host}" + (f", attempt {cell.attempt}" if cell.attempt > 1 else ""))
    if cell.reason:
        parts.append(cell.reason)
    return "  ".join(parts)
