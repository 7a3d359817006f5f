"""`metabench validate`: check a suite in all its profiles."""

from __future__ import annotations

import click

from metabench.cli.streams import say
from metabench.errors import PluginError


@click.command()
@click.argument("suite")
def validate(suite: str) -> None:
    """Check SUITE (a file or name) in every profile.

    Nothing is trained or written.
    """
    from metabench.cli.suites import find_suite
    from metabench.executors.preparation import plan_in_worker
    from metabench.executors.processes import start_is_cheap
    from metabench.planning.plan import make_plan
    from metabench.planning.suite import resolve
    from metabench.registry.manager import PluginManager

    plugins = PluginManager.from_environment()
    file = find_suite(suite, plugins)
    bare = [] if file.default_profile else [""]  # without a default profile, the bare suite can run, too
    for profile in [*bare, *file.profiles]:
        resolved, places = resolve(file, profile)
        cells = plan_in_worker(resolved, places) if start_is_cheap() else make_plan(resolved, places, plugins)
        for problem in dict.fromkeys(cell.problem for cell in cells if cell.problem):
            raise PluginError(problem)
        say(f"{file.path}: {f'profile {profile}' if profile else 'no profile'}: {len(cells)} cells, valid")
