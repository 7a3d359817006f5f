"""Check a source of episodes against the contract of `metabench.api.EpisodeSource`.

`metabench.testing.EpisodeSourceChecks` runs these checks under pytest, `metabench plugin check` on the command line.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from metabench.api import EpisodeSource, SourceSplit
from metabench.conformance import checks
from metabench.conformance.checks import NotConforming
from metabench.data.packing import DataRoots, load_splits
from metabench.data.sampler import EpisodeShape
from metabench.data.validation import SPLITS
from metabench.engine.sources import SourceStream
from metabench.registry.configs import validate_config
from metabench.registry.manager import PluginManager

_CPU = torch.device("cpu")
#: Shots and queries that are tried, or as many as there are.
_SHOT, _QUERIES = 5, 12


@dataclass(frozen=True)
class Subject:
    """The source to check.

    Attributes:
        name: name of the source, as its plugin announces it among the datasets, or ``FILE.py:CLASS``.
        params: its parameters.
        plugins: the plugin manager that provides the class.
        roots: folders of raw data and packs, of a dataset whose source reads its pack.
    """

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)
    plugins: PluginManager = field(default_factory=PluginManager.from_environment)
    roots: DataRoots = field(default_factory=lambda: DataRoots.from_environment(os.environ))

    def build(self) -> EpisodeSource:
        """Return a new source."""
        cls = self.plugins.dataset_class(self.name)
        if not cls.makes_episodes:
            raise NotConforming("it has classes, check it by metabench.testing.DatasetChecks")
        built = cls(validate_config(cls.Config, dict(self.params)))
        split = load_splits(self.name, built, self.roots, lambda done, total, what: None).splits["test"]
        assert isinstance(split, SourceSplit), "the splits of a source are checked when they are loaded"
        return split.source

    def size(self) -> tuple[int, int]:
        """Return the largest numbers of shots and queries that are tried."""
        at_most = self.build().at_most
        if at_most is None:
            return _SHOT, _QUERIES
        shot = max(1, min(_SHOT, at_most // 2))
        return shot, min(_QUERIES, at_most - shot)

    def stream(self, split: str, shot: int, queries: int) -> SourceStream:
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
    shot, queries = subject.size()
    for split in SPLITS:
        for size in {(1, 1), (shot, 1), (1, queries), (shot, queries)}:
            subject.made(split, *size)


def check_repeats(subject: Subject) -> None:
    """An episode is a function of its numbers: the same again, in any batch, whatever was drawn before."""
    size = subject.size()
    for split in SPLITS:
        together = subject.made(split, *size)
        stream = subject.stream(split, *size)
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
    source, (shot, queries) = subject.build(), subject.size()
    begins = source.draws(shot, 0)
    numbers = torch.rand(
        3, source.draws(shot, queries), dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    few = source.episodes(numbers[:, : source.draws(shot, 1)], "test", shot, 1)
    many = source.episodes(numbers, "test", shot, queries)
    grows = begins < source.draws(shot, 1)
    if not (grows and torch.equal(few.support_x, many.support_x) and torch.equal(few.support_y, many.support_y)):
        raise NotConforming(
            "the support set moves with the number of queries: let queries take the last numbers of a row, and draws "
            "grow with them"
        )


def check_variety(subject: Subject) -> None:
    """Episodes differ from each other."""
    targets = subject.made("train", *subject.size())[1]
    if torch.equal(targets[0], targets[1]):
        raise NotConforming("two episodes have the same targets: make them from their rows of numbers")


CHECKS: dict[str, Callable[[Subject], None]] = {
    "parameters": check_parameters,
    "shapes": check_shapes,
    "repeats": check_repeats,
    "queries": check_queries,
    "variety": check_variety,
}
