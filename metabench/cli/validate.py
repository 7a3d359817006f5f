"""`metabench validate`: check a suite in all its profiles."""

from __future__ import annotations

import click

from metabench.cli.streams import say
from metabench.errors import PluginError
from metabench.text import counted


@click.command()
@click.argument("suite")
def validate(suite: str) -> None:
    """Check SUITE (a file or name) in every profile.

    Nothing is trained or written.
    """
    from metabench.cli.suites import find_suite
    from metabench.contracts import Request, RunOptions, engine_of
    from metabench.executors.forks import start_is_cheap
    from metabench.registry.manager import PluginManager

    plugins = PluginManager.from_environment()
    file = find_suite(suite, plugins)
    engine, options = engine_of(file, plugins), RunOptions(in_process=not start_is_cheap())
    bare = [] if file.default_profile else [""]  # without a default profile, the bare suite can run, too
    for profile in [*bare, *file.profiles]:
        cells = engine.plan(file, Request(profile, options=options)).cells
        for problem in dict.fromkeys(cell.problem for cell in cells if cell.problem):
            raise PluginError(problem)
        say(f"{file.path}: {f'profile {profile}' if profile else 'no profile'}: {counted(len(cells), 'cell')}, valid")
