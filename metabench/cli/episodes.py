"""`metabench episodes`: the harness's episodes for other code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from metabench.cli.streams import say
from metabench.errors import UsageError

if TYPE_CHECKING:  # imports torch
    from metabench.exchange.episode_sets import EpisodeSet
    from metabench.planning.cells import Testing

#: Shape and seed of the episodes of a dataset where the command says none.
_DEFAULTS = {"way": 5, "shot": 1, "queries": 15, "seed": 0}


def choosing_episodes(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the argument and the options that choose episodes; see `chosen_episodes`."""
    options = [
        click.argument("target", metavar="DATASET|SUITE"),
        click.option("--way", type=int, help="Classes of an episode [default: 5]."),
        click.option("--shot", type=int, help="Support images of a class [default: 1]."),
        click.option("--queries", type=int, help="Queries of a class [default: 15]."),
        click.option("--seed", type=int, help="Seed of the episodes [default: 0]."),
        click.option("--param", "params", multiple=True, metavar="NAME=VALUE", help="A parameter of the dataset."),
        click.option("--profile", help="Profile of the suite [default: its own default]."),
        click.option("--only", multiple=True, metavar="KEY=A,B", help="Cells of the suite, e.g. shot=1."),
        click.option("--episodes", "count", type=int, help="Number of episodes [default: 600, or the suite's]."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.group()
def episodes() -> None:
    """Use the harness's episodes in other code."""


@episodes.command()
@choosing_episodes
@click.option("--split", type=click.Choice(["train", "val", "test"]), default="test", show_default=True)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="FILE.json for names of images, FILE.npz for arrays.",
)
def export(split: str, output: Path, **choice: Any) -> None:
    """Write test episodes to FILE.

    DATASET is the name of a dataset, whose episodes the options describe. SUITE is a suite's file, its name,
    or a run's directory: --only chooses the cells whose episodes are written.
    `metabench import` reads what other code has predicted for them.
    """
    from metabench.cli.progress import pack_progress
    from metabench.exchange.export import export_episodes

    found, _ = chosen_episodes(split, **choice)
    with pack_progress() as progress:
        export_episodes(found, output, progress)
    say(f"{output}: {found!r}")


def chosen_episodes(
    split: str,
    target: str,
    way: int | None,
    shot: int | None,
    queries: int | None,
    seed: int | None,
    params: Sequence[str],
    profile: str | None,
    only: Sequence[str],
    count: int | None,
) -> tuple[EpisodeSet, list[str]]:
    """Return the episodes that the options of `choosing_episodes` choose, loaded.

    Args:
        split: the split that they are drawn from.
        target: a dataset, or a suite: its file, its name, or a run's directory.
        way: N, of a dataset; `shot`, `queries`, `seed` and `params` likewise.
        shot: support images of a class.
        queries: queries of a class.
        seed: seed of the episodes.
        params: parameters, ``NAME=VALUE``.
        profile: profile, of a suite.
        only: filters, of a suite.
        count: number of episodes.

    Returns:
        The episodes, and the labels of the backbones of the chosen cells of a suite.

    Raises:
        MetabenchError: an option does not fit, or the data are missing.
    """
    from metabench.cli.progress import pack_progress
    from metabench.exchange.asked_episodes import episodes_of_dataset
    from metabench.exchange.episode_sets import EpisodeSet
    from metabench.registry.file_classes import is_local
    from metabench.registry.manager import PluginManager

    plugins, backbones = PluginManager.from_environment(), list[str]()
    of_dataset = {"way": way, "shot": shot, "queries": queries, "seed": seed}
    given = [name for name, value in {**of_dataset, "param": params}.items() if value not in (None, ())]
    if target in plugins.datasets() or is_local(target):
        if profile is not None or only:
            raise UsageError(f"{target} is a dataset, and --profile and --only choose from a suite: give its file")
        asked = {name: _DEFAULTS[name] if value is None else value for name, value in of_dataset.items()}
        way, shot, queries, seed = (asked[name] for name in ("way", "shot", "queries", "seed"))
        test = episodes_of_dataset(plugins, target, _parameters(params), way, shot, queries, seed, count)
    elif given:
        raise UsageError(f"--{given[0]} describes episodes of a dataset, and {target} is none: choose with --only")
    else:
        test, backbones = _of_suite(target, plugins, profile, only, count)
    with pack_progress() as progress:
        return EpisodeSet(test, split).loaded(progress), backbones


def _of_suite(
    target: str, plugins: Any, profile: str | None, only: Sequence[str], count: int | None
) -> tuple[Testing, list[str]]:
    """Return the episodes of the chosen cells of a suite, and the labels of their backbones."""
    from metabench.cli.suites import find_suite
    from metabench.contracts import Request, RunOptions, engine_of
    from metabench.exchange.asked_episodes import episodes_of_cells
    from metabench.filters import parse_filters, select

    path = Path(target)
    file = find_suite(str(path / "suite.yaml") if path.is_dir() else target, plugins)
    plan = engine_of(file, plugins).plan(file, Request(profile, options=RunOptions(in_process=True)))
    cells = select(plan.cells, parse_filters(only))
    return episodes_of_cells(cells, count), list(dict.fromkeys(cell.labels["backbone"] for cell in cells))


def _parameters(texts: Sequence[str]) -> dict[str, Any]:
    """Return parameters of the form ``NAME=VALUE``; a value is written as in a suite."""
    from metabench.planning.suite_text import Reader

    params = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise UsageError(f"--param {text}: give NAME=VALUE")
        params[name] = Reader(Path(f"--param {text}")).read(value)
    return params
