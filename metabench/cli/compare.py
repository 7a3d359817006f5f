"""`metabench compare`: judge a run by an earlier one."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from metabench.cli.streams import say
from metabench.errors import StoreError

if TYPE_CHECKING:
    from metabench.planning.suite import Gate
    from metabench.records.runs import Runs

FORMATS = ["table", "markdown", "junit", "json"]


class _Limit(click.FloatRange):
    """A number in a range; FloatRange alone accepts NaN."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value} is not a number.", param, ctx)
        return number


@click.command()
@click.argument("base")
@click.argument("candidate")
@click.option(
    "--pinned",
    metavar="RUN",
    help="Judge by this run, too, e.g. that of a release: small losses add up while BASE moves along.",
)
@click.option("--tolerance", type=_Limit(0, 100), help="Largest accepted loss of accuracy, in points [default: .5].")
@click.option(
    "--slowdown", type=_Limit(1, 100), help="Largest accepted slowdown of throughput and latency, as a factor."
)
@click.option("--memory-growth", type=_Limit(1, 100), help="Largest accepted growth of peak memory, as a factor.")
@click.option("--only", multiple=True, metavar="KEY=A,B", help="Compare these cells, e.g. algorithm=maml,protonet.")
@click.option("--format", "style", type=click.Choice(FORMATS), default="table", show_default=True)
def compare(
    base: str,
    candidate: str,
    pinned: str | None,
    tolerance: float | None,
    slowdown: float | None,
    memory_growth: float | None,
    only: Sequence[str],
    style: str,
) -> int:
    """Compare two runs, cell by cell, on identical episodes.

    The exit code is 1 where CANDIDATE is worse than BASE or the pinned run, or nothing could be compared. Each of them
    is an output directory, an archive of one (.zip, .tar.gz), or a directory in a git revision (REVISION:PATH, e.g.
    main:results/ci). The section `gate:` of the base's suite gives all other limits.
    """
    from metabench.analysis.gate import compare_runs, with_pinned
    from metabench.cli.sources import opened
    from metabench.filters import parse_filters
    from metabench.records.runs import Runs
    from metabench.reporting import gate_report

    with ExitStack() as stack:
        folders = [stack.enter_context(opened(source)) for source in (base, candidate)]
        old, new = (Runs.read([folder], parse_filters(only)) for folder in folders)
        stored, proposed = (_stored_gate(folder) for folder in folders)
        given = {"tolerance": tolerance, "slowdown": slowdown, "memory_growth": memory_growth}
        changes = {name: limit for name, limit in given.items() if limit is not None}
        gate = (stored or _default_gate()).model_copy(update=changes)
        notes = _limit_notes(gate, stored, proposed, changes, _unit(old, new))
        tolerances = {name: limit / _scale(name, old, new) for name, limit in gate.tolerances.items()}
        comparison = compare_runs(old, new, gate.tolerance / 100, gate.slowdown, gate.memory_growth, notes, tolerances)
        if pinned is not None:
            first = Runs.read([stack.enter_context(opened(pinned))], parse_filters(only))
            since = compare_runs(first, new, gate.tolerance / 100, tolerances=tolerances)
            comparison = with_pinned(comparison, since, pinned)
    render = {
        "table": gate_report.render_text,
        "markdown": gate_report.render_markdown,
        "junit": gate_report.render_junit,
        "json": gate_report.render_json,
    }
    say(render[style](comparison), end="")
    return 0 if comparison.passed else 1


def _scale(metric: str, *runs: Runs) -> float:
    """Return the factor from values of a metric to the unit of its column."""
    records = (record for one in runs for record in one.records)
    return next((record.declarations[metric].scale for record in records if metric in record.declarations), 1.0)


def _default_gate() -> Gate:
    from metabench.planning.suite import Gate

    return Gate()


def _stored_gate(folder: Path) -> Gate | None:
    """Return the limits in the stored suite of a run; None where it has none.

    Raises:
        StoreError: the suite is no regular file.
        SuiteError: the suite or its limits are not valid.
    """
    from metabench.planning.suite_file import read_gate, read_suite

    path = folder / "suite.yaml"
    if not os.path.lexists(path):
        return None
    if not path.is_file():
        raise StoreError(f"{path} is not a file: restore the suite of the run, or run the suite again")
    file = read_suite(path)
    return read_gate(file) if "gate" in file.data else None


def _unit(*runs: Runs) -> str:
    """Return the unit of the metric that ranks: points, or its title where it is no percentage."""
    ranking = [record.ranking for one in runs for record in one.records if record.status == "ok"]
    return ranking[0].title if ranking and all(metric.unit != "%" for metric in ranking) else "points"


def _limit_notes(
    gate: Gate, stored: Gate | None, proposed: Gate | None, given: Mapping[str, float], unit: str
) -> list[str]:
    """Return a line with the limits and their origin, and one on other limits of the candidate."""
    origin = "the base's suite" if stored else "the defaults, because the base stores no limits"
    options = [f"--{name.replace('_', '-')}" for name in given]
    notes = [f"limits: {gate.text(unit)} ({', '.join([*options, *([origin] if len(given) < 3 else [])])})"]
    if proposed is not None and proposed != (stored or _default_gate()):
        notes.append(f"the candidate's suite has other limits, which do not count: {proposed.text(unit)}")
    return notes
