"""Did a change cost accuracy, or time? Two runs, cell by cell, on identical test episodes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from metabench.analysis.costs import Cost, eval_rate, latency, memory, train_rate
from metabench.analysis.paired import ALPHA, holm
from metabench.analysis.standings import episodes_of
from metabench.analysis.stats import MeanInterval, mean_interval, t_below
from metabench.records.record import Record
from metabench.records.runs import Runs

Word = Literal["worse", "better", "same", "undecided", "missing", "new"]

#: Verdicts that break the gate.
BREAKING: tuple[Word, ...] = ("worse", "missing")

#: What is compared by ratio, between like machines: its name, its value, and whether more of it is better.
COSTS: tuple[tuple[str, Cost, bool], ...] = (
    ("test ep/s", eval_rate, True),
    ("train ep/s", train_rate, True),
    ("p50 ms", latency, False),
    ("peak MiB", memory, False),
)


@dataclass(frozen=True)
class Verdict:
    """What became of one cell.

    Attributes:
        cell: its title.
        word: the verdict.
        reason: why, in one sentence.
        base: mean accuracy in the base run, where it has one.
        candidate: mean accuracy in the candidate run.
        difference: candidate less base, on identical episodes.
        p: how often an unchanged method would seem as much worse (or better), adjusted over all cells (Holm).
        ratios: of each of `COSTS`, candidate by base; empty between unlike machines.
    """

    cell: str
    word: Word
    reason: str
    base: float | None = None
    candidate: float | None = None
    difference: MeanInterval | None = None
    p: float | None = None
    ratios: tuple[tuple[str, float], ...] = ()

    @property
    def breaks(self) -> bool:
        """Return whether it breaks the gate."""
        return self.word in BREAKING


def judge(base: Runs, candidate: Runs, tolerance: float) -> list[Verdict]:
    """Judge every cell that either run has.

    Cells are matched by what the suite calls them (dataset, backbone, way, shot, algorithm, seed), so that changed
    parameters are compared with the earlier ones. A cell is *worse* where its accuracy fell, on identical
    episodes, by more than `tolerance`, and so clearly that among unchanged projects at most one comparison of two
    whole runs in twenty would say so of any cell.

    Args:
        base: what to compare with.
        candidate: what is judged.
        tolerance: loss of accuracy, as a fraction, that is put up with: another processor, or another order of
            summation, trains to a slightly different network.

    Returns:
        One verdict a cell, those that break the gate first.
    """
    before, after = _by_title(base.records), _by_title(candidate.records)
    pairs = {title: (before.get(title), after.get(title)) for title in sorted({*before, *after})}
    differences = {
        title: candidate.episodes(new).accuracies - base.episodes(old).accuracies
        for title, (old, new) in pairs.items()
        if old and new and old.status == new.status == "ok" and episodes_of(old) == episodes_of(new)
    }
    intervals = {title: mean_interval(difference) for title, difference in differences.items()}
    losses = _adjusted({title: _p_beyond(interval, -1, tolerance) for title, interval in intervals.items()})
    gains = _adjusted({title: _p_beyond(interval, +1, tolerance) for title, interval in intervals.items()})
    verdicts = []
    for title, (old, new) in pairs.items():
        if old and new and title in intervals:
            verdicts.append(_compared(title, old, new, intervals[title], losses[title], gains[title], tolerance))
        else:
            verdicts.append(_uncompared(title, old, new))
    return sorted(verdicts, key=lambda verdict: (not verdict.breaks, verdict.cell))


def _by_title(records: Iterable[Record]) -> dict[str, Record]:
    """Return the records by the names of their cells; of namesakes, the one finished last."""
    ordered = sorted(records, key=lambda record: record.finished)
    return {
        f"{r.algorithm} · {r.dataset} · {r.way}-way {r.shot}-shot · {r.backbone} · seed {r.seed}": r for r in ordered
    }


def _p_beyond(interval: MeanInterval, sign: int, tolerance: float) -> float:
    """Return how often episodes show a mean this far below (sign -1) or above (+1) 0, were it just the tolerance."""
    excess = sign * interval.mean - tolerance
    error = interval.std / interval.episodes**0.5
    if error == 0:
        return 0.0 if excess > 0 else 1.0
    return t_below(-excess / error, interval.episodes - 1)


def _adjusted(p_values: dict[str, float]) -> dict[str, float]:
    return dict(zip(p_values, (float(p) for p in holm(list(p_values.values()))), strict=True))


def _compared(
    title: str, old: Record, new: Record, interval: MeanInterval, p_loss: float, p_gain: float, tolerance: float
) -> Verdict:
    points = f"{interval.mean * 100:+.2f} ± {interval.ci95 * 100:.2f} points on {interval.episodes} episodes"
    p = None
    word: Word
    if p_loss <= ALPHA:
        word, p = "worse", p_loss
        reason = f"accuracy {points}: a loss of more than {tolerance * 100:g} (p {shown_p(p_loss)})"
    elif p_gain <= ALPHA:
        word, p = "better", p_gain
        reason = f"accuracy {points}: a gain of more than {tolerance * 100:g} (p {shown_p(p_gain)})"
    elif abs(interval.mean) + interval.ci95 <= tolerance or interval.mean == interval.ci95 == 0:
        word, reason = "same", f"accuracy {points}"
    else:
        word, reason = "undecided", f"accuracy {points}: neither clearly within {tolerance * 100:g} nor beyond"
    assert old.accuracy is not None
    assert new.accuracy is not None
    return Verdict(title, word, reason, old.accuracy.mean, new.accuracy.mean, interval, p, _ratios(old, new))


def _uncompared(title: str, old: Record | None, new: Record | None) -> Verdict:
    """Judge a cell that only one of the runs has, or whose accuracies cannot be compared."""
    was = old.accuracy.mean if old and old.accuracy else None
    now = new.accuracy.mean if new and new.accuracy else None
    if new is None:
        return Verdict(title, "missing", "the candidate does not have it", was)
    if old is None:
        failed = f", and failed: {new.error}" if new.status == "failed" else ""
        return Verdict(title, "new", f"the base does not have it{failed}", candidate=now)
    if new.status == "failed":
        if old.status == "failed":
            return Verdict(title, "undecided", f"it failed in both; in the candidate: {new.error}")
        return Verdict(title, "worse", f"it fails now: {new.error}", was)
    if old.status == "failed":
        return Verdict(title, "better", "it failed in the base", candidate=now)
    return Verdict(
        title,
        "missing",
        "its test episodes are not those of the base (other data, episodes or eval.seed), so nothing can be said",
        was,
        now,
    )


def _ratios(old: Record, new: Record) -> tuple[tuple[str, float], ...]:
    """Return candidate by base of each cost; nothing where machine or torch differ."""
    if (old.device, old.environment.get("torch")) != (new.device, new.environment.get("torch")):
        return ()
    found = []
    for name, cost, _ in COSTS:
        before, after = cost(old), cost(new)
        if before and after:
            found.append((name, after / before))
    return tuple(found)


def shown_p(p: float) -> str:
    """Return ``"< .001"`` or ``"= .023"``."""
    return "< .001" if p < 0.001 else "= " + f"{p:.3f}".removeprefix("0")


@dataclass(frozen=True)
class Change:
    """How one cost changed over all cells of like machines.

    Attributes:
        name: of the cost, one of `COSTS`.
        ratio: geometric mean over the cells, candidate by base.
        low: where its 95 % interval over the cells begins (Student t of the logarithms).
        high: where it ends.
        cells: how many there were.
        limit: the factor by which it may get worse; None for no limit.
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
        """Return whether it got worse by more than its limit, beyond its own spread."""
        if self.limit is None:
            return False
        return 1 / self.high > self.limit if self.more_is_better else self.low > self.limit

    def __str__(self) -> str:
        """Return a line for people."""
        spread = f"{self.low:.2f} to {self.high:.2f}, {self.cells} cells" if self.cells > 1 else "1 cell"
        text = f"{self.name}: ×{self.ratio:.2f} ({spread})"
        return text + (f": worse than the limit of {self.limit:g}" if self.breaks else "")


def changes_of(verdicts: Sequence[Verdict], slowdown: float | None, memory_growth: float | None) -> list[Change]:
    """Return how throughput, latency and memory changed, over the cells of like machines.

    Args:
        verdicts: what `judge` returned.
        slowdown: the factor by which throughput and latency may get worse; None reports them only.
        memory_growth: likewise of memory.
    """
    found = []
    for name, _, more_is_better in COSTS:
        logarithms = [math.log(ratio) for verdict in verdicts for cost, ratio in verdict.ratios if cost == name]
        if not logarithms:
            continue
        if len(logarithms) > 1:
            interval = mean_interval(logarithms)
            middle, half = interval.mean, interval.ci95
        else:  # one ratio has no spread, and can break no gate
            middle, half = logarithms[0], math.inf
        limit = memory_growth if name == "peak MiB" else slowdown
        low, high = math.exp(middle - half), math.exp(middle + half) if half < math.inf else math.inf
        found.append(Change(name, math.exp(middle), low, high, len(logarithms), limit, more_is_better))
    return found
