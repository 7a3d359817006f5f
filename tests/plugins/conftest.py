from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from metabench.api import Algorithm, Backbone, Classification, Config, Episodes, Setup, Split
from metabench.data.packing import DataRoots, load_pack
from metabench.data.sampler import EpisodeShape
from metabench.engine.streams import EpisodeStream
from metabench.packs import Pack
from metabench_plugins.backbones.conv4 import Conv4, Conv4Config
from metabench_plugins.datasets.omniglot import Omniglot, OmniglotConfig
from variants import Variant


@pytest.fixture(scope="session")
def omniglot_pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """Return the real Omniglot at 28 pixels, packed once a session in a cache of its own."""
    sources = DataRoots.from_environment(os.environ).sources
    if not any((source / "omniglot").is_dir() for source in sources):
        pytest.skip("real Omniglot not found: set METABENCH_DATA to the folder that holds omniglot/")
    roots = DataRoots(sources, cache=Path(tmp_path_factory.mktemp("cache")), download=False)
    return load_pack("omniglot", Omniglot(OmniglotConfig()), roots, lambda done, total, what: None)


@pytest.fixture(autouse=True)
def _compute_in_one_thread(one_thread: None) -> None:
    """Spare tiny tensors the cost of a second thread."""


# ------------------------------------------------------------------------------------------ tiny learners

SIZE = 16
WAY = 3


class Flat(Backbone):
    """The images themselves as features: every distance and angle can be computed by hand."""

    def __init__(self, image_shape: tuple[int, int, int]) -> None:
        super().__init__(Config(), image_shape)
        self.features = image_shape[0] * image_shape[1] * image_shape[2]

    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        return x.flatten(1)


class Smooth(Backbone):
    """Linear, batch norm on the batch, tanh: few weights and derivatives of every order."""

    def __init__(self, image_shape: tuple[int, int, int], features: int = 4) -> None:
        super().__init__(Config(), image_shape)
        self.features = features
        self.linear = nn.Linear(image_shape[0] * image_shape[1] * image_shape[2], features)
        self.norm = nn.BatchNorm1d(features, track_running_stats=False)

    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        return torch.tanh(self.norm(self.linear(x.flatten(1))))


def _conv4(norm: str = "running", downsample: str = "pool", channels: int = 4) -> Backbone:
    config = Conv4Config.model_validate({"channels": channels, "norm": norm, "downsample": downsample})
    return Conv4(config, (1, SIZE, SIZE))


def _learner(
    algorithm: type[Algorithm],
    backbone: Backbone | None = None,
    *,
    norm: str = "running",
    way: int = WAY,
    train_way: int | None = None,
    train_steps: int = 10,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    **params: Any,
) -> Algorithm:
    torch.manual_seed(seed)
    if "units" in algorithm.Config.model_fields:
        params.setdefault("units", 8)
    setup = Setup(backbone or _conv4(norm), way, train_way or way, train_steps)
    return algorithm(algorithm.Config(**params), setup).to(dtype)


def _episodes(
    count: int = 3,
    *,
    way: int = WAY,
    shot: int = 2,
    queries: int = 2,
    size: int = SIZE,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Episodes:
    """Return episodes of noisy copies of one random image a class, the queries in random order."""
    generator = torch.Generator().manual_seed(seed)
    prototypes = torch.rand(count, way, 1, 1, size, size, generator=generator, dtype=dtype)
    noise = torch.rand(count, way, shot + queries, 1, size, size, generator=generator, dtype=dtype)
    images = prototypes + 0.5 * noise
    order = torch.randperm(way * queries, generator=generator)
    return Episodes(
        support_x=images[:, :, :shot].flatten(1, 2),
        support_y=torch.arange(way).repeat_interleave(shot).repeat(count, 1),
        query_x=images[:, :, shot:].flatten(1, 2)[:, order],
        query_y=torch.arange(way).repeat_interleave(queries).repeat(count, 1)[:, order],
        task=Classification(way),
    )


@pytest.fixture(scope="session")
def flat() -> Callable[..., Backbone]:
    """Return the class of a backbone that flattens the images and does nothing else."""
    return Flat


@pytest.fixture(scope="session")
def smooth() -> Callable[..., Backbone]:
    """Return the class of a backbone with few weights and derivatives of every order."""
    return Smooth


@pytest.fixture(scope="session")
def conv4() -> Callable[..., Backbone]:
    """Return a function that makes a `Conv4` of four channels."""
    return _conv4


@pytest.fixture(scope="session")
def make_learner() -> Callable[..., Any]:
    """Return a function that makes an algorithm in float64, on a tiny `Conv4` unless told otherwise."""
    return _learner


@pytest.fixture(scope="session")
def make_episodes() -> Callable[..., Episodes]:
    """Return a function that draws synthetic episodes."""
    return _episodes


@pytest.fixture(scope="session")
def stream() -> EpisodeStream:
    """Return 3-way 1-shot episodes with 2 queries a class, of 8 synthetic classes of 6 images."""
    generator = torch.Generator().manual_seed(0)
    prototypes = torch.randint(0, 180, (8, 1, 1, SIZE, SIZE), generator=generator)
    noise = torch.randint(0, 75, (8, 6, 1, SIZE, SIZE), generator=generator)
    images = (prototypes + noise).to(torch.uint8).flatten(0, 1)
    split = Split(images, torch.arange(9) * 6, [str(c) for c in range(8)])
    return EpisodeStream(split, EpisodeShape(way=WAY, shot=1, queries=2), "synthetic", 0, torch.device("cpu"))


@pytest.fixture
def trained(make_learner: Callable[..., Any], make_episodes: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that makes a learner with a step of training behind it: no counter is at zero."""

    def make(variant: Variant, norm: str = "running", steps: int = 1, **kwargs: Any) -> Algorithm:
        learner: Algorithm = make_learner(variant.algorithm, norm=norm, **{**variant.params, **kwargs})
        dtype = next(learner.parameters()).dtype
        for step in range(steps):
            torch.manual_seed(step)
            learner.train_step(make_episodes(2, seed=100 + step, dtype=dtype))
        return learner

    return make
