"""Load classes from unpackaged files: ``./idea.py:MyAlgorithm``."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from metabench.errors import PluginError


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
    """Loads classes from files; reads a file again only when its size or time changed."""

    def __init__(self) -> None:
        self._digests: dict[str, tuple[tuple[int, int, int], str]] = {}

    def load(self, name: str) -> Any:
        """Import the file and return its class.

        The module's name contains a hash of the file's content, so a changed file is imported again.

        Raises:
            PluginError: the file cannot be read, or does not define the class.
            Exception: whatever importing the file raises.
        """
        path, _, attribute = name.rpartition(":")
        module_name = f"metabench_local_{Path(path).stem}_{self._digest(path)}"
        if module_name not in sys.modules:
            spec = importlib.util.spec_from_file_location(module_name, path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[module_name] = module  # pickle and dataclasses look modules up here
            try:
                spec.loader.exec_module(module)
            except BaseException:
                del sys.modules[module_name]
                raise
        cls = getattr(sys.modules[module_name], attribute, None)
        if cls is None:
            raise PluginError(f"there is no {attribute} in {path}: name a class that the file defines")
        return cls

    def version(self, name: str) -> str:
        """Return the file's name and a hash of its content.

        Records store this as the version of the class that they were made with.
        """
        path, _, _ = name.rpartition(":")
        return f"{Path(path).name} {self._digest(path)}"

    def _digest(self, path: str) -> str:
        try:
            status = os.stat(path)
            stamp = status.st_ino, status.st_size, status.st_mtime_ns
            if path not in self._digests or self._digests[path][0] != stamp:
                self._digests[path] = stamp, hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]
            return self._digests[path][1]
        except OSError as error:
            raise PluginError(f"cannot read {path}: {error.strerror}. Correct the path") from error
