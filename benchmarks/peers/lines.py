"""List the lines of the table and their contestants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

METABENCH, BFLOAT16, TEXTBOOK, MATMUL = "metabench", "metabench bf16", "textbook loop", "matmul"


@dataclass(frozen=True)
class Entrant:
    """A contestant of a line, before its worker is started.

    Attributes:
        label: name in the table; of entrants with the same label, the fastest of each round counts.
        factory: ``module:function`` that makes the `contestants.Contestant`; only workers import it.
        arguments: arguments of the factory, in addition to the folder with the data.
        package: package that the factory imports; None for torch and metabench alone.
    """

    label: str
    factory: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    package: str | None = None

    @property
    def detail(self) -> str:
        """Return label and arguments, which are unique within a line."""
        return " ".join([self.label, *(f"{name}={value}" for name, value in self.arguments.items())])


@dataclass(frozen=True)
class Line:
    """One line of the comparison.

    Attributes:
        name: name for ``--only``.
        title: title in the table.
        entrants: the entrants.
        reference: label whose check the others are compared with; None without a check.
        compares_labels: whether checks are predicted labels, which are equal or not, rather than values.
    """

    name: str
    title: str
    entrants: tuple[Entrant, ...]
    reference: str | None = None
    compares_labels: bool = False


def all_lines() -> list[Line]:
    """Return all lines in table order."""
    return [
        Line(
            "protonet",
            "ProtoNet evaluation, data included",
            (*_metabench("protonet_evaluation"), *_easyfsl("protonet_evaluation"), _matmul()),
            reference="easyfsl",
            compares_labels=True,
        ),
        Line(
            "matchingnet",
            "MatchingNet (full context) evaluation, data included",
            (*_metabench("matchingnet_evaluation"), *_easyfsl("matchingnet_evaluation"), _matmul()),
            reference="easyfsl",
            compares_labels=True,
        ),
        Line(
            "maml",
            "MAML second-order training step, data prepared",
            (*_metabench("maml_step"), *_maml_peers("maml_step"), _matmul()),
            TEXTBOOK,
        ),
        Line(
            "maml-data",
            "MAML second-order training step, data included",
            (*_metabench("maml_step_with_data"), _learn2learn("maml_step_with_data"), _matmul()),
        ),
        Line(
            "maml-test",
            "MAML adaptation in 5 steps and prediction, data prepared",
            (*_metabench("maml_adaptation"), *_maml_peers("maml_adaptation"), _matmul()),
            TEXTBOOK,
        ),
        Line(
            "episodes",
            "Episodes drawn and loaded",
            (Entrant(METABENCH, "peer_metabench:episodes"), _learn2learn("episodes"), *_easyfsl("episodes")),
        ),
    ]


def _metabench(function: str) -> tuple[Entrant, ...]:
    factory = f"peer_metabench:{function}"
    return (
        Entrant(METABENCH, factory, {"precision": "float32"}),
        Entrant(BFLOAT16, factory, {"precision": "bf16"}),
    )


def _easyfsl(function: str) -> tuple[Entrant, ...]:
    factory = f"peer_easyfsl:{function}"
    return tuple(Entrant("easyfsl", factory, {"loaders": loaders}, "easyfsl") for loaders in (0, 2))


def _learn2learn(function: str) -> Entrant:
    return Entrant("learn2learn", f"peer_learn2learn:{function}", package="learn2learn")


def _maml_peers(function: str) -> tuple[Entrant, ...]:
    return (
        _learn2learn(function),
        Entrant("higher", f"peer_higher:{function}", package="higher"),
        Entrant(TEXTBOOK, f"peer_textbook:{function}"),
    )


def _matmul() -> Entrant:
    return Entrant(MATMUL, "peer_matmul:product")
