"""`metabench run`: train and test every cell of a suite."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from metabench.cli.streams import say
from metabench.text import counted

if TYPE_CHECKING:  # imported by the command when it runs
    from metabench.contracts import Cell, Plan, RunOptions
    from metabench.planning.suite import Precision
    from metabench.records.record import Record
    from metabench.records.store import Store
    from metabench.registry.manager import PluginManager


@click.command()
@click.argument("suite")
@click.option("--profile", help="Named settings of the suite; default: the suite's own default.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Directory for the results; default: runs/SUITE/PROFILE, or runs/SUITE/PROFILE-PRECISION.",
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--only", multiple=True, metavar="KEY=A,B", help="Run only these cells, e.g. algorithm=maml,protonet.")
@click.option("--seeds", metavar="0,1,..", help="Training seeds, instead of the suite's.")
@click.option(
    "--precision",
    type=click.Choice(["float32", "tf32", "bf16"]),
    help="Precision of the backbones, instead of the suite's.",
)
@click.option("--fresh/--resume", default=False, help="Run finished cells again, or keep them [default: keep].")
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Number of cells to run at once, each in a worker process with its share of the threads.",
)
@click.option(
    "--workers/--in-process",
    "workers",
    default=None,
    help="Run each training in a worker process, or all in this process, e.g. for a debugger "
    "[default: workers where they start fast].",
)
@click.option("--weights/--no-weights", default=True, help="Keep the selected weights, or save room [default: keep].")
@click.option("--reselect", is_flag=True, help="Train again where kept weights were selected for other episodes.")
@click.option(
    "--confirm", is_flag=True, help="Test the same weights once more, on other test episodes, which nobody chooses."
)
@click.option("--log", "loggers", multiple=True, metavar="NAME", help="Also use a logger of `metabench list loggers`.")
@click.option("--dry-run", is_flag=True, help="Show the cells, and run nothing.")
def run(
    suite: str,
    profile: str | None,
    output: Path | None,
    device: str,
    only: Sequence[str],
    seeds: str | None,
    precision: Precision | None,
    fresh: bool,
    jobs: int,
    workers: bool | None,
    weights: bool,
    reselect: bool,
    confirm: bool,
    loggers: Sequence[str],
    dry_run: bool,
) -> int:
    """Train and test every cell of SUITE (a file, or the name of a suite), and print the leaderboard.

    Finished cells are kept, and an interrupted training resumes from its last checkpoint.
    """
    from metabench.cli.suites import find_suite
    from metabench.contracts import Request, RunOptions, engine_of
    from metabench.executors.processes import prepare_workers, start_is_cheap
    from metabench.filters import parse_filters, select
    from metabench.machine.stops import watch_stops
    from metabench.records.store import Store
    from metabench.registry.manager import PluginManager

    in_process = not (jobs > 1 or start_is_cheap()) if workers is None else not workers
    if in_process:
        watch_stops()  # before torch starts threads, which would take the signal
    else:
        prepare_workers(only_planning=dry_run)
    if not dry_run:
        # Needed later, and as slow as the start of the fork server: now both run side by side.
        import metabench.executors.driver  # noqa: F401
    plugins = PluginManager.from_environment()
    file = find_suite(suite, plugins)
    engine = engine_of(file, plugins)
    options = RunOptions(fresh, jobs, weights, reselect, in_process, confirm)
    request = Request(profile, None if seeds is None else _numbers(seeds), precision, device, options)
    if in_process and jobs > 1:
        raise click.UsageError(f"--in-process runs one cell at a time: leave out --jobs {jobs}")
    filters = parse_filters(only)
    plan = engine.plan(file, request)
    cells = select(plan.cells, filters)
    if confirm and not any(getattr(cell, "confirms", "") for cell in cells):
        raise click.UsageError("--confirm: these cells cannot be tested on other episodes: leave it out")
    for logger in dict.fromkeys(loggers):
        plugins.add_logger(logger)
    if dry_run:
        for line in plan.lines(cells):
            say(line)
        say(counted(len(cells), "cell"))
        return 0
    store = Store(output or default_output(plan, precision))
    records, text = execute(plan, cells, plugins, store, options)
    say(f"\n{text}")
    folders = "cells/, weights/" if options.keep_weights and store.trainings() else "cells/"
    say(f"Written to {store.path}: leaderboard.md, leaderboard.csv, {folders}")
    return 1 if any(record.status == "failed" for record in records) else 0


def default_output(plan: Plan, precision: str | None) -> Path:
    """Return the directory of a run that names none, ``runs/SUITE/PROFILE``."""
    kind = "-".join(filter(None, [plan.profile or "default", precision]))
    return Path("runs") / plan.name / kind


def execute(
    plan: Plan, cells: Sequence[Cell], plugins: PluginManager, store: Store, options: RunOptions
) -> tuple[list[Record], str]:
    """Run the cells of a plan, and write records and leaderboard; progress goes to standard error.

    Args:
        plan: the plan.
        cells: the cells that are to have a record.
        plugins: the provider of the classes, and who is told.
        store: the output directory.
        options: see `RunOptions`.

    Returns:
        The records of the cells, and the leaderboard as text.

    Raises:
        KeyboardInterrupt: the user asked to stop; finished cells are kept.
        MetabenchError: a cell is refused, or the directory cannot be written.
    """
    from metabench.cli.console import make_console
    from metabench.cli.progress import pack_progress
    from metabench.contracts import Interrupted
    from metabench.executors.driver import run_work

    store.check_own()
    earlier = store.records_by_name(without={cell.id for cell in cells} if options.fresh else ())
    work = plan.prepare(cells, earlier, store, pack_progress)
    with make_console() as console:
        # A refused cell must not leave an output directory behind.
        try:
            work.introduce(console)
        except Interrupted:
            raise KeyboardInterrupt from None
        with store.locked():
            store.write_suite(plan.settings)
            store.write_plan(plan.cells)
            current = store.supersede(earlier, plan.cells)
            plugins.run_started(store.path, plan.settings, len(cells))
            try:
                records = run_work(work, plugins, store, console, options)
            except Interrupted:
                console.stopped(store, options.fresh)
                raise KeyboardInterrupt from None
            plugins.run_finished(store.path, [record.model_dump() for record in records])
            by_cell = {record.cell: record for record in [*current, *records]}
            return records, _write_leaderboard(store, list(by_cell.values()), plugins)


def _write_leaderboard(store: Store, records: Sequence[Record], plugins: PluginManager) -> str:
    """Write the leaderboard's files; return its text for the terminal."""
    from metabench.analysis.standings import make_tables
    from metabench.cli.streams import output_encoding, terminal_width
    from metabench.records.runs import Runs
    from metabench.reporting.rendering import render_csv, render_markdown, render_text

    runs = Runs([(store, records)])
    tables = make_tables(runs.records, runs, plugins.published_results())
    store.write_text("leaderboard.md", render_markdown(tables))
    store.write_text("leaderboard.csv", render_csv(tables))
    return render_text(tables, terminal_width(), output_encoding())


def _numbers(text: str) -> list[int]:
    """Parse the value of ``--seeds``."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() for word in words) or len(set(words)) < len(words):
        raise click.UsageError(f"--seeds {text}: give different whole numbers, e.g. --seeds 0,1,2")
    return [int(word) for word in words]
