"""Load classes from unpackaged files: ``./idea.py:MyAlgorithm``."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from metabench.errors import PluginError
from metabench.registry.code import code_hash
from metabench.registry.neighbours import importable


def is_local(name: str) -> bool:
    """Return whether the name is a class in a file."""
    return ".py:" in name


def absolute(name: str, folder: Path) -> str:
    """Return the name with an absolute path.

    Args:
        name: ``PATH.py:CLASS``.
        folder: the folder that a relative path starts from.
    """
    path, _, attribute = name.rpartition(":")
    return f"{(folder / path).resolve()}:{attribute}"


class FileClasses:
    """Loads classes from files, which may import the files beside them."""

    def load(self, name: str) -> Any:
        """Import the file and return its class.

        The module's name has hashes of the code and of the folder, so that a changed file is imported again.

        Raises:
            PluginError: the file cannot be read, or does not define the class.
            Exception: whatever importing the file raises.
        """
        path, _, attribute = name.rpartition(":")
        folder = hashlib.sha256(os.fsencode(Path(path).parent)).hexdigest()[:8]
        module_name = f"metabench_local_{Path(path).stem}_{_digest(path)}_{folder}"
        if module_name not in sys.modules:
            spec = importlib.util.spec_from_file_location(module_name, path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[module_name] = module  # pickle and dataclasses look modules up here
            try:
                with importable(Path(path)):
                    spec.loader.exec_module(module)
            except BaseException:
                del sys.modules[module_name]
                raise
        cls = getattr(sys.modules[module_name], attribute, None)
        if cls is None:
            raise PluginError(f"there is no {attribute} in {path}: name a class that the file defines")
        return cls

    def version(self, name: str) -> str:
        """Return the file's name and a hash of its content and of the neighbours that it imports.

        Records store this as the version of the class that they were made with.
        """
        path, _, _ = name.rpartition(":")
        return f"{Path(path).name} {_digest(path)}"


def _digest(path: str) -> str:
    """Return a hash of a file and of the neighbours that it imports."""
    try:
        with open(path, "rb"):
            return code_hash(Path(path))[:12]
    except OSError as error:
        raise PluginError(f"cannot read {error.filename or path}: {error.strerror}. Correct the path") from error
