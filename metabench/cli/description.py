"""Describe one plugin: its docs, parameters and defaults, as text or as a page in Markdown."""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from metabench.errors import in_one_line
from metabench.registry.configs import search_space, test_time_names
from metabench.registry.file_classes import absolute, is_local
from metabench.registry.manager import PluginManager
from metabench.specs import AlgorithmSpec, Spec

if TYPE_CHECKING:  # imports torch
    from metabench.api import Config

#: Columns of a description as text.
_WIDTH = 100


@dataclass(frozen=True)
class Parameter:
    """A parameter of a plugin.

    Attributes:
        name: its name.
        type: its type and bounds, e.g. ``"integer > 0"``.
        default: the default as JSON, or that it must be given.
        docs: its meaning.
        at_test: whether only a test uses it (`metabench.api.at_test`).
        search: what ``metabench tune`` searches for it; empty if nothing.
    """

    name: str
    type: str
    default: str
    docs: str
    at_test: bool
    search: str = ""


@dataclass(frozen=True)
class Description:
    """What is known of a plugin without running it.

    Attributes:
        name: its name.
        kind: algorithm, backbone, dataset, logger, metric, engine or executor.
        provider: the distribution that provides it.
        target: module and name of its class.
        spec: its announcement; None of a class in a file.
        docs: the docstring of the class.
        traits: what an algorithm is and needs, a clause each.
        parameters: its parameters, or why they cannot be listed.
    """

    name: str
    kind: str
    provider: str
    target: str
    spec: Spec | None
    docs: str
    traits: Sequence[str]
    parameters: Sequence[Parameter] | str


def describe(name: str, plugins: PluginManager) -> Description:
    """Describe an algorithm, backbone, dataset, logger, metric, engine or executor.

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
    specs: Mapping[str, Spec] = {
        **plugins.engines(),
        **plugins.executors(),
        **plugins.metrics(),
        **plugins.loggers(),
        **plugins.datasets(),
        **plugins.backbones(),
        **plugins.algorithms(),
    }
    return Description(
        name=name,
        kind=kind,
        provider=plugins.provider(kind, name),
        target=f"{cls.__module__}:{cls.__qualname__}",
        spec=specs.get(name),
        docs=_docs(cls),
        traits=_traits(cls) if kind == "algorithm" else (),
        parameters=() if kind in ("logger", "metric", "engine") else _parameters(cls.Config),
    )


def as_text(found: Description) -> str:
    """Return a description as text for a terminal."""
    lines = [f"{found.name}: {found.kind} of {found.provider} ({found.target})"]
    source = [found.spec.reference, found.spec.link] if found.spec else []
    lines += [", ".join(filter(None, source))] if any(source) else []
    lines += ["", found.docs]
    if isinstance(found.spec, AlgorithmSpec) and found.spec.differs:
        lines += [
            "",
            "differs from the paper:",
            *(
                textwrap.fill(line, _WIDTH, initial_indent="  ", subsequent_indent="    ")
                for line in found.spec.differs
            ),
        ]
    if isinstance(found.parameters, str) or not found.parameters:
        return "\n".join([*lines, "", f"parameters: {found.parameters or 'none'}"])
    rows = [[parameter.name, parameter.type, parameter.default] for parameter in found.parameters]
    width = _WIDTH - sum(max(len(row[column]) for row in rows) + 2 for column in range(3)) - 2
    wrapped = [
        [*row, "\n".join(textwrap.wrap(_docs_and_search(parameter), max(30, width)))]
        for row, parameter in zip(rows, found.parameters, strict=True)
    ]
    table = tabulate(wrapped, tablefmt="plain", disable_numparse=True)
    return "\n".join([*lines, "", "parameters:", textwrap.indent(table, "  ")])


def _docs_and_search(parameter: Parameter) -> str:
    return f"{parameter.docs} [tune: {parameter.search}]".lstrip() if parameter.search else parameter.docs


def as_markdown(found: Description) -> str:
    """Return a description as a page in Markdown."""
    spec = found.spec
    lines = [f"# {found.name}", ""]
    if spec and spec.reference:
        lines += [f"[{spec.reference}]({spec.link})" if spec.link else spec.reference, ""]
    lines += [found.docs.replace("``", "`"), "", f"`{found.target}`, of {found.provider}.", ""]
    lines += [f"- {trait}" for trait in found.traits] + ([""] if found.traits else [])
    if isinstance(spec, AlgorithmSpec) and spec.differs:
        lines += ["## Differences from the paper", "", *(f"- {line}" for line in spec.differs), ""]
    lines += ["## Parameters", ""]
    if isinstance(found.parameters, str):
        return "\n".join([*lines, found.parameters])
    if not found.parameters:
        return "\n".join([*lines, "None."])
    titles = ["parameter", "type", "default", "used in", "tune searches", "meaning"]
    rows = [
        [
            f"`{parameter.name}`",
            _cell(parameter.type),
            f"`{parameter.default}`",
            "test" if parameter.at_test else "training" if found.kind == "algorithm" else "",
            parameter.search,
            _cell(parameter.docs),
        ]
        for parameter in found.parameters
    ]
    if not any(parameter.search for parameter in found.parameters):
        titles, rows = titles[:4] + titles[5:], [row[:4] + row[5:] for row in rows]
    return "\n".join([*lines, tabulate(rows, titles, tablefmt="github", disable_numparse=True)])


def _cell(text: str) -> str:
    """Return a text for a cell of a table in Markdown."""
    return text.replace("``", "`").replace("|", "\\|")


def _docs(cls: type) -> str:
    """Return the docstring of a class itself, without a description of its arguments."""
    text = inspect.cleandoc(cls.__doc__ or "")
    return re.split(r"\n\n(?:Args|Attributes|Raises):\n", text)[0] or "(no docs)"


def _traits(cls: Any) -> list[str]:
    """Return what an algorithm trains on, reads and serves; see `metabench.api.Algorithm`."""
    trained = {
        "episodes": "trains on episodes",
        "images": "trains on labelled images of all training classes",
        "nothing": "trains on nothing: it is tested on the weights of others, or of a pretrained backbone",
    }
    return [
        trained.get(cls.trains_on, f"trains on {cls.trains_on}"),
        "reads features of the backbone" if cls.reads == "features" else "reads images",
        f"tasks: {', '.join(cls.tasks)}",
        "one training serves tests of any way" if cls.any_way else "is tested in the way that it is built for",
        "draws random numbers" if cls.draws else "draws no random numbers",
    ]


def _parameters(config: type[Config]) -> list[Parameter] | str:
    """Return the parameters, or why they cannot be listed."""
    try:
        schema = config.model_json_schema()
    except Exception as error:  # pydantic's, or that of a plugin's type
        return f"cannot be listed ({in_one_line(error)})"
    properties: Mapping[str, Mapping[str, Any]] = schema.get("properties", {})
    docs, at_test, searched = _attribute_docs(config), test_time_names(config), search_space(config)
    return [
        Parameter(
            name,
            _type(field),
            json.dumps(field["default"]) if "default" in field else "(must be given)",
            docs.get(name, ""),
            name in at_test,
            str(searched.get(name, "")),
        )
        for name, field in properties.items()
    ]


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
