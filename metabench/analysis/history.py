"""Changes of the cells of a series of runs: steps from run to run, and losses and gains since a pinned run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from metabench.analysis.paired import ALPHA, holm
from metabench.analysis.paired_cells import are_comparable, by_title, difference, p_above
from metabench.analysis.stats import MeanInterval
from metabench.errors import UsageError
from metabench.records.measured import Declaration
from metabench.records.record import Record
from metabench.records.runs import Runs


@dataclass(frozen=True)
class Change:
    """The difference of a run to an earlier one, on identical episodes.

    Attributes:
        since: number of the earlier run.
        difference: the later run minus the earlier one.
        p: two-sided p-value, adjusted over all changes of the history (Holm).
    """

    since: int
    difference: MeanInterval
    p: float

    @property
    def is_clear(self) -> bool:
        """Return whether it is significant."""
        return self.p <= ALPHA


@dataclass(frozen=True)
class Point:
    """A cell in one run.

    Attributes:
        run: number of the run.
        record: its record.
        step: the change to the run before that has comparable results; None of the first.
        since_pinned: the change to the pinned run; None of that run, and where the two have other episodes.
    """

    run: int
    record: Record
    step: Change | None = None
    since_pinned: Change | None = None


@dataclass(frozen=True)
class Course:
    """A cell over the runs.

    Attributes:
        cell: title of the cell.
        metric: the declaration of the metric that ranks.
        points: the runs that have results of it.
        gaps: what other runs have of it, by number of the run, e.g. ``"failed: it broke"``.
    """

    cell: str
    metric: Declaration
    points: Sequence[Point]
    gaps: Mapping[int, str]

    @property
    def steps(self) -> list[Point]:
        """Return the points with a clear change to the run before."""
        return [point for point in self.points if point.step and point.step.is_clear]

    @property
    def drift(self) -> Point | None:
        """Return the last point, if it has clearly changed since the pinned run."""
        last = self.points[-1]
        return last if last.since_pinned and last.since_pinned.is_clear else None

    @property
    def drifted_at(self) -> int | None:
        """Return the run from which on every point has clearly changed since the pinned run, to the same side."""
        last = self.points[-1].since_pinned
        since = None
        for point in reversed(self.points):
            change = point.since_pinned
            if last is None or change is None or not change.is_clear:
                break
            if change.difference.mean * last.difference.mean < 0:
                break
            since = point.run
        return since


@dataclass(frozen=True)
class History:
    """The cells of a series of runs.

    Attributes:
        names: names of the runs, in their order.
        pinned: number of the pinned run.
        courses: the cells that a run has results of, by title.
        comparisons: number of differences over which p-values are adjusted.
    """

    names: Sequence[str]
    pinned: int
    courses: Sequence[Course]
    comparisons: int


def make_history(runs: Sequence[Runs], names: Sequence[str], pinned: int = 0) -> History:
    """Compare each run with the one before, and with a pinned one, cell by cell on identical episodes.

    A change is significant by a two-sided t test of the paired differences, adjusted over all comparisons of the
    history (Holm): at most one history of unchanged runs in twenty shows any. Changes to the run before find a single
    step, those to the pinned run find losses that are too small to be found one by one.

    Args:
        runs: the runs, in their order.
        names: a name for each.
        pinned: number of the run to compare all others with.

    Raises:
        UsageError: there is one run only, or no run has results.
    """
    if len(runs) < 2:
        raise UsageError("a history needs at least two runs")
    cells = [by_title(one.records) for one in runs]
    titles = sorted({title for records in cells for title, record in records.items() if record.primary})
    if not titles:
        raise UsageError("no cell of these runs has results")
    courses = [_course(title, runs, [records.get(title) for records in cells], pinned) for title in titles]
    changes = [change for course in courses for point in course.points for change in _changes(point)]
    adjusted = {id(change): float(p) for change, p in zip(changes, holm([c.p for c in changes]), strict=True)}

    def with_p(change: Change | None) -> Change | None:
        return change and replace(change, p=adjusted[id(change)])

    courses = [
        replace(
            course,
            points=[
                replace(point, step=with_p(point.step), since_pinned=with_p(point.since_pinned))
                for point in course.points
            ],
        )
        for course in courses
    ]
    return History(names, pinned, courses, len(changes))


def _changes(point: Point) -> list[Change]:
    return [change for change in (point.step, point.since_pinned) if change]


def _course(title: str, runs: Sequence[Runs], records: Sequence[Record | None], pinned: int) -> Course:
    """Return a cell over the runs, with p-values that are not adjusted."""

    def change(number: int, since: int | None) -> Change | None:
        old, new = None if since is None else records[since], records[number]
        if since is None or since == number or not (old and new and are_comparable(old, new)):
            return None
        interval = difference(runs[since], old, runs[number], new, new.ranked_by)
        return Change(since, interval, min(1.0, 2 * min(p_above(interval, 0.0, sign) for sign in (1, -1))))

    points: list[Point] = []
    gaps: dict[int, str] = {}
    for number, record in enumerate(records):
        if record is None or record.primary is None:
            gaps[number] = "not there" if record is None else f"{record.status}: {record.error}"
            continue
        before = points[-1].run if points else None
        step = change(number, before)
        to_pinned = change(number, pinned)
        points.append(Point(number, record, step, to_pinned))
    return Course(title, points[-1].record.ranking, points, gaps)
