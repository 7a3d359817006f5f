"""Cells that a suite leaves out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, model_validator

from metabench.errors import shown
from metabench.filters import hint, passes, selects
from metabench.planning.limits import limits_of

if TYPE_CHECKING:  # `suite` imports this module
    from metabench.planning.suite import Suite
    from metabench.planning.suite_file import SuiteFile


class Exclusion(BaseModel):
    """A pattern; it matches a cell whose labels match all its keys.

    It has the keys of ``--only``; None matches every label. A label also matches the entries of its grid.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    algorithm: str | None = None
    dataset: str | None = None
    backbone: str | None = None
    trained_on: str | None = None
    way: int | None = None
    shot: int | None = None
    seed: int | None = None

    @model_validator(mode="after")
    def _not_empty(self) -> Exclusion:
        if not self.labels:
            raise ValueError(f"a pattern has at least one of the keys {', '.join(type(self).model_fields)}")
        return self

    @property
    def labels(self) -> dict[str, str]:
        """Return the labels of the pattern, by key."""
        return {key: str(value) for key, value in self if value is not None}

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether a cell with these labels is left out."""
        return passes(labels, {key: [label] for key, label in self.labels.items()})


def check_exclusions(suite: Suite, file: SuiteFile) -> None:
    """Check that every pattern matches cells of the suite.

    The cells are a product, so a pattern matches some if the suite has its labels.

    Raises:
        SuiteError: the suite has no such label; with the line of the pattern.
    """
    known = {
        "algorithm": [
            name
            for label in suite.algorithms
            for name in (label, *(limit.label(label) for limit in limits_of(suite, label) if limit.names))
        ],
        "dataset": list(suite.datasets),
        "backbone": list(suite.backbones),
        "trained_on": list(suite.datasets),
        "way": list(map(str, suite.ways or [1])),
        "shot": list(map(str, suite.shots)),
        "seed": list(map(str, suite.seeds)),
    }
    profile = f" with profile '{suite.profile}'" if suite.profile else ""
    for i, pattern in enumerate(suite.exclude):
        for key, label in pattern.labels.items():
            if not any(selects(label, other) for other in known[key]):
                raise file.error(
                    ("exclude", i, key),
                    f"it matches no cell: the suite{profile} has no {key} '{shown(label)}'{hint(label, known[key])}",
                )
