"""Numbers and texts of a record, and what its parts have in common."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from metabench.specs import METRIC_NAME
from metabench.text import one_line, visible

#: Largest difference of a value that counts as another order of summation.
ROUNDING = 1e-9


def _measurable(cost: float) -> float:
    if 0 < cost < 1e-9:
        raise ValueError("smaller than any clock can tell")
    return cost


#: A share of 1.
Share = Annotated[float, Field(ge=0, le=1)]
#: The width of an interval; over few episodes, it may exceed 1.
Width = Annotated[float, Field(ge=0)]
#: A time or rate: ratios and sums of them stay finite.
Cost = Annotated[float, Field(ge=0, le=1e12), AfterValidator(_measurable)]
#: A number of things.
Count = Annotated[int, Field(ge=0, lt=2**63)]
#: ok; failed or skipped, with the reason in `Record.error`; invalid, if the results of a stored record are wrong.
Status = Literal["ok", "failed", "skipped", "invalid"]
#: A text without control characters, so that tables, pages and messages can show it.
Text = Annotated[str, AfterValidator(visible)]
#: A text in one line.
Line = Annotated[str, AfterValidator(one_line)]
#: The name of a metric.
MetricName = Annotated[str, Field(pattern=METRIC_NAME, max_length=80)]


class Part(BaseModel):
    """A part of a record: it has no unknown fields, and no number that is not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
