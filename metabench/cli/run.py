"""`metabench run`: train and test every cell of a suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from metabench.cli.streams import say
from metabench.registry.own import PROCESSES
from metabench.text import counted

if TYPE_CHECKING:  # imported by the command when it runs
    from metabench.contracts import Cell, Plan, RunOptions
    from metabench.planning.suite import Precision
    from metabench.records.record import Record
    from metabench.records.store import Store
    from metabench.registry.manager import PluginManager


#: The kinds of devices.
DEVICES = ("auto", "cpu", "cuda")


class Device(click.ParamType):  # type: ignore[type-arg]  # generic in later versions of click
    """The kind of device; a worker takes the first GPU that it sees, and so none has a number here."""

    name = "device"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the kind; say what to do for a numbered GPU."""
        kind, colon, number = str(value).partition(":")
        if kind == "cuda" and colon:
            self.fail(f"GPUs are chosen by CUDA_VISIBLE_DEVICES={number}: give --device cuda", param, ctx)
        if kind == "mps":
            self.fail("metabench does not run on mps, where no result was ever checked: give --device cpu", param, ctx)
        if value not in DEVICES:
            self.fail(f"{value!r} is not one of {', '.join(DEVICES)}", param, ctx)
        return kind


@click.command()
@click.argument("suite")
@click.option("--profile", help="Named settings of the suite; default: the suite's own default.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Directory for the results; default: runs/SUITE/PROFILE, or runs/SUITE/PROFILE-PRECISION.",
)
@click.option("--device", type=Device(), metavar=f"[{'|'.join(DEVICES)}]", default="auto", show_default=True)
@click.option("--only", multiple=True, metavar="KEY=A,B", help="Run only these cells, e.g. algorithm=maml,protonet.")
@click.option("--shard", metavar="I/N", help="Run only one of N parts of the cells, for `metabench merge`.")
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
    help="Number of cells to run at once, each in a worker with its share of the threads, or with a GPU "
    "[default: 1, or that of the executor].",
)
@click.option(
    "--executor",
    metavar="NAME|FILE",
    default=PROCESSES,
    show_default=True,
    help="Where cells run: a name of `metabench list executors`, or a YAML file {executor: NAME, and options}.",
)
@click.option("--per-device", type=click.IntRange(min=1), help="Number of cells at once on each GPU [default: 1].")
@click.option(
    "--retries",
    type=click.IntRange(min=0),
    default=2,
    show_default=True,
    help="How often a training is tried again whose worker was killed or lost.",
)
@click.option(
    "--share",
    is_flag=True,
    help="Share the trainings with other `run --share` commands of this suite and output directory, here or elsewhere.",
)
@click.option("--detach", is_flag=True, help="Leave the trainings to an executor that goes on without this command.")
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
    shard: str | None,
    seeds: str | None,
    precision: Precision | None,
    fresh: bool,
    jobs: int | None,
    executor: str,
    per_device: int | None,
    retries: int,
    share: bool,
    detach: bool,
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
    from metabench.executors.choosing import choose_executor
    from metabench.executors.forks import prepare_workers, start_is_cheap
    from metabench.filters import parse_filters, select
    from metabench.machine.stops import watch_stops
    from metabench.records.store import Store
    from metabench.registry.manager import PluginManager

    given = {"jobs": jobs, "per_device": per_device}
    given = {name: value for name, value in given.items() if value is not None}
    elsewhere = (jobs or 1) > 1 or per_device is not None or executor != PROCESSES or share
    in_process = not (elsewhere or start_is_cheap()) if workers is None else not workers
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
    if in_process and elsewhere:
        raise click.UsageError(
            "--in-process runs one cell at a time: leave out --jobs, --executor, --per-device and --share"
        )
    name, place = choose_executor(executor, given, plugins)
    if detach and not place.outlives_driver:
        raise click.UsageError(f"--detach: jobs of the executor '{name}' end with this command: leave it out")
    if share and (fresh or not weights or place.outlives_driver):
        raise click.UsageError(_no_sharing(name, fresh, weights))
    options = RunOptions(fresh, jobs or 1, weights, reselect, in_process, confirm, place, name, retries, detach)
    request = Request(profile, None if seeds is None else _numbers(seeds), precision, device, options)
    filters = parse_filters(only)
    plan = engine.plan(file, request)
    cells = select(plan.cells, filters)
    if shard is not None:
        cells = _of_shard(shard, plan, cells)
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
    agreed = _agreed(plan, device) if share else None
    records, text = execute(plan, cells, plugins, store, options, agreed)
    say(f"\n{text}")
    if records is None:
        return 0
    folders = "cells/, weights/" if options.keep_weights and store.trainings() else "cells/"
    say(f"Written to {store.path}: leaderboard.md, leaderboard.csv, {folders}")
    return 1 if any(record.status == "failed" for record in records) else 0


def default_output(plan: Plan, precision: str | None) -> Path:
    """Return the directory of a run that names none, ``runs/SUITE/PROFILE``."""
    kind = "-".join(filter(None, [plan.profile or "default", precision]))
    return Path("runs") / plan.name / kind


def execute(
    plan: Plan,
    cells: Sequence[Cell],
    plugins: PluginManager,
    store: Store,
    options: RunOptions,
    agreed: Mapping[str, str] | None = None,
) -> tuple[list[Record] | None, str]:
    """Run the cells of a plan, and write records and leaderboard; progress goes to standard error.

    Args:
        plan: the plan.
        cells: the cells that are to have a record.
        plugins: the provider of the classes, and who is told.
        store: the output directory.
        options: see `RunOptions`.
        agreed: what all processes that share the directory must agree on, by name; None keeps it for this one.

    Returns:
        The records of the cells, None where they are made later (``--detach``); and the leaderboard, or that, as text.

    Raises:
        KeyboardInterrupt: the user asked to stop; finished cells are kept.
        MetabenchError: a cell is refused, or the directory cannot be written.
    """
    from metabench.cli.console import make_console
    from metabench.cli.progress import pack_progress
    from metabench.contracts import Interrupted
    from metabench.executors.driver import run_work
    from metabench.executors.events import Detached
    from metabench.executors.harvest import harvest
    from metabench.executors.job_folder import JobFolder
    from metabench.executors.members import joined
    from metabench.executors.sharing import Sharing

    def tidy() -> None:
        store.clear_leftovers()
        harvest(store)

    store.check_own()
    with nullcontext() if agreed is None else joined(store.path, agreed, tidy) as members:
        if members is None and JobFolder.all(store.path) and not options.fresh:
            with store.locked():
                harvest(store)
        earlier = store.records_by_name(without={cell.id for cell in cells} if options.fresh else ())
        work = plan.prepare(cells, earlier, store, pack_progress)
        with make_console() as console:
            # A refused cell must not leave an output directory behind.
            try:
                work.introduce(console)
            except Interrupted:
                raise KeyboardInterrupt from None
            sharing = None if members is None else Sharing(members, store, console)
            with store.locked() if members is None else nullcontext():
                with nullcontext() if members is None else members.writing():
                    store.write_suite(plan.settings)
                    store.write_plan(plan.cells)
                    current = store.supersede(earlier, plan.cells)
                plugins.run_started(store.path, plan.settings, len(cells))
                try:
                    records = run_work(work, plugins, store, console, options, sharing)
                except Interrupted:
                    console.stopped(store, options)
                    raise KeyboardInterrupt from None
                except Detached as detached:
                    return None, detached.report(store.path)
                plugins.run_finished(store.path, [record.model_dump() for record in records])
                with nullcontext() if members is None else members.writing():
                    if members is not None:  # others may have more cells of the suite
                        current = store.supersede(store.records_by_name(), plan.cells)
                    by_cell = {record.cell: record for record in [*current, *records]}
                    return records, write_leaderboard(store, list(by_cell.values()), plugins)


def _of_shard(text: str, plan: Plan, cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells of one part of a plan."""
    from metabench.planning.shards import parse_shard, shard

    part = {cell.id for cell in shard(plan.cells, *parse_shard(text))}
    chosen = [cell for cell in cells if cell.id in part]
    if not chosen:
        raise click.UsageError(f"--shard {text}: none of the chosen cells is in this part")
    return chosen


def _no_sharing(executor: str, fresh: bool, weights: bool) -> str:
    """Return why a run cannot be shared."""
    if fresh:
        return "--fresh deletes what others would share: run it without --share first, or give another --output"
    if not weights:
        return "--no-weights deletes weights that others may need: leave it out with --share"
    return f"the executor '{executor}' shares out the trainings itself: leave out --share"


def _agreed(plan: Plan, device: str) -> dict[str, str]:
    """Return what processes that share a directory must agree on, so that each would make the records of the others."""
    import torch

    from metabench import __version__
    from metabench.executors.origin import harness_hash
    from metabench.machine.device import choose_device
    from metabench.planning.cells import content_hash

    return {
        "the suite": f"{plan.name} ({content_hash(plan.settings)[:8]})",
        "the profile": plan.profile or "none",
        "the plan": f"{counted(len(plan.cells), 'cell')} ({content_hash({cell.id: '' for cell in plan.cells})[:8]})",
        "metabench": f"{__version__} (code {harness_hash()[:8]})",
        "torch": ".".join(torch.__version__.split(".")[:2]),
        "the device": choose_device(device).type,
    }


def write_leaderboard(store: Store, records: Sequence[Record], plugins: PluginManager) -> str:
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
