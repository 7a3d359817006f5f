"""Classes in files that nobody packaged: ``./idea.py:MyAlgorithm``, for trying something out."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from metabench.errors import PluginError


def is_local(name: str) -> bool:
    """Return whether a name is that of a class in a file."""
    return ".py:" in name


def absolute(name: str, folder: Path) -> str:
    """Return the name with its path made absolute; relative ones start at `folder`."""
    path, _, attribute = name.rpartition(":")
    return f"{(folder / path).resolve()}:{attribute}"


def load(name: str) -> Any:
    """Import the file and return what the name says of it.

    A file that was changed is another module, so that it is imported anew.

    Raises:
        PluginError: there is no such file, or nothing of this name in it.
        Exception: whatever the file raises.
    """
    path, _, attribute = name.rpartition(":")
    module_name = f"metabench_local_{Path(path).stem}_{_digest(path)}"
    if module_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(module_name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module  # pickle and dataclasses look there
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[module_name]
            raise
    found = getattr(sys.modules[module_name], attribute, None)
    if found is None:
        raise PluginError(f"there is no {attribute} in {path}")
    return found


def version(name: str) -> str:
    """Return the file's name and a hash of its content, which say what a record was made with."""
    path, _, _ = name.rpartition(":")
    return f"{Path(path).name} {_digest(path)}"


def _digest(path: str) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]
    except OSError as error:
        raise PluginError(f"cannot read {path}: {error.strerror}") from error
