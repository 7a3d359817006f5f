"""Run one check of a plugin, and tell a broken rule from wrong input."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import torch

from metabench.api import Config
from metabench.errors import CellFailed, InvalidData, MetabenchError, in_one_line
from metabench.registry.configs import InvalidConfig, validate_config

_Subject = TypeVar("_Subject")


class NotConforming(MetabenchError):
    """A plugin breaks a rule of its contract."""


def run(check: Callable[[_Subject], None], subject: _Subject) -> None:
    """Run a check; leave torch's generator as it is.

    Raises:
        NotConforming: the plugin breaks the rule, or raised an exception.
        PluginError: no plugin provides the name.
        DataError: raw data is missing or damaged.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            check(subject)
        except (CellFailed, InvalidData) as error:
            raise NotConforming(str(error)) from error
        except MetabenchError:
            raise
        except Exception as error:
            raise NotConforming(f"{in_one_line(error)}") from error


def verdicts(checks: Mapping[str, Callable[[_Subject], None]], subject: _Subject) -> Iterator[tuple[str, str]]:
    """Run checks; yield the name of each with the message of its failure, empty where it passes.

    Raises:
        PluginError, DataError: as `run`.
    """
    for name, check in checks.items():
        try:
            run(check, subject)
        except NotConforming as error:
            yield name, str(error)
        else:
            yield name, ""


def refuse_unknown_parameters(config: type[Config]) -> None:
    """Check that a `Config` refuses unknown parameters.

    Raises:
        NotConforming: it takes one.
    """
    try:
        validate_config(config, {"no_such_parameter": 1})
    except InvalidConfig as error:
        if error.problem.path == ("no_such_parameter",):  # not a key that is missing
            return
    raise NotConforming("its Config takes a parameter that it does not know: subclass metabench.api.Config")
