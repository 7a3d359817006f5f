"""Episodes that a source makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from metabench.api import Config, Episodes, SourceSplit
from metabench.conformance.regressors import Planes
from metabench.data.sampler import EpisodeShape
from metabench.engine.sources import SourceStream
from metabench.errors import CellFailed

CPU = torch.device("cpu")


def stream(split: str = "test", seed: int = 0, shot: int = 3, queries: int = 4) -> SourceStream:
    return SourceStream(SourceSplit(Planes(Config()), split), EpisodeShape(1, shot, queries), seed, CPU)


def parts(episodes: Episodes) -> tuple[Tensor, ...]:
    return episodes.support_x, episodes.support_y, episodes.query_x, episodes.query_y


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**12), st.integers(1, 6), st.integers(0, 5))
def test_an_episode_is_a_function_of_its_number(first: int, count: int, later: int) -> None:
    later = min(later, count - 1)
    together, alone = stream().batch(first, count), stream().batch(first + later, 1)
    for whole, one in zip(parts(together), parts(alone), strict=True):
        assert torch.equal(whole[later : later + 1], one)


def test_splits_seeds_and_sizes_have_other_episodes() -> None:
    streams = [stream(), stream("train"), stream("val"), stream(seed=1), stream(shot=4), stream(queries=5)]
    first = {tuple(one.batch(0, 1).support_y.flatten().tolist()[:9]) for one in streams}
    assert len(first) == len(streams)


def test_a_source_has_neither_classes_nor_groups() -> None:
    assert stream().classes(5, 3).shape == stream().groups(5, 3).shape == (3, 0)


def test_a_dense_episode_has_the_same_support_set_and_function() -> None:
    episode, dense = stream().batch(7, 1), stream().dense(7, 50)
    assert torch.equal(episode.support_x, dense.support_x)
    assert torch.equal(episode.support_y, dense.support_y)
    assert dense.query_x.shape == (1, 50, 2)
    fitted = torch.linalg.lstsq(episode.support_x, episode.support_y).solution
    torch.testing.assert_close(dense.query_x @ fitted, dense.query_y, atol=1e-4, rtol=1e-4)


Change = Callable[[Episodes], Episodes]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda made: replace(made, query_y=made.query_y[..., :2]), r"query_y of shape \(2, 4, 2\)"),
        (lambda made: replace(made, support_x=made.support_x.double()), r"support_x .* torch\.float64"),
        (lambda made: replace(made, support_y=made.support_y / 0), "support_y that is not finite"),
    ],
)
def test_episodes_unlike_the_declared_ones_fail_the_cell(change: Change, message: str) -> None:
    class Wrong(Planes):
        def episodes(self, uniform: Tensor, split: str, shot: int, queries: int) -> Episodes:
            return change(super().episodes(uniform, split, shot, queries))

    wrong = SourceStream(SourceSplit(Wrong(Config()), "test"), EpisodeShape(1, 3, 4), 0, CPU)
    with pytest.raises(CellFailed, match=message):
        wrong.batch(0, 2)
