"""`Run`: the results of one or several runs, as data frames, comparisons, plots and learners."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metabench.interface.selecting import Filters, accepted

if TYPE_CHECKING:  # imported on first use
    import pandas as pd
    from matplotlib.axes import Axes

    from metabench.analysis.paired import PairedDifference
    from metabench.analysis.tables import Table
    from metabench.interface.temporary import TemporaryFolder
    from metabench.learners.trained import TrainedLearner
    from metabench.records.record import Record
    from metabench.records.runs import Runs


class Run:
    """The cells of one or several runs; `load_run` makes it.

    A notebook shows its leaderboard. A cell is named by its id, the index of `cells`, or by the first letters of it.

    Args:
        directories: the output directories.
        only: filters of cells; None takes all.
        temporary: folders that live as long as the object.

    Attributes:
        directories: the output directories.

    Raises:
        StoreError: a directory has no readable results.
        UsageError: a filter is unknown, or no cell passes all of them.
    """

    def __init__(
        self,
        directories: Sequence[Path],
        only: Filters | None = None,
        temporary: Sequence[TemporaryFolder] = (),
    ) -> None:
        from metabench.records.runs import Runs

        self.directories = list(directories)
        self._only, self._temporary = dict(only or {}), list(temporary)
        self._runs: Runs = Runs.read(self.directories, accepted(only))

    @cached_property
    def tables(self) -> list[Table]:
        """Return the ranked tables of the leaderboard."""
        from metabench.analysis.standings import make_tables
        from metabench.registry.manager import PluginManager

        published = PluginManager.from_environment().published_results()
        return make_tables(self._runs.records, self._runs, published)

    @property
    def cells(self) -> pd.DataFrame:
        """Return a data frame with a row for each cell.

        The index is the id of the cell. Columns are those of ``metabench leaderboard --format csv``: settings,
        parameters that vary (``params.NAME``), the metric that ranks (``accuracy``, a share of 1) with half its
        intervals (``ci95`` over episodes, ``data_ci95`` about the data), the other metrics, ranks and costs.
        """
        from metabench.reporting.rendering import frame

        return frame(self.tables).set_index("cell")

    def only(self, **labels: str | int | Sequence[str | int]) -> Run:
        """Return the run with some of its cells, e.g. ``run.only(algorithm="maml", shot=[1, 5])``.

        Raises:
            UsageError: a key or label is unknown, or no cell has all of them.
        """
        return Run(self.directories, {**self._only, **labels}, self._temporary)

    def values(self, metric: str | None = None) -> pd.DataFrame:
        """Return the value of each episode: a row for each episode, a column for each cell.

        Columns are ids of cells. Cells of the same test episodes (`compare`) have them in the same rows; episodes that
        a cell lacks are NaN.

        Args:
            metric: name of the metric; None means the one that ranks.

        Raises:
            UsageError: a cell has no value of the metric for each episode.
        """
        import pandas as pd

        columns = {}
        for record in self._finished():
            columns[record.cell] = pd.Series(self._figures(record, metric))
        return pd.DataFrame(columns).rename_axis(index="episode", columns="cell")

    def compare(self, one: str, other: str, metric: str | None = None) -> PairedDifference:
        """Compare two cells on their common test episodes.

        Args:
            one: id of a cell.
            other: id of another cell.
            metric: name of the metric; None means the one that ranks.

        Returns:
            The difference, the first minus the second, with its intervals and p (`docs/statistics.md`).

        Raises:
            UsageError: a cell is unknown, or they were tested on different episodes.
        """
        from metabench.analysis.paired import Contest, compare
        from metabench.analysis.tables import episodes_of
        from metabench.errors import UsageError

        first, second = self.record(one), self.record(other)
        if episodes_of(first) != episodes_of(second):
            raise UsageError(f"{first.cell} and {second.cell} were tested on different episodes: they have no pairs")
        values = [self._figures(record, metric) for record in (second, first)]
        common = min(map(len, values))
        groups = self._runs.groups(first)[:common]
        (comparisons,) = compare([Contest([part[:common] for part in values], groups)])
        return comparisons.versus_best[0]

    def record(self, cell: str) -> Record:
        """Return the record of a cell with results (docs/records.md).

        Args:
            cell: id of the cell, or its first letters.

        Raises:
            UsageError: the id fits no cell or several cells, or it has no results.
        """
        from metabench.learners.choosing import chosen

        return chosen(self._runs.records, cell)

    def learner(self, cell: str | None = None, device: str = "auto") -> TrainedLearner:
        """Return the trained learner of a cell, which adapts to a support set and answers queries.

        Args:
            cell: id of the cell; None means the only one of the run.
            device: ``"auto"``, ``"cpu"`` or ``"cuda"``.

        Raises:
            MetabenchError: there is no such cell, its weights were not kept, or its data are missing.
        """
        from metabench.errors import UsageError
        from metabench.learners.trained import load_learner

        if cell is None and len(self._runs.records) > 1:
            raise UsageError(f"the run has {len(self._runs.records)} cells: name one, or choose it by run.only(…)")
        record = self.record(cell or self._runs.records[0].cell)
        return load_learner(self._runs.directory(record), record.cell, device)

    def plot_accuracy(self, ax: Axes | None = None) -> Axes:
        """Plot the metric that ranks, of every method and shape, with its interval over episodes.

        Args:
            ax: the axes; None makes new ones.

        Raises:
            UsageError: matplotlib is missing.
        """
        from metabench.interface.plots import plot_accuracy

        return plot_accuracy(self.tables, ax)

    def plot_training(self, ax: Axes | None = None) -> Axes:
        """Plot the validation curve of every training; arguments and errors as of `plot_accuracy`."""
        from metabench.interface.plots import plot_training

        return plot_training(self._finished(), ax)

    def _finished(self) -> list[Record]:
        """Return the records that are ok."""
        return [record for record in self._runs.records if record.status == "ok"]

    def _figures(self, record: Record, metric: str | None) -> Any:
        """Return the [n] values of a metric.

        Raises:
            UsageError: the cell has none.
        """
        from metabench.errors import UsageError, nearest

        name = metric or record.ranked_by
        estimate = record.metrics.get(name)
        if estimate is None or estimate.is_pooled:
            known = [name for name, found in record.metrics.items() if found and not found.is_pooled]
            problem = "pools all episodes" if estimate else f"is none of its metrics{nearest(name, known)}"
            raise UsageError(f"'{name}' of cell {record.cell} {problem}: per episode, it has {', '.join(known)}")
        return self._runs.figures(record, name)

    def __repr__(self) -> str:
        from metabench.text import counted

        suites = ", ".join(dict.fromkeys(record.suite for record in self._runs.records))
        places = "" if self._temporary else f" in {', '.join(map(os.fspath, self.directories))}"
        return f"<Run of {suites}: {counted(len(self._runs.records), 'cell')}{places}>"

    def _repr_html_(self) -> str:
        from metabench.reporting.rendering import render_html

        return render_html(self.tables)


def load_run(*runs: str | os.PathLike[str] | Run, only: Filters | None = None) -> Run:
    """Return the results of one run, or of several beside one another.

    Args:
        runs: output directories, and results that are loaded already, e.g. of `metabench.evaluate`.
        only: filters of cells, e.g. ``{"algorithm": "maml"}``; None takes all.

    Raises:
        StoreError: a directory has no readable results.
        UsageError: no run is given, a filter is unknown, or no cell passes all of them.

    Example:
        >>> import metabench
        >>> run = metabench.load_run("runs/example/default")
        >>> bool((run.cells["accuracy"] >= 0.2).all())
        True
        >>> run.values().shape  # episodes × cells
        (20, 2)
        >>> protonet, baseline = (run.only(algorithm=name).cells.index[0] for name in ("protonet", "nearest-mean"))
        >>> difference = run.compare(protonet, baseline)
        >>> -1 < difference.difference < 1 and 0 <= difference.p <= 1
        True
    """
    from metabench.errors import UsageError

    if not runs:
        raise UsageError("give the output directory of a run, e.g. load_run('runs/quickstart/default')")
    directories = [path for run in runs for path in (run.directories if isinstance(run, Run) else [Path(run)])]
    temporary = [folder for run in runs if isinstance(run, Run) for folder in run._temporary]
    return Run(list(dict.fromkeys(directories)), only, temporary)
