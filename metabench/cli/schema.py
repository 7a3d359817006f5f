"""`metabench schema`: print a JSON schema of suites."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from metabench.cli.streams import say


@click.command()
@click.option("--output", type=click.Path(path_type=Path), help="Write it to this file.")
def schema(output: Path | None) -> None:
    """Print a JSON schema of suites, with the parameters of the installed plugins.

    Editors complete and check suites by it: docs/suites.md says how.
    """
    from metabench.errors import StoreError
    from metabench.files import write_named
    from metabench.planning.suite_schema import suite_schema
    from metabench.registry.manager import PluginManager

    plugins = PluginManager.from_environment()
    parameters = {
        "datasets": _schemas(plugins.datasets(), plugins.dataset_class),
        "backbones": _schemas(plugins.backbones(), plugins.backbone_class),
        "algorithms": _schemas(plugins.algorithms(), plugins.algorithm_class),
    }
    text = json.dumps(suite_schema(parameters), indent=1) + "\n"
    if output is None:
        say(text, end="")
        return
    try:
        write_named(output, text, mark='"title": "a suite of metabench"')
    except OSError as error:
        raise StoreError(f"cannot write the schema {output}: {error.strerror}. Name another file") from error
    say(f"Written to {output}")


def _schemas(names: Iterable[str], class_of: Callable[[str], Any]) -> dict[str, Any]:
    """Return the schemas of parameters by plugin name; those of a class that cannot be imported are not checked."""
    from pydantic import PydanticUserError

    from metabench.errors import MetabenchError

    found = {}
    for name in names:
        try:
            found[name] = class_of(name).Config.model_json_schema()
        except (MetabenchError, PydanticUserError) as error:
            say(f"parameters of {name} are not in the schema: {error}", err=True)
    return found
