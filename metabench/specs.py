"""What a plugin announces: light descriptions with lazy targets, so that listing imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pluggy

#: Entry-point group, and the name of the pluggy project.
PROJECT = "metabench"

#: Marks a function of a plugin as the implementation of one of `metabench.hookspecs`.
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
class SuiteSpec:
    """Announces a suite that `metabench run NAME` finds from any folder.

    Attributes:
        name: its name on the command line.
        path: the YAML file.
    """

    name: str
    path: Path
