"""Find a suite by file or name."""

from __future__ import annotations

import os
from pathlib import Path

from metabench.errors import SuiteError
from metabench.planning.suite_file import SuiteFile, read_suite
from metabench.registry.manager import PluginManager


def find_suite(name: str, plugins: PluginManager) -> SuiteFile:
    """Read the suite file `name`, or the plugins' suite `name`.

    Raises:
        SuiteError: the file does not exist or is not valid.
        PluginError: no plugin provides a suite of that name.
    """
    path = Path(name)
    if os.path.isfile(path):
        return read_suite(path)
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        if os.path.isdir(path):
            raise SuiteError(f"{name} is a directory: give the path of a suite file in it")
        known = ", ".join(plugins.suites()) or "none"
        raise SuiteError(f"there is no suite file {name}: correct the path, or give the name of a suite: {known}")
    return read_suite(plugins.suite_path(name))
