"""`metabench run`: train and test every cell of a suite."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from metabench.cli.streams import say

if TYPE_CHECKING:  # imported by the command when it runs
    from metabench.executors.driver import RunOptions
    from metabench.planning.cells import Cell
    from metabench.planning.suite import Precision, Suite, SuiteFile
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
    loggers: Sequence[str],
    dry_run: bool,
) -> int:
    """Train and test every cell of SUITE (a file, or the name of a suite), and print the leaderboard.

    Finished cells are kept, and an interrupted training resumes from its last checkpoint.
    """
    from metabench.cli.suites import find_suite
    from metabench.executors.preparation import plan_in_worker
    from metabench.executors.processes import prepare_workers, start_is_cheap
    from metabench.filters import parse_filters
    from metabench.machine.stops import watch_stops
    from metabench.planning.plan import make_plan, select
    from metabench.planning.suite import resolve
    from metabench.registry.manager import PluginManager

    in_process = not (jobs > 1 or start_is_cheap()) if workers is None else not workers
    if in_process:
        watch_stops()  # before torch starts threads, which would take the signal
    else:
        prepare_workers()
    if not dry_run:
        # Needed later, and as slow as the start of the fork server: now both run side by side.
        import metabench.executors.driver  # noqa: F401
    plugins = PluginManager.from_environment()
    file = find_suite(suite, plugins)
    resolved, places = resolve(file, profile)
    if seeds is not None:
        resolved = resolved.with_seeds(_numbers(seeds))
    if precision is not None:
        resolved = resolved.with_precision(precision)
    if in_process and jobs > 1:
        raise click.UsageError(f"--in-process runs one cell at a time: leave out --jobs {jobs}")
    filters = parse_filters(only)

    def planned(suite: Suite, file: SuiteFile) -> list[Cell]:
        return make_plan(suite, file, plugins) if in_process else plan_in_worker(suite, file)

    plan = planned(resolved, places)
    cells = select(plan, filters)
    for logger in dict.fromkeys(loggers):
        plugins.add_logger(logger)
    if dry_run:
        _show(cells)
        return 0

    from metabench.executors.driver import RunOptions

    kind = "-".join(filter(None, [resolved.profile or "default", precision]))
    return _execute(
        resolved,
        file,
        plan,
        cells,
        plugins,
        output or Path("runs") / resolved.name / kind,
        device,
        RunOptions(fresh, jobs, weights, reselect),
        in_process,
        planned,
    )


def _execute(
    suite: Suite,
    file: SuiteFile,
    plan: Sequence[Cell],
    cells: Sequence[Cell],
    plugins: PluginManager,
    output: Path,
    device_name: str,
    options: RunOptions,
    in_process: bool,
    planned: Callable[[Suite, SuiteFile], list[Cell]],
) -> int:
    """Run the cells of a plan, print the leaderboard, and return the exit code."""
    from metabench.cli.console import make_console
    from metabench.cli.progress import pack_progress
    from metabench.data.packing import DataRoots
    from metabench.engine.precision import check_precisions
    from metabench.engine.progress import Interrupted
    from metabench.executors.driver import run_cells
    from metabench.executors.loading import load_datasets
    from metabench.executors.origin import kept_records
    from metabench.executors.preparation import load_in_workers
    from metabench.machine.device import choose_device
    from metabench.records.store import Store

    store = Store(output)
    store.check_own()
    device = choose_device(device_name)
    check_precisions(cells, device)
    roots = DataRoots.from_environment(os.environ)  # first of all, because it checks the variables
    datasets = load_datasets(cells, plugins, roots, device, pack_progress) if in_process else None
    if datasets is None:
        cells, fingerprints = load_in_workers(cells, pack_progress)
    else:
        fingerprints = {label: dataset.fingerprint for label, dataset in datasets.items()}
    # Only read until `rehearse` has accepted all cells: a refused cell must not leave an output directory behind.
    earlier = store.records_by_name(without={cell.id for cell in cells} if options.fresh else ())
    kept, growing = kept_records(cells, earlier, fingerprints, device, plugins, store)
    settings = suite.model_dump(mode="json", exclude={"profile"})
    with make_console() as console:
        try:
            weights = [] if options.fresh else store.trainings()
            expected = console.rehearse(
                cells, kept, device, datasets, plugins, file, suite, options.jobs, planned, weights
            )
        except Interrupted:
            raise KeyboardInterrupt from None
        with store.locked():
            store.write_suite(settings)
            current = store.supersede(earlier, plan)
            plugins.run_started(store.path, settings, len(cells))
            try:
                records = run_cells(
                    suite,
                    plan,
                    cells,
                    fingerprints,
                    device,
                    plugins,
                    store,
                    console,
                    kept,
                    growing,
                    options,
                    datasets,
                    expected,
                )
            except Interrupted:
                console.interrupted(store, options.fresh)
                raise KeyboardInterrupt from None
            plugins.run_finished(store.path, [record.model_dump() for record in records])
            by_cell = {record.cell: record for record in [*current, *records]}
            text = _write_leaderboard(store, list(by_cell.values()), plugins)
    say(f"\n{text}")
    folders = "cells/, weights/" if options.keep_weights and store.trainings() else "cells/"
    say(f"Written to {store.path}: leaderboard.md, leaderboard.csv, {folders}")
    return 1 if any(record.status == "failed" for record in records) else 0


def _show(cells: Sequence[Cell]) -> None:
    """Print one line per cell."""
    from metabench.planning.cells import sharing_a_training

    sharing = sharing_a_training(cells)
    for cell in cells:
        first, schedule = sharing[cell.training.id][0], cell.training.schedule
        training = str(schedule) if schedule else "nothing is trained"
        say(f"{cell.id}  {cell.title}  ({training if cell is first else f'weights of {first.id}'})")
    say(f"{len(cells)} cells")


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
