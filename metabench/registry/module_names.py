"""Names of callables in installed packages: ``module:torchvision.models:resnet18``."""

from __future__ import annotations

import importlib
from functools import reduce
from importlib.metadata import version
from typing import Any

from metabench.errors import PluginError
from metabench.registry.code import code_hash, distribution_of

_PREFIX = "module:"


def is_module(name: str) -> bool:
    """Return whether the name is a callable in an installed package."""
    return name.startswith(_PREFIX)


def callable_of(name: str) -> Any:
    """Import the module and return its callable, at any depth: ``package.module:Class.method``.

    Raises:
        PluginError: the name has another form, or the module has no such callable.
        Exception: whatever importing the module raises.
    """
    module, _, attribute = name.removeprefix(_PREFIX).partition(":")
    if not module or not attribute:
        raise PluginError(f"'{name}' must be {_PREFIX}PACKAGE:CALLABLE, e.g. {_PREFIX}torchvision.models:resnet18")
    try:
        found = reduce(getattr, attribute.split("."), importlib.import_module(module))
    except AttributeError as error:
        raise PluginError(f"there is no {attribute} in {module}: name a callable of that module") from error
    if not callable(found):
        raise PluginError(f"{attribute} in {module} is a {type(found).__name__}: name a callable of that module")
    return found


def version_of(name: str) -> str:
    """Return distribution and version of the package; its name alone where it is not installed."""
    module = name.removeprefix(_PREFIX).partition(":")[0]
    distribution = distribution_of(module)
    return f"{distribution} {version(distribution)}" if distribution else module.partition(".")[0]


def code_of(name: str) -> str:
    """Return distribution and version of the package, or a hash of code that is not installed.

    A large package would take seconds to hash, and an installed one has other code only with another version.
    """
    target = name.removeprefix(_PREFIX)
    return version_of(name) if distribution_of(target.partition(":")[0]) else code_hash(target)
