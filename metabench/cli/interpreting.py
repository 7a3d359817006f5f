"""Interpret an episode for the report, with the progress of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metabench.cli.progress import ProgressLine
from metabench.records.runs import Runs

if TYPE_CHECKING:  # a report without interpretations needs none of it
    from metabench.analysis.interpretation import Interpretation


def interpretations(runs: Runs, episode: int) -> list[Interpretation]:
    """Return a test episode as the methods of the first table see it; lines of the terminal show the progress.

    Raises:
        MetabenchError: weights or data are missing, or a class cannot be loaded.
    """
    from metabench.cli.progress import terminal_bars
    from metabench.errors import PluginError, UsageError
    from metabench.executors.forks import start_is_cheap
    from metabench.executors.interpreting import Interpreting, cells_to_interpret
    from metabench.executors.processes import Died, run_job

    cells = cells_to_interpret(runs)
    if not cells:
        raise UsageError("--interpret: no cell with classes is ok in these runs")
    job = Interpreting(cells, episode)
    with terminal_bars() as bars:
        line = _Line("interpret", bars, patience=2.0, interval=5.0)
        try:
            found: list[Interpretation] | Died = run_job(job, 1, line) if start_is_cheap() else next(job.run(line))
        finally:
            line.end()
    if isinstance(found, Died):
        raise PluginError(f"no episode was interpreted: {found.problem}")
    return found


class _Line(ProgressLine):
    """The watcher of an `Interpreting`; Ctrl-C ends the command at once."""

    def should_stop(self) -> bool:
        """See `metabench.engine.progress.Watcher`."""
        return False
