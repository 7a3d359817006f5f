"""Base class of plugin parameters."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Config(BaseModel):
    """Parameters that a suite may set: typed, frozen, without unknown names."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=True, allow_inf_nan=False)


def at_test(default: Any, **constraints: Any) -> Any:
    """Declare a parameter of an algorithm that only a test uses.

    It is no part of a training: cells that differ in it share their training, and each selects its own weights. Read it
    from `Algorithm.config` whenever it is needed, and only after ``eval()``; the harness sets it for each test.

    Args:
        default: the default value.
        constraints: see `pydantic.Field`, e.g. ``ge=1``.
    """
    return Field(default, json_schema_extra={"test_time": True}, **constraints)
