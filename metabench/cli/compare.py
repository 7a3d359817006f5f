"""`metabench compare`: judge a run by an earlier one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from metabench.planning.suite import Gate
    from metabench.records.runs import Runs

FORMATS = ["table", "markdown", "junit", "json"]


@click.command()
@click.argument("base")
@click.argument("candidate")
@click.option(
    "--tolerance", type=click.FloatRange(0, 100), help="Largest accepted loss of accuracy, in points [default: .5]."
)
@click.option(
    "--slowdown", type=click.FloatRange(1), help="Largest accepted slowdown of throughput and latency, as a factor."
)
@click.option("--memory-growth", type=click.FloatRange(1), help="Largest accepted growth of peak memory, as a factor.")
@click.option("--only", multiple=True, metavar="KEY=A,B", help="Compare these cells, e.g. algorithm=maml,protonet.")
@click.option("--format", "style", type=click.Choice(FORMATS), default="table", show_default=True)
def compare(
    base: str,
    candidate: str,
    tolerance: float | None,
    slowdown: float | None,
    memory_growth: float | None,
    only: Sequence[str],
    style: str,
) -> int:
    """Compare two runs, cell by cell, on identical episodes.

    The exit code is 1 where CANDIDATE is worse than BASE. Each of them is an output directory, an archive of one (.zip,
    .tar.gz), or a directory in a git revision (REVISION:PATH, e.g. main:results/ci). Limits that are not given are
    those of `gate:` in the candidate's suite.
    """
    from metabench.analysis.gate import changes_of, judge
    from metabench.cli.sources import opened
    from metabench.filters import parse_filters
    from metabench.records.runs import Runs
    from metabench.reporting import gate_report

    with ExitStack() as stack:
        old = Runs.read([stack.enter_context(opened(base))], parse_filters(only))
        new = Runs.read([stack.enter_context(opened(candidate))], parse_filters(only))
        given = {"tolerance": tolerance, "slowdown": slowdown, "memory_growth": memory_growth}
        gate = _stored_gate(new).model_copy(update={name: limit for name, limit in given.items() if limit is not None})
        verdicts = judge(old, new, gate.tolerance / 100)
        changes = changes_of(verdicts, gate.slowdown, gate.memory_growth)
    render = {
        "table": gate_report.render_text,
        "markdown": gate_report.render_markdown,
        "junit": gate_report.render_junit,
        "json": gate_report.render_json,
    }
    click.echo(render[style](verdicts, changes), nl=False)
    return 1 if gate_report.breaks(verdicts, changes) else 0


def _stored_gate(runs: Runs) -> Gate:
    """Return the limits in the stored suite of a run."""
    import yaml
    from pydantic import ValidationError

    from metabench.errors import StoreError
    from metabench.planning.suite import Gate

    for folder, text in runs.suites().items():
        try:
            data = yaml.safe_load(text)
            return Gate.model_validate(data.get("gate", {}) if isinstance(data, dict) else {})
        except (yaml.YAMLError, ValidationError) as error:
            raise StoreError(f"{folder}/suite.yaml: gate: {' '.join(str(error).split())}") from error
    return Gate()
