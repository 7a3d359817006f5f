"""From the words on the command line to a plan: shared by `run` and `validate`."""

from __future__ import annotations

import os
from pathlib import Path

from metabench.errors import SuiteError
from metabench.planning.suite import SuiteFile, read_suite
from metabench.registry.manager import PluginManager


def find_suite(name: str, plugins: PluginManager) -> SuiteFile:
    """Read the suite file `name`, or the suite that a plugin provides under that name.

    Raises:
        SuiteError: there is no such file, or it is not valid.
        PluginError: no plugin provides a suite of that name.
    """
    path = Path(name)
    if os.path.isfile(path):
        return read_suite(path)
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        if os.path.isdir(path):
            raise SuiteError(f"{name} is a directory: name a suite file in it")
        known = ", ".join(plugins.suites()) or "none"
        raise SuiteError(f"there is no suite file {name}. Suites that can be named from any folder: {known}")
    return read_suite(plugins.suite_path(name))
