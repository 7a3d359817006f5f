"""Load classes from unpackaged files: ``./idea.py:MyAlgorithm``."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metabench.errors import PluginError
from metabench.registry.neighbours import files_of, importable


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

        The module's name contains a hash of the file and its neighbours, so a changed file is imported again.

        Raises:
            PluginError: the file cannot be read, or does not define the class.
            Exception: whatever importing the file raises.
        """
        path, _, attribute = name.rpartition(":")
        contents = _contents(path)
        module_name = f"metabench_local_{Path(path).stem}_{_digest(contents)}"
        if module_name not in sys.modules:
            spec = importlib.util.spec_from_file_location(module_name, path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[module_name] = module  # pickle and dataclasses look modules up here
            try:
                with importable(Path(path), contents):
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
        return f"{Path(path).name} {_digest(_contents(path))}"


def _contents(path: str) -> dict[Path, bytes]:
    """Return the contents of a file and of the neighbours that it imports."""
    try:
        return files_of(Path(path))
    except OSError as error:
        raise PluginError(f"cannot read {error.filename or path}: {error.strerror}. Correct the path") from error


def _digest(contents: Mapping[Path, bytes]) -> str:
    """Return a hash of the files; of a file without neighbours, that of its content."""
    if len(contents) == 1:
        return hashlib.sha256(*contents.values()).hexdigest()[:12]
    folder = next(iter(contents)).parent
    files = sorted((file.relative_to(folder).as_posix(), content) for file, content in contents.items())
    digest = hashlib.sha256()
    for name, content in files:
        digest.update(f"{name} {len(content)}\0".encode("utf-8", "surrogateescape") + content)
    return digest.hexdigest()[:12]
