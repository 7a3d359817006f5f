"""Fill in the templates of HTML pages."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader


def render(template: str, **values: Any) -> str:
    """Return a template filled in; values are escaped.

    Args:
        template: its path in this package, e.g. ``"report/page.html"``.
        values: the values that it names.
    """
    environment = Environment(
        loader=PackageLoader("metabench.reporting", ""), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template).render(values)


def asset(name: str) -> str:
    """Return a style sheet or script by its path in this package."""
    return (files("metabench.reporting") / name).read_text(encoding="utf-8")
