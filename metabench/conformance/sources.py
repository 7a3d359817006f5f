"""Check a source of episodes against the contract of `metabench.api.EpisodeSource`.

`metabench.testing.EpisodeSourceChecks` runs these checks under pytest, `metabench plugin check` on the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from metabench.api import EpisodeSource, SourceSplit
from metabench.conformance import checks
from metabench.conformance.checks import NotConforming
from metabench.data.sampler import EpisodeShape
from metabench.data.validation import SPLITS
from metabench.engine.sources import SourceStream
from metabench.registry.configs import validate_config
from metabench.registry.manager import PluginManager

_CPU = torch.device("cpu")
#: Shots and queries that are tried.
_SIZES = ((1, 1), (5, 10), (10, 3))


@dataclass(frozen=True)
class Subject:
    """The source to check.

    Attributes:
        name: name of the source, as its plugin announces it among the datasets, or ``FILE.py:CLASS``.
        params: its parameters.
        plugins: the plugin manager that provides the class.
    """

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)
    plugins: PluginManager = field(default_factory=PluginManager.from_environment)

    def build(self) -> EpisodeSource:
        """Return a new source."""
        cls = self.plugins.dataset_class(self.name)
        if not issubclass(cls, EpisodeSource):
            raise NotConforming("it is a Dataset, check it by metabench.testing.DatasetChecks")
        return cls(validate_config(cls.Config, dict(self.params)))

    def stream(self, split: str = "test", shot: int = 5, queries: int = 10) -> SourceStream:
        """Return the episodes of a new source."""
        return SourceStream(SourceSplit(self.build(), split), EpisodeShape(1, shot, queries), 0, _CPU)

    def made(self, split: str, shot: int, queries: int, first: int = 0, count: int = 4) -> tuple[Tensor, ...]:
        """Return support inputs and targets, then those of the queries, of some episodes."""
        drawn = self.stream(split, shot, queries).batch(first, count)
        return drawn.support_x, drawn.support_y, drawn.query_x, drawn.query_y


def check_parameters(subject: Subject) -> None:
    """Unknown parameters are refused by its Config."""
    checks.refuse_unknown_parameters(subject.plugins.dataset_class(subject.name).Config)


def check_shapes(subject: Subject) -> None:
    """Episodes of every split and size have the declared shapes, in finite float32 numbers."""
    for split in SPLITS:
        for shot, queries in _SIZES:
            subject.made(split, shot, queries)


def check_repeats(subject: Subject) -> None:
    """An episode is a function of its numbers: the same again, in any batch, whatever was drawn before."""
    for split in SPLITS:
        together = subject.made(split, 5, 10)
        stream = subject.stream(split)
        torch.manual_seed(1)
        later = stream.batch(2, 1)
        parts = (later.support_x, later.support_y, later.query_x, later.query_y)
        if not all(torch.equal(part[2:3], alone) for part, alone in zip(together, parts, strict=True)):
            raise NotConforming(
                f"an episode of '{split}' differs with its batch, or from one call to the next: compute it from its "
                "row of numbers only, keep nothing on self, and draw no random numbers"
            )


def check_queries(subject: Subject) -> None:
    """An episode with more queries has the same support set."""
    source = subject.build()
    begins = source.draws(5, 0)
    numbers = torch.rand(3, source.draws(5, 12), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    few = source.episodes(numbers[:, : source.draws(5, 2)], "test", 5, 2)
    many = source.episodes(numbers, "test", 5, 12)
    grows = begins < source.draws(5, 1)
    if not (grows and torch.equal(few.support_x, many.support_x) and torch.equal(few.support_y, many.support_y)):
        raise NotConforming(
            "the support set moves with the number of queries: let queries take the last numbers of a row, and draws "
            "grow with them"
        )


def check_variety(subject: Subject) -> None:
    """Episodes differ from each other."""
    targets = subject.made("train", 5, 10)[1]
    if torch.equal(targets[0], targets[1]):
        raise NotConforming("two episodes have the same targets: make them from their rows of numbers")


CHECKS: dict[str, Callable[[Subject], None]] = {
    "parameters": check_parameters,
    "shapes": check_shapes,
    "repeats": check_repeats,
    "queries": check_queries,
    "variety": check_variety,
}
