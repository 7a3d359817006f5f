"""Describe one plugin: its docs, parameters and defaults."""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from metabench.errors import in_one_line
from metabench.registry.file_classes import absolute, is_local
from metabench.registry.manager import PluginManager

if TYPE_CHECKING:  # imports torch
    from metabench.api import Config

#: Columns of a description.
_WIDTH = 100


def describe(name: str, plugins: PluginManager) -> str:
    """Return docs and parameters of an algorithm, backbone, dataset, logger, metric or engine.

    Args:
        name: its name, or ``FILE.py:CLASS``.
        plugins: the provider of the class.

    Raises:
        PluginError: no plugin provides the name, or its class cannot be imported.
    """
    if is_local(name):
        name = absolute(name, Path.cwd())
    kind = plugins.kind_of(name)
    cls = getattr(plugins, f"{kind}_class")(name)
    spec = {
        **plugins.engines(),
        **plugins.metrics(),
        **plugins.loggers(),
        **plugins.datasets(),
        **plugins.backbones(),
        **plugins.algorithms(),
    }.get(name)
    source = [spec.reference, spec.link] if spec else []
    lines = [f"{name}: {kind} of {plugins.provider(kind, name)} ({cls.__module__}:{cls.__qualname__})"]
    lines += [", ".join(filter(None, source))] if any(source) else []
    parameters = "parameters: none" if kind in ("logger", "metric", "engine") else _parameters(cls.Config)
    return "\n".join([*lines, "", _docs(cls), "", parameters])


def _docs(cls: type) -> str:
    """Return the docstring of a class itself, without a description of its arguments."""
    text = inspect.cleandoc(cls.__doc__ or "")
    return re.split(r"\n\n(?:Args|Attributes|Raises):\n", text)[0] or "(no docs)"


def _parameters(config: type[Config]) -> str:
    """Return a table of the parameters."""
    try:
        schema = config.model_json_schema()
    except Exception as error:  # pydantic's, or that of a plugin's type
        return f"parameters: cannot be listed ({in_one_line(error)})"
    properties: Mapping[str, Mapping[str, Any]] = schema.get("properties", {})
    if not properties:
        return "parameters: none"
    docs = _attribute_docs(config)
    rows = [
        [name, _type(field), json.dumps(field["default"]) if "default" in field else "(must be given)"]
        for name, field in properties.items()
    ]
    width = _WIDTH - sum(max(len(row[column]) for row in rows) + 2 for column in range(3)) - 2
    wrapped = [[*row, "\n".join(textwrap.wrap(docs.get(row[0], ""), max(30, width)))] for row in rows]
    table = tabulate(wrapped, tablefmt="plain", disable_numparse=True)
    return "parameters:\n" + textwrap.indent(table, "  ")


def _type(field: Mapping[str, Any]) -> str:
    """Return the type of a parameter and its bounds, e.g. ``"integer > 0"``."""
    if "anyOf" in field:
        return " or ".join(_type(option) for option in field["anyOf"])
    if "enum" in field or "const" in field:
        return " | ".join(json.dumps(value) for value in field.get("enum", [field.get("const")]))
    words = [str(field.get("type", "any"))]
    bounds = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    words += [f"{sign} {field[key]:g}" for key, sign in bounds.items() if key in field]
    return " ".join(words)


def _attribute_docs(config: type) -> dict[str, str]:
    """Return the docs of a Config's attributes, inherited ones included."""
    docs: dict[str, str] = {}
    for cls in reversed(config.__mro__):
        _, _, text = inspect.cleandoc(vars(cls).get("__doc__") or "").partition("Attributes:\n")
        for match in re.finditer(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", text, re.MULTILINE):
            docs[match[1]] = " ".join(match[2].split())
    return docs
