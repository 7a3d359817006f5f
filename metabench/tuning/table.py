"""What a tuning has found, as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tabulate import tabulate

from metabench.analysis.stats import mean_interval
from metabench.records.measured import Declaration
from metabench.reporting.figures import shown, shown_difference
from metabench.text import value_text
from metabench.tuning.searches import Search
from metabench.tuning.trials import Trial, best_of


@dataclass(frozen=True)
class Found:
    """What was found for one method.

    Attributes:
        search: its search.
        trials: its trials; the first has the suite's own parameters.
        metric: the metric that ranks.
    """

    search: Search
    trials: Sequence[Trial]
    metric: Declaration

    @property
    def best(self) -> Trial | None:
        """Return the best trial; None if none is complete."""
        return best_of(self.trials, self.metric)

    def count(self, state: str) -> int:
        """Return the number of trials in a state."""
        return sum(trial.state == state for trial in self.trials)


def table_of(methods: Sequence[Found]) -> str:
    """Return the table of a tuning, with remarks."""
    heading = methods[0].metric.heading
    titles = ["method", "trials", "pruned", "failed", f"val {heading} before", "after", "gain", "found", "seconds"]
    lines = [tabulate([_row(found) for found in methods], titles, tablefmt="simple", disable_numparse=True), ""]
    episodes = max((len(trial.values) for found in methods for trial in found.trials), default=0)
    lines += [
        f"val: {methods[0].metric.title} over {episodes} validation episodes ± half its 95 % interval; before: the "
        "suite's own parameters; gain: paired, on the same episodes",
        "The best of several trials owes something to chance, so that 'after' and 'gain' are optimistic: report the "
        "test of the tuned suite.",
    ]
    for found in methods:
        if not found.search.space:
            lines.append(f"{found.search.label}: nothing to search, so its own parameters alone")
        elif found.best is None:
            lines.append(f"{found.search.label}: no trial was completed, so it keeps its own parameters")
        lines += [
            f"{found.search.label}, trial {number}: failed ({parameters_text(trial.params)}): {trial.reason}"
            for number, trial in enumerate(found.trials, 1)
            if trial.state == "failed"
        ]
    return "\n".join(lines)


def _row(found: Found) -> list[str]:
    first, best = found.trials[0], found.best
    row = [found.search.label, str(len(found.trials)), str(found.count("pruned")), str(found.count("failed"))]
    row += [value_of(first, found.metric), value_of(best, found.metric) if best else "–"]
    if best is None or best is first:
        gain, what = "", "its own" if found.search.space else "nothing to search"
    else:
        what = parameters_text(best.params)
        gain = ""
        if first.values:
            interval = mean_interval(np.subtract(best.values, first.values))
            gain = shown_difference(found.metric, interval.mean, interval.ci95)
    return [*row, gain, what, f"{sum(trial.seconds for trial in found.trials):.0f}"]


def line_of(trial: Trial, metric: Declaration) -> str:
    """Return a line on a trial for people."""
    ended = f" after step {trial.curves[-1][-1][0]}" if trial.state == "pruned" else ""
    reason = f": {trial.reason}" if trial.reason else ""
    return f"{value_of(trial, metric)}{ended} ({parameters_text(trial.params)}){reason}"


def value_of(trial: Trial, metric: Declaration) -> str:
    """Return the value of a trial with half its interval, or its state."""
    if trial.state != "complete":
        return trial.state
    if len(trial.values) < 2:
        return shown(metric, trial.values[0], None)
    interval = mean_interval(trial.values)
    return f"{shown(metric, interval.mean, interval.ci95)} {metric.unit}".rstrip()


def parameters_text(params: Mapping[str, Any]) -> str:
    """Return parameters for people, e.g. ``"inner_lr 0.4, inner_steps 1"``."""
    return ", ".join(f"{name} {value_text(value)}" for name, value in params.items()) or "no parameter"
