"""Import the files beside an unpackaged file."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from metabench.registry.code import files_of

#: Attribute of an imported neighbour: its folder, and the hashes of the neighbours that it was imported with.
_IMPORTED_WITH = "__metabench_imported_with__"


@contextmanager
def importable(path: Path) -> Iterator[None]:
    """Let a file import the files beside it.

    The folder stays the last one of `sys.path`, for imports inside functions: installed modules have precedence.
    A neighbour of another folder, or with other contents than before, is imported again.

    Args:
        path: the file that will be imported.
    """
    folder = str(path.parent)
    neighbours = {str(file): content for file, content in files_of(path.parent, path.stem).items() if file != path}
    for name, module in list(sys.modules.items()):
        other, imported = getattr(module, "__dict__", {}).get(_IMPORTED_WITH, (folder, {}))
        if other != folder or any(neighbours.get(file, content) != content for file, content in imported.items()):
            del sys.modules[name]
            sys.path[:] = [entry for entry in sys.path if entry != other or other == folder]
    if neighbours and folder not in sys.path:
        sys.path.append(folder)
    importlib.invalidate_caches()
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # its stamp has seconds: too coarse for an edit
    try:
        yield
    finally:
        sys.dont_write_bytecode = before
        for module in list(sys.modules.values()):
            if getattr(module, "__file__", None) in neighbours:
                setattr(module, _IMPORTED_WITH, (folder, neighbours))
