"""Hash the code of a class: its module, and what the module imports of its own distribution."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.metadata import packages_distributions
from pathlib import Path

#: The core is not hashed: each of its commits would change the hash of every plugin.
_CORE = "metabench"

#: A stamp of a file: inode, size and time.
_Stamp = tuple[int, int, int]


def code_hash(target: type | str | Path) -> str:
    """Return a hash of the code behind a class.

    The hash covers the file of the class, the files of its own distribution (for a class in a file: the files beside
    it) that the file imports, directly or through others, and the ``__init__`` of their packages. Imports are found in
    the source text: nothing is imported. Modules that are named only when the code runs are not found. The hash depends
    neither on the folder of the code nor on how lines end.

    Args:
        target: a class, ``"package.module"``, ``"package.module:Class"``, or the path of a file.

    Returns:
        16 hexadecimal digits; where the module has no file, the hash of no code.

    Raises:
        OSError: a file cannot be read.
    """
    located = _located(target)
    digest = hashlib.sha256()
    if located is not None:
        root, module = located
        for path, content in files_of(root, module).items():
            digest.update(f"{path.relative_to(root).as_posix()} {content}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


def files_of(root: Path, module: str) -> dict[Path, str]:
    """Return the hashes of the files of a module and of all that it imports below a folder, sorted by path."""
    return {path: _read(str(path), _stamp(path))[0] for path in sorted(_closure(root, module))}


def _located(target: type | str | Path) -> tuple[Path, str] | None:
    """Return the folder that holds a target's top-level module, and the module's dotted name below it."""
    if isinstance(target, Path):
        return target.parent, target.stem
    if isinstance(target, str):
        module = target.partition(":")[0]
        folder = _folder_of(module.split(".")[0])
        return (folder, module) if folder else None
    module = target.__module__
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        return None
    path = Path(file)
    parts = module.split(".")
    if path.stem == "__init__":
        return path.parents[len(parts)], module
    # A class in a file has a module name that is not the file's.
    return path.parents[len(parts) - 1], ".".join([*parts[:-1], path.stem])


def _folder_of(top: str) -> Path | None:
    """Return the folder that holds a top-level module; None if there is none."""
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    places = spec.submodule_search_locations  # of a package; None for a module
    place = next(iter(places), None) if places is not None else spec.origin
    return Path(place).parent if place else None


def _closure(root: Path, module: str) -> set[Path]:
    """Return the files of a module and of all that it imports below `root`."""
    found: set[Path] = set()
    waiting = list(_files(root, module))
    own = _siblings(root, module.split(".", maxsplit=1)[0])
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        _, imports = _read(str(path), _stamp(path))
        package = path.parent.relative_to(root).parts
        for level, name in imports:
            above = package[: len(package) - level + 1] if level else ()
            imported = ".".join([*above, name]) if name else ".".join(above)
            top = imported.split(".")[0]
            if top and top != _CORE and (own is None or top in own):
                waiting += _files(root, imported)
    return found


def _files(root: Path, module: str) -> Iterator[Path]:
    """Yield the files that importing ``a.b.c`` below `root` runs: of a, of a.b and of a.b.c."""
    folder = root
    for part in module.split("."):
        names = [f"{part}/__init__.py", f"{part}.py", *(f"{part}{suffix}" for suffix in EXTENSION_SUFFIXES)]
        file = next((folder / name for name in names if (folder / name).is_file()), None)
        if file is not None:
            yield file
        folder = folder / part


def _siblings(root: Path, top: str) -> set[str] | None:
    """Return the top-level modules of the distribution of `top`; None means all in `root`.

    A folder of source code holds one project; a folder of installed packages holds many distributions.
    """
    if root.resolve() not in _install_folders():
        return None
    distributions = _distributions()
    mine = set(distributions.get(top, ()))
    return {top, *(name for name, owners in distributions.items() if mine.intersection(owners))}


@cache
def _install_folders() -> frozenset[Path]:
    folders = [*site.getsitepackages(), site.getusersitepackages(), *map(sysconfig.get_path, ("purelib", "platlib"))]
    standard = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")]
    return frozenset(Path(folder).resolve() for folder in [*folders, *standard])


def distribution_of(module: str) -> str | None:
    """Return the name of the installed distribution of a module; None of code that is not installed."""
    return next(iter(_distributions().get(module.partition(".")[0], ())), None)


@cache
def _distributions() -> dict[str, Iterable[str]]:
    return dict(packages_distributions())


def _stamp(path: Path) -> _Stamp:
    status = os.stat(path)
    return status.st_ino, status.st_size, status.st_mtime_ns


@cache
def _read(path: str, stamp: _Stamp) -> tuple[str, tuple[tuple[int, str], ...]]:
    """Return the hash of a file, and its imports as (level, dotted name); read again when its stamp changes."""
    content = Path(path).read_bytes()
    if not path.endswith(".py"):
        return hashlib.sha256(content).hexdigest(), ()
    digest = hashlib.sha256(content.replace(b"\r\n", b"\n")).hexdigest()
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):  # importing it will report the mistake
        return digest, ()
    return digest, tuple(dict.fromkeys(_imports(tree)))


def _imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield every import; a name that is imported from a module may be a module itself."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            yield node.level, base
            yield from ((node.level, f"{base}.{alias.name}" if base else alias.name) for alias in node.names)
