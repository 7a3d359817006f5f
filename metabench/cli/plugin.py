"""`metabench plugin`: write a new plugin, check an algorithm."""

from __future__ import annotations

import json
from pathlib import Path

import click

from metabench.cli.streams import say


@click.group()
def plugin() -> None:
    """Write a new plugin, and check an algorithm."""


@plugin.command()
@click.argument("name")
@click.option("--kind", type=click.Choice(["algorithm", "backbone", "dataset"]), default="algorithm", show_default=True)
@click.option(
    "--folder", type=click.Path(path_type=Path), default=Path(), help="Parent folder; default: the current one."
)
def new(name: str, kind: str, folder: Path) -> None:
    """Write the distribution NAME, ready to install and test.

    It contains code, a test, a suite, a README and a workflow for GitHub Actions.
    """
    from metabench.registry.manager import PluginManager
    from metabench.scaffold import write_plugin

    target = write_plugin(name, kind, folder, PluginManager.from_environment())
    say(f"Written to {target}. Now:")
    say(f"  pip install -e '{target}[dev]'")
    say(f"  pytest {target}")
    say(f"  metabench run {target}/suite.yaml --profile smoke")


@plugin.command()
@click.argument("name")
@click.option("--params", default="{}", metavar="JSON", help="Parameters of the algorithm, as a JSON object.")
@click.option("--transductive", is_flag=True, help="Scores of a query may depend on other queries.")
@click.option(
    "--steps", type=click.IntRange(1), default=400, show_default=True, help="Most outer updates until it beats chance."
)
def check(name: str, params: str, transductive: bool, steps: int) -> int:
    """Check the algorithm NAME against the contract of algorithms.

    NAME is an algorithm of a plugin, or a class in a file (./file.py:Class). The exit code is 1 where a check fails.
    """
    from metabench.conformance.algorithms import CHECKS, NotConforming, Subject, run_check
    from metabench.errors import UsageError
    from metabench.registry import file_classes
    from metabench.registry.manager import PluginManager

    try:
        parsed = json.loads(params)
    except ValueError as error:
        raise click.UsageError(f"--params {params}: not valid JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise click.UsageError(f"--params {params}: give a JSON object, e.g. --params '{{\"lr\": 0.01}}'")
    plugins = PluginManager.from_environment()
    if file_classes.is_local(name):
        name = file_classes.absolute(name, Path.cwd())
    kind = plugins.kind_of(name)
    if kind != "algorithm":
        raise UsageError(
            f"'{name}' is a {kind}, and the checks are for algorithms: try it in a suite by `metabench run "
            f"--profile smoke`; `metabench plugin new --kind {kind}` writes tests of one"
        )
    plugins.algorithm_class(name)
    subject = Subject(name, parsed, transductive, steps, plugins)
    failed = 0
    for title, rule in CHECKS.items():
        try:
            run_check(title, subject)
            say(f"ok      {title}")
        except NotConforming as error:
            failed += 1
            say(f"FAILED  {title}: {(rule.__doc__ or '').splitlines()[0]}\n        {error}")
    say(f"{len(CHECKS) - failed} of {len(CHECKS)} checks passed")
    return 1 if failed else 0
