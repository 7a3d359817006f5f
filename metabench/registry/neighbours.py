"""Find and import the files beside an unpackaged file."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

#: Attribute of an imported neighbour: its folder, and the contents of the neighbours that it was imported with.
_IMPORTED_WITH = "__metabench_imported_with__"


def files_of(path: Path) -> dict[Path, bytes]:
    """Return a file and the files beside it that it imports, with their contents.

    The files are found by their import statements, transitively, without importing them. Of a package beside the file,
    all modules count.

    Raises:
        OSError: a file cannot be read.
    """
    contents: dict[Path, bytes] = {}
    waiting = [path]
    while waiting:
        file = waiting.pop()
        if file not in contents:
            contents[file] = file.read_bytes()
            waiting += [found for name in _imported(contents[file]) for found in _found(path.parent, name)]
    return contents


def _imported(source: bytes) -> Iterator[str]:
    """Yield the first parts of the names that a module imports absolutely; none of a module with a syntax error."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # importing it will tell
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _found(folder: Path, name: str) -> list[Path]:
    """Return the files of a module or package in a folder."""
    if (folder / name / "__init__.py").is_file():
        return sorted((folder / name).rglob("*.py"))
    return [folder / f"{name}.py"] if (folder / f"{name}.py").is_file() else []


@contextmanager
def importable(path: Path, contents: Mapping[Path, bytes]) -> Iterator[None]:
    """Let a file import the files beside it.

    The folder stays the last one of `sys.path`, for imports inside functions: installed modules have precedence.
    Neighbours of another folder, and those imported with other contents, are imported again.

    Args:
        path: the file that will be imported.
        contents: the result of `files_of`.
    """
    folder = str(path.parent)
    neighbours = {str(file): content for file, content in contents.items() if file != path}
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
