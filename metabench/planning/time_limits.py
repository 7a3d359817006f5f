"""Most time of a training and of a test, after which it fails."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from metabench.text import duration

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _seconds(value: Any) -> Any:
    """Read a duration: a number of seconds, or a number with its unit, e.g. ``90``, ``"10m"`` or ``"1.5h"``."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([smhd])", value.strip())
    if not found:
        raise ValueError('a duration is a number of seconds, or a number with s, m, h or d, e.g. "10m"')
    return float(found[1]) * _UNITS[found[2]]


#: A time in seconds; a suite may write it with a unit.
Duration = Annotated[float, BeforeValidator(_seconds), Field(gt=0, allow_inf_nan=False)]


class Limits(BaseModel):
    """Most time of a training and of a test by the clock of its worker; a longer one fails its cells.

    Results do not depend on them.

    Attributes:
        training: most seconds of a training with its validations; None sets no limit.
        test: most seconds of the test of a cell; None sets no limit.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    training: Duration | None = None
    test: Duration | None = None

    def of(self, stage: str) -> float | None:
        """Return the limit of a stage, ``"training"`` or ``"test"``; None without one."""
        return self.training if stage == "training" else self.test

    def tightened(self, other: Limits) -> Limits:
        """Return the smaller limits of both."""
        pairs = ((self.training, other.training), (self.test, other.test))
        training, test = (min((limit for limit in pair if limit is not None), default=None) for pair in pairs)
        return Limits(training=training, test=test)

    def problem(self, stage: str) -> str:
        """Return the reason of a failure: the stage took longer than its limit."""
        return f"the {stage} took longer than its limit of {duration(self.of(stage) or 0.0)} (limits.{stage})"
