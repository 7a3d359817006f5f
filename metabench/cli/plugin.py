"""`metabench plugin`: write a new plugin, check one."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from metabench.cli.streams import say

if TYPE_CHECKING:  # imports torch
    from metabench.api import Config
    from metabench.registry.manager import PluginManager

_Subject = TypeVar("_Subject")


@click.group()
def plugin() -> None:
    """Write a new plugin, and check one."""


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
@click.option("--params", default="{}", metavar="JSON", help="Parameters, as a JSON object.")
@click.option("--transductive", is_flag=True, help="Algorithms: scores of a query may depend on other queries.")
@click.option(
    "--steps",
    type=click.IntRange(1),
    default=400,
    show_default=True,
    help="Algorithms: most outer updates until it beats chance.",
)
@click.option(
    "--image-shape",
    "image_shapes",
    type=(click.IntRange(1), click.IntRange(1), click.IntRange(1)),
    multiple=True,
    metavar="C H W",
    help="Backbones: an image shape to try, instead of several; may be repeated.",
)
@click.option("--suite", type=click.Path(path_type=Path), help="Engines: the file of a small suite to run.")
def check(
    name: str,
    params: str,
    transductive: bool,
    steps: int,
    image_shapes: tuple[tuple[int, int, int], ...],
    suite: Path | None,
) -> int:
    """Check the algorithm, backbone, dataset, engine, executor, logger or metric NAME against the contract of its kind.

    NAME is announced by a plugin, or is a class in a file (./file.py:Class). The exit code is 1 where a check fails.
    A dataset is packed into a temporary cache. An executor runs small jobs. A logger gets the records of a made-up
    suite, plugin-check: one that sends them to a server does so.
    """
    from metabench.conformance import algorithms, backbones, engines, executors, loggers, metrics, regressors
    from metabench.conformance.subjects import Subject
    from metabench.registry import file_classes
    from metabench.registry.manager import PluginManager

    plugins = PluginManager.from_environment()
    given = _parsed(params)
    if file_classes.is_local(name):
        name = file_classes.absolute(name, Path.cwd())
    kind = plugins.kind_of(name)
    _refuse_options_of_other_kinds(name, kind)
    if kind == "algorithm":
        _refuse_wrong_parameters(name, plugins.algorithm_class(name).Config, given)
        tasks = plugins.algorithm_class(name).tasks
        codes = []
        if "classification" in tasks or "regression" not in tasks:
            codes.append(_report(algorithms.CHECKS, Subject(name, given, transductive, steps, plugins)))
        if "regression" in tasks:
            codes.append(_report(regressors.CHECKS, regressors.Subject(name, given, transductive, steps, plugins)))
        return max(codes)
    if kind == "backbone":
        _refuse_wrong_parameters(name, plugins.backbone_class(name).Config, given)
        shapes = image_shapes or backbones.IMAGE_SHAPES
        return _report(backbones.CHECKS, backbones.Subject(name, given, shapes, plugins))
    if kind == "logger":
        plugins.logger_class(name)
        return _report(loggers.CHECKS, loggers.Subject(name, plugins=plugins))
    if kind == "engine":
        if suite is None:
            raise click.UsageError(f"'{name}' is an engine: give a small suite of it by --suite FILE")
        return _report(engines.CHECKS, engines.Subject(_of_engine(suite, name), plugins=plugins))
    if kind == "executor":
        return _report(executors.CHECKS, executors.Subject(name, plugins=plugins))
    is_metric = kind == "metric"
    return (
        _report(metrics.CHECKS, metrics.Subject(name, plugins)) if is_metric else _check_dataset(name, given, plugins)
    )


def _check_dataset(name: str, params: Mapping[str, Any], plugins: PluginManager) -> int:
    """Check a dataset, packed into a temporary cache, or a source of episodes; return the exit code."""
    from metabench.conformance import datasets, sources
    from metabench.data.packing import DataRoots

    _refuse_wrong_parameters(name, plugins.dataset_class(name).Config, params)
    with tempfile.TemporaryDirectory() as folder:
        roots = replace(DataRoots.from_environment(os.environ), cache=Path(folder))
        if plugins.dataset_class(name).makes_episodes:
            return _report(sources.CHECKS, sources.Subject(name, params, plugins, roots))
        return _report(datasets.CHECKS, datasets.Subject(name, roots, params, plugins))


#: The kinds of plugins that an option of `check` is for, by the option's parameter.
_KINDS_OF_OPTION = {
    "params": ("--params", ("algorithm", "backbone", "dataset")),
    "transductive": ("--transductive", ("algorithm",)),
    "steps": ("--steps", ("algorithm",)),
    "image_shapes": ("--image-shape", ("backbone",)),
    "suite": ("--suite", ("engine",)),
}


def _refuse_options_of_other_kinds(name: str, kind: str) -> None:
    context = click.get_current_context()
    for parameter, (option, kinds) in _KINDS_OF_OPTION.items():
        if kind not in kinds and context.get_parameter_source(parameter) is ParameterSource.COMMANDLINE:
            *others, last = (f"{one}s" for one in kinds)
            wanted = f"{', '.join(others)} and {last}" if others else last
            raise click.UsageError(f"{option} is for {wanted}, and '{name}' is a {kind}: leave it out")


def _of_engine(suite: Path, name: str) -> Path:
    """Return the file of a suite, which names the engine."""
    from metabench.planning.suite_file import read_suite
    from metabench.registry.own import FEW_SHOT

    file = read_suite(suite)
    engine = file.data.get("engine", FEW_SHOT)
    if engine != name:
        raise file.error(("engine",), f"the suite is one of the engine '{engine}', not of '{name}'")
    return suite


def _parsed(params: str) -> dict[str, Any]:
    try:
        parsed = json.loads(params)
    except ValueError as error:
        raise click.UsageError(f"--params {params}: not valid JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise click.UsageError(f"--params {params}: give a JSON object, e.g. --params '{{\"lr\": 0.01}}'")
    return parsed


def _refuse_wrong_parameters(name: str, config: type[Config], params: Mapping[str, Any]) -> None:
    from metabench.registry.configs import InvalidConfig, validate_config

    try:
        validate_config(config, params)
    except InvalidConfig as error:
        place = ".".join(map(str, error.problem.path))
        raise click.UsageError(f"--params of '{name}': {f'{place}: ' if place else ''}{error}") from error


def _report(checks: Mapping[str, Callable[[_Subject], None]], subject: _Subject) -> int:
    """Run and print all checks; return the exit code."""
    from metabench.conformance.checks import verdicts

    failed = 0
    for title, problem in verdicts(checks, subject):
        failed += bool(problem)
        rule = (checks[title].__doc__ or "").splitlines()[0]
        say(f"FAILED  {title}: {rule}\n        {problem}" if problem else f"ok      {title}")
    say(f"{len(checks) - failed} of {len(checks)} checks passed")
    return 1 if failed else 0
