"""`metabench tune`: search the parameters of a suite on validation episodes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from metabench.cli.streams import say


@click.command()
@click.argument("suite")
@click.option(
    "--trials",
    type=click.IntRange(min=2),
    required=True,
    help="Number of trials of each method; the first has the suite's own parameters.",
)
@click.option("--profile", help="Named settings of the suite; default: the suite's own default.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Directory for trials, weights and the tuned suite; default: runs/SUITE/PROFILE-tuning.",
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--only", multiple=True, metavar="KEY=A,B", help="Tune on these cells only, e.g. algorithm=maml.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the search.")
def tune(
    suite: str, trials: int, profile: str | None, output: Path | None, device: str, only: Sequence[str], seed: int
) -> int:
    """Search the parameters of SUITE's methods, with the same number of trials for each, and write the tuned suite.

    Trials are compared on validation episodes; no test image is read. A search that was stopped goes on with the same
    command.
    """
    from metabench.cli.console import make_console
    from metabench.cli.progress import pack_progress
    from metabench.cli.suites import find_suite
    from metabench.contracts import Interrupted, Request, RunOptions, engine_of
    from metabench.errors import UsageError
    from metabench.executors.few_shot import FewShot
    from metabench.executors.forks import prepare_workers, start_is_cheap
    from metabench.filters import parse_filters
    from metabench.machine.stops import watch_stops
    from metabench.records.store import Store
    from metabench.registry.manager import PluginManager
    from metabench.tuning.proposals import check_optuna
    from metabench.tuning.table import table_of
    from metabench.tuning.tuner import Tuner

    in_process = not start_is_cheap()
    if in_process:
        watch_stops()  # before torch starts threads, which would take the signal
    else:
        prepare_workers()
    check_optuna()
    plugins = PluginManager.from_environment()
    file = find_suite(suite, plugins)
    engine: object = engine_of(file, plugins)
    if not isinstance(engine, FewShot):
        raise UsageError(f"metabench tune is for suites of the few-shot engine, and {file.path} has another")
    plan = engine.plan(file, Request(profile, device=device, options=RunOptions(in_process=in_process)))
    store = Store(output or Path("runs") / plan.name / f"{plan.profile or 'default'}-tuning")
    with make_console() as console:
        try:
            result = Tuner(plan, parse_filters(only), trials, seed, store, console).run(pack_progress)
        except Interrupted:
            console.say(f"Stopped. The finished trials are in {store.path}; run the same command again to go on.")
            raise KeyboardInterrupt from None
    say(f"\n{table_of(result.methods)}")
    path = store.path / "suite.yaml"
    say(f"Written: {path}; test it: metabench run {path} --output {store.path}")
    return 0 if all(found.best for found in result.methods) else 1
