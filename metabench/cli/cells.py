"""The argument and the options that choose a trained cell of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:  # imports torch
    from metabench.learners.trained import TrainedLearner
    from metabench.records.record import Record

_Command = Callable[..., Any]


def choosing_cell(command: _Command) -> _Command:
    """Give a command the run and the options that choose a cell; see `chosen_cell`."""
    options = [
        click.argument("run", type=click.Path(path_type=Path)),
        click.option("--cell", metavar="ID", help="The cell, or its first letters [default: the only one]."),
        click.option(
            "--only", multiple=True, metavar="KEY=A,B", help="Choose the cell by its labels, e.g. algorithm=maml."
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def chosen_cell(run: Path, cell: str | None, only: Sequence[str]) -> Record:
    """Return the record of the cell that the options choose.

    Raises:
        StoreError: the run cannot be read.
        UsageError: there is no such cell, or several, or it has no results.
    """
    from metabench.filters import parse_filters
    from metabench.learners.choosing import chosen
    from metabench.records.runs import Runs

    return chosen(Runs.read([run], parse_filters(only)).records, cell)


def learner_of(run: Path, record: Record, device: str) -> TrainedLearner:
    """Return the learner of a cell, showing the progress.

    Raises:
        MetabenchError: its weights or data are missing, or do not fit.
    """
    from metabench.cli.progress import ProgressLine, terminal_bars
    from metabench.errors import CellFailed, Unfit, UsageError
    from metabench.learners.trained import load_learner

    with terminal_bars() as bars:
        line = ProgressLine("loading", bars, patience=1.0, interval=5.0)
        try:
            return load_learner(run, record.cell, device, line)
        except (CellFailed, Unfit) as problem:
            raise UsageError(f"cell {record.cell} has no learner: {problem}") from problem
        finally:
            line.end()
