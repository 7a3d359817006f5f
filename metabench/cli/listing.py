"""`metabench list`: list what the installed plugins provide."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import click

from metabench.cli.streams import say
from metabench.errors import SuiteError, UsageError
from metabench.registry.manager import PluginManager
from metabench.specs import Spec, SuiteSpec
from metabench.text import counted, one_line


@click.command("list")
@click.argument("kind", default="all", metavar="[KIND|NAME]")
@click.option("--format", "form", type=click.Choice(["text", "markdown"]), default="text", help="Form of NAME's page.")
def list_(kind: str, form: str) -> None:
    """List what is installed, or describe NAME.

    KIND is algorithms, backbones, datasets, metrics, engines, executors, suites, loggers or plugins. NAME is an
    algorithm, a backbone, a dataset, a logger, a metric of a plugin, an engine, an executor or FILE.py:CLASS: its docs,
    parameters and defaults are printed.
    """
    from metabench.analysis.metrics import OF_TASK

    plugins = PluginManager.from_environment()
    links = kind != "all"
    sections: dict[str, Callable[[PluginManager], list[tuple[str, ...]]]] = {
        "algorithms": lambda plugins: _specs(plugins.algorithms(), links),
        "backbones": lambda plugins: _specs(plugins.backbones(), links),
        "datasets": lambda plugins: _specs(plugins.datasets(), links),
        "metrics": lambda plugins: [
            *((measure.name, measure.declaration.summary) for measures in OF_TASK.values() for measure in measures),
            *_specs(plugins.metrics(), links),
        ],
        "engines": lambda plugins: _specs(plugins.engines(), links),
        "executors": lambda plugins: _specs(plugins.executors(), links),
        "suites": lambda plugins: [
            (name, _version(spec) if links else "", str(spec.path)) for name, spec in plugins.suites().items()
        ],
        "loggers": lambda plugins: _specs(plugins.loggers(), links),
        "plugins": _plugins,
    }
    kind = f"{kind}s" if f"{kind}s" in sections else kind
    if kind != "all" and kind not in sections:
        from metabench.cli.description import as_markdown, as_text, describe

        found = describe(kind, plugins)
        say(as_markdown(found) if form == "markdown" else as_text(found))
        return
    if form != "text":
        raise UsageError("--format is of the page of one NAME: give a name, or leave it out")
    chosen = list(sections) if kind == "all" else [kind]
    for section in chosen:
        rows = sections[section](plugins)
        say(f"{section}:" if rows else f"{section}: none")
        width = max((len(row[0]) for row in rows), default=0)
        for name, *rest in rows:
            say(f"  {name:<{width}}  {'  '.join(word for word in rest if word)}".rstrip())
    if plugins.hidden():
        say(plugins.hidden(), err=True)
    for problem in plugins.conflicts():
        say(problem, err=True)
    broken = [info for info in plugins.plugins() if info.problem]
    if broken and kind not in ("all", "plugins"):
        say(f"{counted(len(broken), 'plugin')} cannot be used: see `metabench list plugins`", err=True)


def _specs(specs: Mapping[str, Spec], links: bool) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name, spec in specs.items():
        source = " ".join(word for word in (spec.reference, spec.link if links else "") if word)
        rows.append((name, spec.summary, f"({source})" if source else ""))
    return rows


def _version(spec: SuiteSpec) -> str:
    """Return the version of a suite, and what supersedes it, as its file says."""
    from metabench.planning.suite_file import read_suite

    try:
        data = read_suite(spec.path).data
    except SuiteError:  # `metabench validate` says why
        return "cannot be read"
    version, other = data.get("version"), data.get("superseded_by")
    parts = [f"v{version}" if version else "", f"superseded by {other}" if other else ""]
    return one_line(", ".join(part for part in parts if part))


def _plugins(plugins: PluginManager) -> list[tuple[str, ...]]:
    return [
        (
            info.name,
            f"of {info.distribution} {info.version}".strip(),
            f"BROKEN: {info.problem}" if info.problem else "",
        )
        for info in plugins.plugins()
    ]
