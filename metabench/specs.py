"""What a plugin announces: light descriptions with lazy targets, so that listing imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pluggy

#: Entry-point group, and the name of the pluggy project.
PROJECT = "metabench"

#: The version of what plugins are written against: `metabench.api`, `metabench.specs` and the hooks. It goes up
#: when a plugin that worked would no longer work.
API_VERSION = 1

#: Marks a function of a plugin as the implementation of one of `metabench.registry.hookspecs`.
hookimpl = pluggy.HookimplMarker(PROJECT)


@dataclass(frozen=True)
class Spec:
    """One thing that a plugin provides.

    Attributes:
        name: how suites name it, e.g. ``"protonet"``.
        target: where the class is, as ``"package.module:Class"``; imported only when it is used.
        summary: one line for `metabench list`.
        reference: author and year of the paper it implements, e.g. ``"Snell et al. 2017"``.
        link: where that paper is.
    """

    name: str
    target: str
    summary: str
    reference: str = ""
    link: str = ""


@dataclass(frozen=True)
class AlgorithmSpec(Spec):
    """Announces an `metabench.api.Algorithm`."""


@dataclass(frozen=True)
class BackboneSpec(Spec):
    """Announces a `metabench.api.Backbone`."""


@dataclass(frozen=True)
class DatasetSpec(Spec):
    """Announces a `metabench.api.Dataset`."""


@dataclass(frozen=True)
class LoggerSpec(Spec):
    """Announces a logger: a class, made without arguments, whose methods implement the hooks of events.

    Attributes:
        requires: what ``pip install`` brings what it imports, where that is optional: ``"metabench[mlflow]"``.
    """

    requires: str = ""


@dataclass(frozen=True)
class PublishedResult:
    """An accuracy that somebody published, to stand beside the measured one.

    Attributes:
        algorithm: name of the algorithm, as its plugin announces it.
        dataset: name of the dataset.
        way: N.
        shot: K.
        accuracy: as a fraction.
        source: where it was read, e.g. ``"Snell et al. 2017, table 1"``.
        ci95: half its 95 % interval; None where none was published.
        link: where the source is.
        variant: settings of a cell, by their dotted path in its identity (``"algorithm.params.first_order"``), that
            say which variant of the algorithm it is; for a cell with other values the figure is not shown.
        protocol: further settings that the figure was made with; where the cell's differ, that is said beside it.
        notes: what else differs, and no setting can say.
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
        """Check what is easily got wrong.

        Raises:
            ValueError: an accuracy is no fraction, or the settings are no mapping.
        """
        for name, value in (("accuracy", self.accuracy), ("ci95", 0.0 if self.ci95 is None else self.ci95)):
            if not (isinstance(value, (int, float)) and 0 <= value <= 1):
                raise ValueError(f"{name} of a published result is a fraction between 0 and 1, not {value!r}")
        for name in ("variant", "protocol"):
            if not isinstance(getattr(self, name), Mapping):
                raise ValueError(f"{name} of a published result is a mapping of settings to values")
        for name in ("algorithm", "dataset", "source", "link"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} of a published result is text")


@dataclass(frozen=True)
class SuiteSpec:
    """Announces a suite that `metabench run NAME` finds from any folder.

    Attributes:
        name: its name on the command line.
        path: the YAML file.
    """

    name: str
    path: Path
