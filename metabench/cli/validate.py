"""`metabench validate`: check a suite in all its profiles."""

from __future__ import annotations

import click

from metabench.cli.streams import say


@click.command()
@click.argument("suite")
def validate(suite: str) -> None:
    """Check SUITE (a file or name) in every profile.

    Nothing is trained or written.
    """
    from metabench.cli.suites import find_suite
    from metabench.planning.plan import make_plan
    from metabench.planning.suite import resolve
    from metabench.registry.manager import PluginManager

    plugins = PluginManager.from_environment()
    file = find_suite(suite, plugins)
    bare = [] if file.default_profile else [""]  # without a default profile, the bare suite can run, too
    for profile in [*bare, *file.profiles]:
        resolved, places = resolve(file, profile)
        cells = make_plan(resolved, places, plugins)
        say(f"{file.path}: {f'profile {profile}' if profile else 'no profile'}: {len(cells)} cells, valid")
