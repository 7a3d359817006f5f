"""Choose an executor by its name or by a file of its options."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from metabench.contracts import Executor, ExecutorConfig, RunOptions
from metabench.errors import PluginError, UsageError, in_one_line
from metabench.executors.local import Processes, ProcessesConfig
from metabench.planning.suite_file import SuiteFile, read_suite
from metabench.registry.configs import first_problem
from metabench.registry.manager import PluginManager
from metabench.registry.own import PROCESSES


def executor_of(options: RunOptions) -> Executor:
    """Return the executor of a run: that of its options, or worker processes of this computer."""
    return options.executor or Processes(ProcessesConfig(jobs=options.jobs))


def choose_executor(choice: str, given: Mapping[str, Any], plugins: PluginManager) -> tuple[str, Executor]:
    """Return the name of an executor, and the executor.

    Args:
        choice: a name, or a file ``{executor: NAME, …options}`` whose name ends with ``.yaml`` or ``.yml``.
        given: options of the command line by name, which override the file.
        plugins: the provider of executors.

    Raises:
        SuiteError: the file is wrong; the message names file and line.
        PluginError: no plugin provides the name.
        UsageError: an option of the command line is not one of this executor.
        MetabenchError: the executor cannot be used here.
    """
    file = read_suite(Path(choice)) if choice.endswith((".yaml", ".yml")) else SuiteFile(Path(choice), {}, {})
    options = dict(file.data)
    name = options.pop("executor", None) if options else choice
    if not isinstance(name, str):
        raise file.error(("executor",), "the name of the executor is missing, e.g. executor: processes")
    try:
        cls: Any = plugins.executor_class(name)
    except PluginError as error:
        raise (file.error(("executor",), str(error)) if file.data else error) from error
    model: type[ExecutorConfig] = cls.Config
    for option in given:
        if option not in model.model_fields:
            raise UsageError(f"--{option.replace('_', '-')} is no option of the executor '{name}': leave it out")
    try:
        config = model.model_validate({**options, **given})
    except ValidationError as error:
        problem = first_problem(error, model)
        raise file.error(problem.path, problem.message) from error
    try:
        executor: Executor = cls(config)
    except (TypeError, AttributeError, ImportError) as error:
        raise PluginError(f"the executor '{name}' cannot be constructed: {in_one_line(error)}") from error
    return name, executor


def restored_executor(name: str, options: Mapping[str, Any], plugins: PluginManager) -> Executor:
    """Return an executor by name and options that a run has written.

    Raises:
        PluginError: no plugin provides it any more, or with other options.
    """
    cls: Any = plugins.executor_class(name)
    try:
        executor: Executor = cls(cls.Config.model_validate(dict(options)))
    except (ValidationError, TypeError) as error:
        raise PluginError(f"the executor '{name}' has changed since the run: {in_one_line(error)}") from error
    return executor


__all__ = ["PROCESSES", "choose_executor", "executor_of"]
