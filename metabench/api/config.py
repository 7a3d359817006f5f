"""Base class of plugin parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from metabench.specs import SearchRange


class Config(BaseModel):
    """Parameters that a suite may set: typed, frozen, without unknown names.

    Attributes:
        search_space: what ``metabench tune`` searches, by name of a parameter; only algorithms are tuned.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=True, allow_inf_nan=False)

    search_space: ClassVar[Mapping[str, SearchRange]] = {}


def at_test(default: Any, **constraints: Any) -> Any:
    """Declare a parameter of an algorithm that only a test uses.

    It is no part of a training: cells that differ in it share their training, and each selects its own weights. Read it
    from `Algorithm.config` whenever it is needed, and only after ``eval()``; the harness sets it for each test.

    Args:
        default: the default value.
        constraints: see `pydantic.Field`, e.g. ``ge=1``.
    """
    return Field(default, json_schema_extra={"test_time": True}, **constraints)
