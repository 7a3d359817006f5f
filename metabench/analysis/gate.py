"""Judge a run against another, cell by cell."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

from metabench.analysis.costs import Cost, eval_rate, latency, memory, train_rate, unlike_loads
from metabench.analysis.paired import ALPHA, holm
from metabench.analysis.paired_cells import are_comparable, by_title, difference, is_timed, p_above
from metabench.analysis.stats import MeanInterval, mean_interval
from metabench.errors import UsageError, nearest
from metabench.records.measured import Declaration
from metabench.records.record import Record
from metabench.records.runs import Runs

Word = Literal["worse", "better", "same", "undecided", "missing", "invalid", "skipped", "new"]

#: Verdicts that fail the gate.
BREAKING: tuple[Word, ...] = ("worse", "missing", "invalid")

#: Costs compared by ratio, between like machines: name, value of a record, and whether more is better.
COSTS: tuple[tuple[str, Cost, bool], ...] = (
    ("test ep/s", eval_rate, True),
    ("train ep/s", train_rate, True),
    ("p50 ms", latency, False),
    ("peak MiB", memory, False),
)


@dataclass(frozen=True)
class Verdict:
    """The verdict on one cell.

    Attributes:
        cell: title of the cell, with the metric if it is not the one that ranks.
        word: the verdict.
        reason: one sentence that explains the verdict.
        base: the metric in the base run; None where the cell is missing, failed or skipped.
        candidate: the metric in the candidate run; None likewise.
        difference: candidate minus base, on identical episodes.
        p: p-value of a loss (or gain) beyond the tolerance, adjusted over all cells (Holm); None where neither is
            significant.
        ratios: (name, candidate / base) of each of `COSTS` that both runs have; empty between unlike machines.
        unlike: how the machines differ, if they do; costs are then not compared.
        beside: how niceness and load differ, where costs are compared all the same; empty if they do not.
        metric: the declaration of the metric; None where neither run has results of the cell.
        is_further: whether it is another metric than the one that ranks; costs are compared once a cell.
    """

    cell: str
    word: Word
    reason: str
    base: float | None = None
    candidate: float | None = None
    difference: MeanInterval | None = None
    p: float | None = None
    ratios: tuple[tuple[str, float], ...] = ()
    unlike: str = ""
    metric: Declaration | None = None
    is_further: bool = False
    beside: str = ""

    @property
    def breaks(self) -> bool:
        """Return whether the verdict fails the gate."""
        return self.word in BREAKING

    @property
    def is_clear(self) -> bool:
        """Return whether the metric was compared, and is clearly not worse."""
        return self.difference is not None and self.word in ("better", "same")


def judge(
    base: Runs, candidate: Runs, tolerance: float, tolerances: Mapping[str, float] | None = None
) -> list[Verdict]:
    """Judge every cell that either run has.

    Cells are matched by their labels in the suite (dataset, backbone, way, shot, algorithm, seed), so that changed
    parameters are compared with earlier ones. A cell is *worse* where a metric on identical episodes is worse by
    significantly more than its tolerance. The test is adjusted over all cells and metrics: at most one comparison of
    two unchanged runs in twenty calls any cell worse.

    Args:
        base: the run to compare with.
        candidate: the run to judge.
        tolerance: accepted loss of the metric that ranks, in hundreds of the unit of its column: of accuracy, a
            fraction. The same seed trains to a slightly different network on another processor, or with another order
            of summation.
        tolerances: accepted loss of further metrics, by name, unscaled. They are judged in cells where both runs have
            the metric; a metric that only the base has is missing.

    Returns:
        One verdict for each cell, and one for each further metric of a cell; verdicts that fail the gate come first.

    Raises:
        UsageError: `tolerance` is not between 0 and 1, or no record has a metric of `tolerances`.
    """
    if not 0 <= tolerance <= 1:  # also refuses NaN
        raise UsageError(f"a tolerance of {tolerance * 100:g} points: give a number between 0 and 100")
    further = dict(tolerances or {})
    known = sorted({name for record in (*base.records, *candidate.records) for name in record.declarations})
    for name in further:
        if name not in known:
            raise UsageError(f"tolerances: no record has the metric '{name}'{nearest(name, known)}")
    before, after = by_title(base.records), by_title(candidate.records)
    pairs = {title: (before.get(title), after.get(title)) for title in sorted({*before, *after})}
    both = {
        title: _Pair(title, old, new, old.ranked_by, tolerance * 100 / old.ranking.scale)
        for title, (old, new) in pairs.items()
        if old and new and are_comparable(old, new)
    }
    compared = dict(both)
    missing: list[Verdict] = []
    for (title, pair), (name, limit) in product(both.items(), further.items()):
        of_metric = replace(pair, title=f"{title} · {name}", metric=name, tolerance=limit)
        if name == pair.metric or not pair.old.metrics.get(name):
            continue
        if pair.new.metrics.get(name):
            compared[of_metric.title] = of_metric
        else:
            missing.append(of_metric.missing())
    intervals = {title: pair.difference(base, candidate) for title, pair in compared.items()}
    gains, losses = (
        _adjusted({title: compared[title].p_beyond(interval, sign) for title, interval in intervals.items()})
        for sign in (1, -1)
    )
    verdicts = [pair.verdict(intervals[title], losses[title], gains[title]) for title, pair in compared.items()]
    verdicts += [_without_comparison(title, old, new) for title, (old, new) in pairs.items() if title not in both]
    return sorted([*verdicts, *missing], key=lambda verdict: (not verdict.breaks, verdict.cell))


def _adjusted(p_values: dict[str, float]) -> dict[str, float]:
    return dict(zip(p_values, (float(p) for p in holm(list(p_values.values()))), strict=True))


@dataclass(frozen=True)
class _Pair:
    """A metric of a cell that both runs have on identical episodes.

    Attributes:
        title: title of the verdict.
        old: the base's record.
        new: the candidate's record.
        metric: name of the metric.
        tolerance: accepted loss, unscaled.
    """

    title: str
    old: Record
    new: Record
    metric: str
    tolerance: float

    @property
    def _declared(self) -> Declaration:
        return self.new.declarations[self.metric]

    def difference(self, base: Runs, candidate: Runs) -> MeanInterval:
        """Return candidate minus base with its interval.

        Raises:
            UsageError: the metric pools episodes, and is not one of metabench's own.
        """
        return difference(base, self.old, candidate, self.new, self.metric)

    def p_beyond(self, interval: MeanInterval, sign: int) -> float:
        """Return the one-sided p-value of a difference beyond the tolerance.

        Args:
            interval: the difference.
            sign: -1 tests for a loss, +1 for a gain.
        """
        return p_above(interval, self.tolerance, sign * self._declared.sign)

    def verdict(self, interval: MeanInterval, p_loss: float, p_gain: float) -> Verdict:
        """Judge the difference by the adjusted p-values of a loss and a gain."""
        scale, unit = self._declared.scale, "points" if self._declared.unit == "%" else self._declared.unit
        limit = f"{self.tolerance * scale:g}"
        digits = "+.2f" if unit == "points" else "+.4f"
        said = f"{self._declared.title} {interval.mean * scale:{digits}} ± {interval.ci95 * scale:{digits[1:]}} {unit}"
        said = f"{said.rstrip()} on {interval.episodes} episodes"
        p = None
        word: Word
        if p_loss <= ALPHA:
            word, p = "worse", p_loss
            reason = f"{said}: a loss of more than {limit} (p {shown_p(p_loss)})"
        elif p_gain <= ALPHA:
            word, p = "better", p_gain
            reason = f"{said}: a gain of more than {limit} (p {shown_p(p_gain)})"
        elif abs(interval.mean) + interval.ci95 <= self.tolerance or interval.mean == interval.ci95 == 0:
            word, reason = "same", said
        else:
            word, reason = "undecided", f"{said}: neither clearly within {limit} nor clearly beyond"
        before, after = self.old.metrics[self.metric], self.new.metrics[self.metric]
        assert before is not None
        assert after is not None
        further = self.metric != self.old.ranked_by
        unlike = "" if further else _unlike(self.old, self.new)
        ratios = () if further or unlike else _ratios(self.old, self.new)
        values = before.value, after.value
        beside = _beside(self.old, self.new) if ratios else ""
        return Verdict(self.title, word, reason, *values, interval, p, ratios, unlike, self._declared, further, beside)

    def missing(self) -> Verdict:
        """Return the verdict on a metric that the candidate lacks."""
        before = self.old.metrics[self.metric]
        assert before is not None
        declared = self.old.declarations[self.metric]
        reason = f"the candidate has no {declared.title} of this cell (its remarks say why)"
        return Verdict(self.title, "missing", reason, before.value, metric=declared, is_further=True)


def _values(old: Record | None, new: Record | None) -> tuple[float | None, float | None]:
    """Return the metric that ranks in both runs."""
    before, after = (record.primary.value if record and record.primary else None for record in (old, new))
    return before, after


def _declared(old: Record | None, new: Record | None) -> Declaration | None:
    """Return the declaration of the metric that ranks, of the run that has it."""
    return next((record.ranking for record in (new, old) if record and record.primary), None)


def _skipped(title: str, old: Record | None, new: Record | None) -> Verdict:
    """Judge a cell that a run skipped: it breaks only if the candidate lacks a result of the base."""
    before, after = _values(old, new)
    word: Word = "skipped" if before is None else "missing"
    if new is not None and new.status != "skipped":
        word = "new"
    return Verdict(
        title, word, f"the base {_state(old)}; the candidate {_state(new)}", before, after, metric=_declared(old, new)
    )


def _state(record: Record | None) -> str:
    """Return what a run has of a cell, as a verb."""
    if record is None:
        return "does not have this cell"
    verbs = {"ok": f"has an {record.ranked_by} of this cell", "skipped": f"skips this cell: {record.error}"}
    return verbs.get(record.status, f"failed in this cell: {record.error}")


def _without_comparison(title: str, old: Record | None, new: Record | None) -> Verdict:
    """Judge a cell whose results are not compared, or that one run lacks."""
    if wrong := [str(record.error) for record in (old, new) if record and record.status == "invalid"]:
        return Verdict(title, "invalid", "; ".join(wrong))
    if any(record and record.status == "skipped" for record in (old, new)):
        return _skipped(title, old, new)
    if old and new and old.primary and new.primary and (is_timed(old) or is_timed(new)):
        reason = "its training ended by a budget of seconds: the result depends on the machine"
        return Verdict(title, "undecided", reason, *_values(old, new), metric=_declared(old, new))
    return _uncompared(title, old, new)


def _uncompared(title: str, old: Record | None, new: Record | None) -> Verdict:
    """Judge a cell without comparable results."""
    before, after = _values(old, new)
    metric = _declared(old, new)
    if new is None:
        return Verdict(title, "missing", "the candidate does not have this cell", before, metric=metric)
    if old is None:
        failed = f", and it failed: {new.error}" if new.status == "failed" else ""
        return Verdict(title, "new", f"the base does not have this cell{failed}", candidate=after, metric=metric)
    if new.status == "failed":
        if old.status == "failed":
            return Verdict(title, "undecided", f"the cell failed in both runs; in the candidate: {new.error}")
        return Verdict(title, "worse", f"the cell failed in the candidate: {new.error}", before, metric=metric)
    if old.status == "failed":
        return Verdict(title, "better", "the cell failed in the base", candidate=after, metric=metric)
    return Verdict(
        title,
        "missing",
        "its test episodes are not those of the base (other data or eval.seed): run the base again",
        before,
        after,
        metric=metric,
    )


def _unlike(old: Record, new: Record) -> str:
    """Return how device or torch version differ between two runs; empty if they do not."""
    before, after = (f"{record.machine}, torch {record.environment.get('torch')}" for record in (old, new))
    if (old.machine, old.environment.get("torch")) == (new.machine, new.environment.get("torch")):
        return ""
    return f"the base ran on {before}; the candidate on {after}"


def _beside(old: Record, new: Record) -> str:
    """Return how niceness and load of two cells differ; empty if they do not."""
    return ", other ".join(unlike_loads([record.circumstances for record in (old, new) if record.circumstances]))


def _ratios(old: Record, new: Record) -> tuple[tuple[str, float], ...]:
    """Return candidate / base of each cost that is a positive number in both runs."""
    ratios = []
    for name, cost, _ in COSTS:
        before, after = cost(old), cost(new)
        if before and after and min(before, after) > 0 and 0 < after / before < math.inf:
            ratios.append((name, after / before))
    return tuple(ratios)


def shown_p(p: float) -> str:
    """Format a p-value: ``"< .001"`` or ``"= .023"``."""
    return "< .001" if p < 0.001 else "= " + f"{p:.3f}".removeprefix("0")


@dataclass(frozen=True)
class Change:
    """The change of one cost over cells of like machines.

    Attributes:
        name: name of the cost, one of `COSTS`.
        ratio: geometric mean over the cells of candidate / base.
        low: lower end of the ratio's 95 % interval over the cells (Student t of the logarithms).
        high: upper end of that interval.
        cells: number of cells.
        limit: largest accepted factor by which the cost gets worse; None for no limit.
        more_is_better: whether a ratio below 1 is worse.
    """

    name: str
    ratio: float
    low: float
    high: float
    cells: int
    limit: float | None
    more_is_better: bool

    @property
    def breaks(self) -> bool:
        """Return whether the whole interval is beyond the limit."""
        return self.limit is not None and self._factors[0] > self.limit

    @property
    def is_undecided(self) -> bool:
        """Return whether the limit is inside the interval."""
        return self.limit is not None and not self.breaks and self._factors[1] > self.limit

    @property
    def _factors(self) -> tuple[float, float]:
        """Return the interval of the factor by which the cost got worse."""
        if self.more_is_better:
            return 1 / self.high, 1 / self.low if self.low else math.inf
        return self.low, self.high

    def __str__(self) -> str:
        """Return the change as one line of text."""
        spread = f"{self.low:.2f} to {self.high:.2f}, {self.cells} cells" if self.cells > 1 else "1 cell"
        text = f"{self.name}: ×{self.ratio:.2f} ({spread})"
        if self.breaks:
            return f"{text}: worse than the limit of {self.limit:g}"
        if self.is_undecided:
            reason = "is within the interval" if self.cells > 1 else "needs more than one cell"
            return f"{text}: undecided, the limit of {self.limit:g} {reason}"
        return text


def changes_of(verdicts: Sequence[Verdict], slowdown: float | None, memory_growth: float | None) -> list[Change]:
    """Return the changes of throughput, latency and memory.

    Args:
        verdicts: the result of `judge`; verdicts without ratios (unlike machines) are skipped.
        slowdown: largest accepted factor by which throughput and latency get worse; None sets no limit.
        memory_growth: largest accepted factor by which peak memory grows; None sets no limit.
    """
    changes = []
    for name, _, more_is_better in COSTS:
        logarithms = [math.log(ratio) for verdict in verdicts for cost, ratio in verdict.ratios if cost == name]
        if not logarithms:
            continue
        if len(logarithms) > 1:
            interval = mean_interval(logarithms)
            middle, half = interval.mean, interval.ci95
        else:  # one ratio has no interval, so it cannot fail the gate
            middle, half = logarithms[0], math.inf
        limit = memory_growth if name == "peak MiB" else slowdown
        low, high = _exp(middle - half), _exp(middle + half)
        changes.append(Change(name, math.exp(middle), low, high, len(logarithms), limit, more_is_better))
    return changes


def _exp(value: float) -> float:
    """Return e to the power of `value`; infinity where a float cannot hold it."""
    return math.exp(value) if value < 700 else math.inf


@dataclass(frozen=True)
class Comparison:
    """A candidate run judged against its base.

    Attributes:
        verdicts: the verdict on each cell.
        changes: the change of each cost.
        notes: one line for each limit or cost that was not compared, or was compared otherwise than one may expect.
    """

    verdicts: Sequence[Verdict]
    changes: Sequence[Change]
    notes: Sequence[str]

    @property
    def is_empty(self) -> bool:
        """Return whether no cell was compared."""
        return all(verdict.difference is None and verdict.word != "better" for verdict in self.verdicts)

    @property
    def passed(self) -> bool:
        """Return whether cells were compared, and neither a cell nor a cost fails the gate."""
        failing = [verdict.breaks for verdict in self.verdicts] + [change.breaks for change in self.changes]
        return not (self.is_empty or any(failing))


def compare_runs(
    base: Runs,
    candidate: Runs,
    tolerance: float,
    slowdown: float | None = None,
    memory_growth: float | None = None,
    notes: Sequence[str] = (),
    tolerances: Mapping[str, float] | None = None,
) -> Comparison:
    """Judge a run's metrics and costs.

    Args:
        base: as in `judge`, also for `candidate`, `tolerance` and `tolerances`.
        slowdown: as in `changes_of`.
        memory_growth: as in `changes_of`.
        notes: notes to begin with.
        tolerances: see `base`.
    """
    verdicts = judge(base, candidate, tolerance, tolerances)
    changes = changes_of(verdicts, slowdown, memory_growth)
    return Comparison(verdicts, changes, [*notes, *_unjudged(verdicts, tolerances or {}), *_uncompared_costs(verdicts)])


def with_pinned(comparison: Comparison, pinned: Comparison, name: str) -> Comparison:
    """Return a comparison that fails, too, where the candidate is worse than a pinned base.

    Costs are compared with the base only: the pinned one may be of another machine.

    Args:
        comparison: the candidate judged against its base.
        pinned: the candidate judged against the pinned base.
        name: name of the pinned base.
    """
    verdicts = [replace(verdict, cell=f"{verdict.cell} · since {name}", ratios=()) for verdict in pinned.verdicts]
    both = [*comparison.verdicts, *verdicts]
    return replace(comparison, verdicts=sorted(both, key=lambda verdict: not verdict.breaks))


def _unjudged(verdicts: Sequence[Verdict], metrics: Iterable[str]) -> list[str]:
    """Return a line for each metric that was not judged in a compared cell, because the base does not have it."""
    cells = {verdict.cell for verdict in verdicts if verdict.difference is not None and not verdict.is_further}
    judged = {verdict.cell for verdict in verdicts if verdict.is_further}
    lacking = {name: sum(f"{cell} · {name}" not in judged for cell in cells) for name in metrics}
    return [
        f"{name} was not judged in {count} of {len(cells)} cells: the base does not have it"
        for name, count in lacking.items()
        if count
    ]


def _uncompared_costs(verdicts: Sequence[Verdict]) -> list[str]:
    """Return a line for each reason why costs of compared cells were not compared."""
    compared = [verdict for verdict in verdicts if verdict.difference is not None and not verdict.is_further]
    unlike = [verdict.unlike for verdict in compared if verdict.unlike]
    like = [dict(verdict.ratios) for verdict in compared if not verdict.unlike]
    lines = []
    if unlike:
        lines.append(f"costs were not compared in {len(unlike)} of {len(compared)} cells: {unlike[0]}")
    if beside := [verdict.beside for verdict in compared if verdict.beside]:
        lines.append(f"times of {len(beside)} of {len(compared)} cells were compared at other {beside[0]}")
    for name, _, _ in COSTS:
        lacking = sum(name not in ratios for ratios in like)
        if lacking:
            lines.append(f"{name} was not compared in {lacking} of {len(compared)} cells: a run has no positive value")
    return lines
