"""Descriptions that plugins announce; their classes are imported lazily."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pluggy

#: Entry-point group, and the name of the pluggy project.
PROJECT = "metabench"

#: The version of the plugin API: `metabench.api`, `metabench.specs` and the hooks. It goes up with every change that
#: breaks a working plugin.
API_VERSION = 2

#: Marks a plugin's function as the implementation of a hook of `metabench.registry.hookspecs`.
hookimpl = pluggy.HookimplMarker(PROJECT)


@dataclass(frozen=True)
class Spec:
    """Describes a class that a plugin provides.

    Attributes:
        name: the name that suites use, e.g. ``"protonet"``.
        target: the class, as ``"package.module:Class"``; imported on first use.
        summary: one line for `metabench list`.
        reference: author and year of the implemented paper, e.g. ``"Snell et al. 2017"``.
        link: URL of the paper.
        result_version: version of the results, compared instead of a hash of the code: change it whenever the code
            gives other results. Empty compares the code.
    """

    name: str
    target: str
    summary: str
    reference: str = ""
    link: str = ""
    result_version: str = ""


@dataclass(frozen=True)
class AlgorithmSpec(Spec):
    """Announces a `metabench.api.Algorithm`."""


@dataclass(frozen=True)
class BackboneSpec(Spec):
    """Announces a `metabench.api.Backbone`."""


@dataclass(frozen=True)
class DatasetSpec(Spec):
    """Announces a `metabench.api.Dataset`."""


@dataclass(frozen=True)
class LoggerSpec(Spec):
    """Announces a logger, which carries records to an experiment tracker.

    A logger is a class without constructor arguments whose methods implement the event hooks.

    Attributes:
        requires: what to ``pip install`` for the logger's optional imports, e.g. ``"metabench[mlflow]"``.
    """

    requires: str = ""


@dataclass(frozen=True)
class PublishedResult:
    """A published accuracy, shown beside the measured one.

    Attributes:
        algorithm: name of the algorithm, as its plugin announces it.
        dataset: name of the dataset.
        way: classes of a test episode (N).
        shot: support images of each class (K).
        accuracy: mean accuracy as a fraction.
        source: citation, e.g. ``"Snell et al. 2017, table 1"``.
        ci95: half the published 95 % interval, as a fraction; None where the source gives none.
        link: URL of the source.
        variant: values that a cell must have to show this result, by dotted path in its identity
            (``{"algorithm.params.first_order": True}``).
        protocol: further settings of the published experiment, by dotted path; a cell with another value shows the
            result with "*" and lists the difference.
        notes: differences that no setting of a cell expresses.
    """

    algorithm: str
    dataset: str
    way: int
    shot: int
    accuracy: float
    source: str
    ci95: float | None = None
    link: str = ""
    variant: Mapping[str, Any] = field(default_factory=dict)
    protocol: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Check the types and ranges of the fields.

        Raises:
            ValueError: an accuracy is not a fraction, settings are not a mapping, or a name is not text.
        """
        for name, value in (("accuracy", self.accuracy), ("ci95", 0.0 if self.ci95 is None else self.ci95)):
            if not (isinstance(value, (int, float)) and 0 <= value <= 1):
                raise ValueError(f"{name} of a published result must be a fraction between 0 and 1, not {value!r}")
        for name in ("variant", "protocol"):
            if not isinstance(getattr(self, name), Mapping):
                raise ValueError(f"{name} of a published result must be a mapping of settings to values")
        for name in ("algorithm", "dataset", "source", "link"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} of a published result must be text")


@dataclass(frozen=True)
class SuiteSpec:
    """Announces a suite, which `metabench run NAME` finds from anywhere.

    Attributes:
        name: the suite's name on the command line.
        path: the YAML file.
    """

    name: str
    path: Path
