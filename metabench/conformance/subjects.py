"""The algorithm that is checked, its small backbone, and made-up episodes."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metabench.api import Algorithm, Backbone, Config, Setup, Split
from metabench.data.sampler import EpisodeShape
from metabench.engine.images import ImageBatches, prepare
from metabench.engine.streams import EpisodeStream
from metabench.engine.trial import set_batchings
from metabench.engine.views import Views
from metabench.planning.distortions import Crop, Distortion
from metabench.registry.configs import validate_config
from metabench.registry.manager import PluginManager

CPU = torch.device("cpu")
CLASSES, IMAGES, SIZE = 24, 16, 20
#: Images of an outer update of an algorithm that trains on images.
_IMAGES_AT_ONCE = 32
#: Normalisations of `SmallNetwork`.
NORMS = ("none", "running", "batch", "support")


class SmallNetwork(Backbone):
    """A backbone of two convolutions, which trains in seconds.

    Args:
        norm: normalisation after the first convolution: none, by running averages (``"running"``), or by the statistics
            of all images of the call (``"batch"``) or of its support images (``"support"``).
        image_shape: (C, H, W).
        frozen: see `metabench.api.Backbone.frozen`.
    """

    def __init__(
        self, norm: str = "none", image_shape: tuple[int, int, int] = (1, SIZE, SIZE), frozen: bool = False
    ) -> None:
        super().__init__(Config(), image_shape)
        self.frozen = frozen
        self.first = nn.Conv2d(image_shape[0], 8, 3, stride=2, padding=1)
        self.second = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.map_shape = (16, SIZE // 4, SIZE // 4)
        self.features = math.prod(self.map_shape)
        self.norm = norm
        self.running = nn.BatchNorm2d(8) if norm == "running" else None
        self.per_image = norm in ("none", "running")
        self.needs_support = norm == "support"

    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        """Return [n, 400] features of 20×20 images, the first `support` of which are support images."""
        return F.relu(self.second(F.relu(self._normalised(self.first(x), support)))).flatten(1)

    def _normalised(self, x: Tensor, support: int | None) -> Tensor:
        if self.running is not None:
            normalised: Tensor = self.running(x)
            return normalised
        if self.norm == "none":
            return x
        given = x[:support] if self.norm == "support" else x
        variance, mean = torch.var_mean(given, dim=(0, 2, 3), keepdim=True, unbiased=False)
        return (x - mean) / (variance + 1e-5).sqrt()


@dataclass(frozen=True)
class Subject:
    """The algorithm to check.

    Attributes:
        name: name of the algorithm, as its plugin announces it, or ``FILE.py:CLASS``.
        params: its parameters.
        transductive: whether a query's scores may depend on the other queries.
        steps: most outer updates, of two episodes each, until it must beat chance.
        plugins: the plugin manager that provides the class.
    """

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)
    transductive: bool = False
    steps: int = 400
    plugins: PluginManager = field(default_factory=PluginManager.from_environment)

    def build(
        self, way: int = 5, train_way: int | None = None, seed: int = 0, norm: str = "none", frozen: bool = False
    ) -> Algorithm:
        """Return a new algorithm on a `SmallNetwork`."""
        cls = self.plugins.algorithm_class(self.name)
        torch.manual_seed(seed)
        trains = cls.trains_on == "episodes"
        setup = Setup(
            SmallNetwork(norm, frozen=frozen),
            None if cls.any_way else way,
            (train_way or way) if trains else None,
            0 if cls.trains_on == "nothing" else self.steps,
            train_classes=CLASSES,
        )
        algorithm = cls(validate_config(cls.Config, dict(self.params)), setup)
        algorithm.distort = Views([Distortion(crop=Crop(padding=1))], made_up_split(len("train")), CPU)
        set_batchings(algorithm, episodes("train", train_way or way).batch(0, 2))
        return algorithm


def made_up_split(seed: int) -> Split:
    """Return 24 classes of 16 noisy, smooth patterns."""
    generator = np.random.default_rng(seed)
    coarse = torch.from_numpy(generator.normal(size=(CLASSES, 1, 5, 5)))
    patterns = F.interpolate(coarse, size=(SIZE, SIZE), mode="bilinear")
    noise = torch.from_numpy(generator.normal(size=(CLASSES, IMAGES, 1, SIZE, SIZE)))
    images = (128 + 40 * patterns.unsqueeze(1) + 30 * noise).clamp(0, 255).to(torch.uint8).flatten(0, 1)
    return Split(images, torch.arange(CLASSES + 1) * IMAGES, [f"pattern {i}" for i in range(CLASSES)])


def episodes(name: str, way: int = 5, shot: int = 1, queries: int = 5) -> EpisodeStream:
    """Return made-up episodes; ``"train"`` and ``"test"`` have different classes."""
    return EpisodeStream(made_up_split(len(name)), EpisodeShape(way, shot, queries), name, 0, CPU)


def train(algorithm: Algorithm, stream: EpisodeStream, first: int, count: int) -> None:
    """Make `count` outer updates of two episodes each, or of images; none of an algorithm that trains on nothing."""
    if algorithm.trains_on == "nothing":
        return
    images = ImageBatches(made_up_split(len("train")), _IMAGES_AT_ONCE, 0, CPU)
    for step in range(first, first + count):
        algorithm.train()
        torch.manual_seed(step)
        on_images = algorithm.trains_on == "images"
        algorithm.train_step(images.step(step) if on_images else stream.batch(2 * step, 2))


class _Unseen:
    """Watches nothing."""

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """See `metabench.engine.progress.Watcher`."""

    def advance(self, done: int, note: str = "") -> None:
        """See `metabench.engine.progress.Watcher`."""

    def should_stop(self) -> bool:
        """Return that it is not to stop."""
        return False


def prepared(algorithm: Algorithm) -> Algorithm:
    """Show an algorithm the training images, as before a test."""
    prepare(algorithm, made_up_split(len("train")), 0, CPU, _Unseen())
    return algorithm


def state_of(algorithm: Algorithm) -> dict[str, Any]:
    """Return a copy of weights and training state."""
    return copy.deepcopy({"weights": algorithm.state_dict(), "training": algorithm.training_state()})


def same(one: Any, other: Any) -> bool:
    """Return whether two states are equal, bit for bit."""
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and torch.equal(one, other)
    if isinstance(one, Mapping):
        return isinstance(other, Mapping) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)
