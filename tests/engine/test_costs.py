"""Latencies: how many episodes are timed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from metabench.api import Config, Setup, Split, Support
from metabench.data.sampler import EpisodeShape
from metabench.engine import costs
from metabench.engine.streams import EpisodeStream
from metabench_plugins.algorithms.protonet import ProtoNet, ProtoNetConfig
from metabench_plugins.backbones.identity import Identity

CPU = torch.device("cpu")


class Counting(ProtoNet):
    """Notes how often it adapts."""

    adapted = 0

    def adapt(self, support: Support) -> Tensor:
        type(self).adapted += 1
        return super().adapt(support)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("seconds", "episodes", "adapted"), [(1e9, 100, 3 + 30 + 6), (1e9, 4, 3 + 4 + 6), (0.0, 100, 2 + 2)]
)
def test_as_many_episodes_are_timed_as_the_seconds_allow(
    monkeypatch: pytest.MonkeyPatch, seconds: float, episodes: int, adapted: int
) -> None:
    monkeypatch.setattr(costs, "LATENCY_SECONDS", seconds)
    split = Split(torch.rand(40, 3), torch.arange(6) * 8, [str(c) for c in range(5)])
    stream = EpisodeStream(split, EpisodeShape(way=2, shot=1, queries=2), "test", 0, CPU)
    learner = Counting(ProtoNetConfig(), Setup(Identity(Config(), (3,)), None, 2, 0)).eval()
    Counting.adapted = 0
    timed = costs.latencies(learner, stream, 0, CPU, episodes)
    assert Counting.adapted == adapted
    assert timed.adapt is not None
    assert 0 < timed.whole["p50"] <= timed.whole["p95"]
