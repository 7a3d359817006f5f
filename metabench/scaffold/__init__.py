"""Writes a new plugin: a complete distribution that installs, passes its tests and runs in a suite as it is."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from metabench.errors import StoreError, UsageError
from metabench.registry.manager import PluginManager
from metabench.specs import Spec

KINDS = ("algorithm", "backbone", "dataset")

_NAME = r"[A-Za-z][A-Za-z0-9]*([-_.][A-Za-z0-9]+)*"


def write_plugin(name: str, kind: str, folder: Path, plugins: PluginManager) -> Path:
    """Write the distribution `name` into a directory of that name.

    Args:
        name: of the distribution, e.g. ``"metabench-myidea"``; a leading "metabench-" is not part of what it provides.
        kind: one of `KINDS`.
        folder: where the directory is made.
        plugins: what is installed; a name that it has is not taken again.

    Returns:
        The new directory. It is there whole, or not at all.

    Raises:
        UsageError: the name is not one of a distribution, or is taken.
        StoreError: the directory is there, or cannot be written.
    """
    if not re.fullmatch(_NAME, name):
        raise UsageError(f"'{name}' is no name for a distribution: use letters, digits and single '-', '_' or '.'")
    module = re.sub(r"[-.]", "_", name.lower())
    thing = module.removeprefix("metabench_")
    taken: dict[str, Mapping[str, Spec]] = {
        "algorithm": plugins.algorithms(),
        "backbone": plugins.backbones(),
        "dataset": plugins.datasets(),
    }
    if thing in taken[kind]:
        raise UsageError(
            f"the {kind} '{thing}' is there already, of {plugins.provider(kind, thing)}: take another name"
        )
    if thing[0].isdigit() or module in ("metabench", "metabench_plugins"):
        raise UsageError(f"'{name}' makes no name for a {kind}: take another one")
    cls = "".join(word.capitalize() for word in thing.split("_"))
    words = {
        "distribution": name,
        "module": module,
        "name": thing,
        "cls": cls,
        "kind": kind,
        "title": thing.replace("_", " ").capitalize(),
    }
    target = folder / name
    if target.exists():
        raise StoreError(f"{target} is there already: give another name, or remove it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder, prefix=".new-plugin-"))
        try:
            for template, path in _files(kind, module).items():
                (temporary / path).parent.mkdir(parents=True, exist_ok=True)
                (temporary / path).write_text(_render(template, words), encoding="utf-8")
            (temporary / module / "__init__.py").write_text(f'"""{words["title"]}."""\n', encoding="utf-8")
            (temporary / module / "py.typed").touch()
            temporary.chmod(0o755)
            temporary.replace(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise StoreError(f"cannot write {target}: {error.strerror}") from error
    return target


def _files(kind: str, module: str) -> dict[str, str]:
    """Return where each template goes."""
    return {
        "common/pyproject.toml": "pyproject.toml",
        "common/README.md": "README.md",
        "common/suite.yaml": "suite.yaml",
        "common/gitignore": ".gitignore",
        "common/workflow.yml": ".github/workflows/test.yml",
        "common/plugin.py": f"{module}/plugin.py",
        f"{kind}/{kind}.py": f"{module}/{kind}.py",
        f"{kind}/test.py": f"tests/test_{module}.py",
    }


def _render(template: str, words: dict[str, str]) -> str:
    text = (files("metabench.scaffold") / "templates" / f"{template}.jinja").read_text(encoding="utf-8")
    environment = Environment(  # source code, not HTML
        autoescape=False, keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    return environment.from_string(text).render(words)
