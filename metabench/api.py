"""What a plugin implements: `Algorithm`, `Backbone` and `Dataset`, and the tensors that pass between them."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat
from torch import Tensor, nn

from metabench.errors import CellFailed, DataError
from metabench.packs import Pack
from metabench.strategies import InOrder, Strategy, Weights, gradients, is_vectorised, leaves_traces, of_each

__all__ = [
    "Algorithm",
    "AlgorithmConfig",
    "Backbone",
    "CellFailed",
    "Config",
    "DataError",
    "Dataset",
    "DatasetFiles",
    "Episodes",
    "Metrics",
    "OptimisedAlgorithm",
    "Pack",
    "Progress",
    "Setup",
    "Split",
    "SplitSize",
    "Strategy",
    "Weights",
    "embed_episode",
    "embed_queries",
    "gradients",
    "is_vectorised",
    "of_each",
]

#: What `meta_step` reports: scalar tensors, still on the device, so that nothing waits for it.
Metrics = Mapping[str, Tensor]

#: Called with (done, total, what) while something long goes on.
Progress = Callable[[int, int, str], None]


class Config(BaseModel):
    """Parameters that a suite may set: typed, with defaults; unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=True, allow_inf_nan=False)


# ------------------------------------------------------------------------------------------- episodes


@dataclass(frozen=True)
class Episodes:
    """A batch of B episodes, on the device.

    Attributes:
        support_x: [B, N·K, C, H, W] float images.
        support_y: [B, N·K] labels 0 … N-1.
        query_x: [B, M, C, H, W] float images, in random order.
        query_y: [B, M] labels 0 … N-1.
        way: N.
    """

    support_x: Tensor
    support_y: Tensor
    query_x: Tensor
    query_y: Tensor
    way: int

    def __len__(self) -> int:
        return len(self.support_x)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Yield ``(support_x, support_y, query_x, query_y)`` of one episode after the other."""
        return iter(zip(self.support_x, self.support_y, self.query_x, self.query_y, strict=True))


# ------------------------------------------------------------------------------------------- datasets


@dataclass(frozen=True)
class SplitSize:
    """How large a split is: its classes, and the images of its smallest class."""

    classes: int
    images_per_class: int


@dataclass(frozen=True)
class Split:
    """The images of one split.

    Attributes:
        images: [n, C, H, W] uint8, class by class.
        offsets: [classes + 1] where each class begins.
        class_names: one name a class.
        mean: per channel, of images scaled to 0 … 1; what the network sees is (image/255 - mean) / std.
        std: per channel.
        groups: [classes] the same number for classes that are not independent of each other, such as rotations of
            one character; statistics about the data resample groups. None where every class stands for itself.
    """

    images: Tensor
    offsets: Tensor
    class_names: Sequence[str]
    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)
    groups: Sequence[int] | None = None

    @property
    def size(self) -> SplitSize:
        """Return the number of classes, and of images in the smallest."""
        return SplitSize(len(self.offsets) - 1, int(self.offsets.diff().min()))


class DatasetFiles(Protocol):
    """Where a dataset may look for files, and where it may put them."""

    #: Directories with raw data, in the order to search them; they are only ever read.
    sources: Sequence[Path]
    #: The dataset's own directory for packed copies and downloads.
    cache: Path
    #: Whether raw data may be fetched from the network.
    download: bool


class Dataset(abc.ABC):
    """Classes of images, split into train, val and test.

    A dataset is packed once (`pack`); the harness keeps the packed copy in the cache and hands it to `split`.
    """

    Config: ClassVar[type[Config]] = Config
    #: Changes when the content of the pack changes; part of the packed file's name.
    version: ClassVar[str] = "1"

    def __init__(self, config: Any) -> None:
        self.config = config

    @property
    def pack_name(self) -> str:
        """Return the name of the packed copy; different for configurations that pack different images."""
        return f"v{self.version}"

    @abc.abstractmethod
    def pack(self, files: DatasetFiles, progress: Progress) -> Pack:
        """Read or make all images.

        Raises:
            DataError: they are missing or damaged; the message says where they were looked for.
        """

    @abc.abstractmethod
    def split(self, pack: Pack) -> Mapping[str, Split]:
        """Return the splits ``train``, ``val`` and ``test`` of the packed images; no class is in two."""

    def sizes(self) -> Mapping[str, SplitSize] | None:
        """Return how large each split will be, where that is known before the data is there."""
        return None


# ------------------------------------------------------------------------------------------ backbones


class Backbone(nn.Module, abc.ABC):
    """Maps images to features.

    Args:
        config: an instance of `Config`.
        image_shape: (C, H, W).
    """

    Config: ClassVar[type[Config]] = Config
    #: D, the length of a feature vector; set by the constructor.
    features: int
    #: Whether queries are normalised by the support set, which then has to come along in the same batch.
    needs_support: bool = False

    def __init__(self, config: Any, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.config = config

    @abc.abstractmethod
    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        """Map [n, C, H, W] images of one episode to [n, D] features.

        Args:
            x: the images.
            support: how many of the first images are the support set, for normalisations that take their
                statistics from it; None when all are.
        """


def embed_queries(backbone: Backbone, support_x: Tensor, query_x: Tensor) -> Tensor:
    """Embed [M, C, H, W] queries to [M, D]; the support set comes along only where the backbone needs it."""
    if not backbone.needs_support:
        features: Tensor = backbone(query_x)
        return features
    return embed_episode(backbone, support_x, query_x)[1]


def embed_episode(backbone: nn.Module, support_x: Tensor, query_x: Tensor) -> tuple[Tensor, Tensor]:
    """Embed one episode, ([S, C, H, W], [M, C, H, W]) → ([S, D], [M, D]), in one pass over all its images."""
    features = backbone(torch.cat([support_x, query_x]), support=len(support_x))
    support, query = features.split([len(support_x), len(query_x)])
    return support, query


# ----------------------------------------------------------------------------------------- algorithms


@dataclass(frozen=True)
class Setup:
    """What an algorithm is told about the cell that it is built for.

    Attributes:
        backbone: the feature extractor; the algorithm owns it from now on.
        way: N of the test episodes.
        train_way: N of the training episodes.
        train_steps: how many times `meta_step` will be called.
    """

    backbone: Backbone
    way: int
    train_way: int
    train_steps: int


class Algorithm(nn.Module, abc.ABC):
    """A few-shot learner.

    The harness calls `train()` before `meta_step`, and `eval()` before `predict`. Randomness comes from torch's
    default generator, which it seeds before both: a step is then a function of the weights, the optimiser's
    state and the episodes alone.

    Args:
        config: an instance of `Config`.
        setup: the backbone, and what is known of the cell.
    """

    Config: ClassVar[type[Config]] = Config
    #: Whether the work on an episode is a function of weights and episode alone, made of tensor operations: it draws no
    #: random numbers, keeps nothing, does not look into tensors (``.item()``, ``if``), and takes inner gradients with
    #: `gradients`. The harness may then do several episodes at once: vectorised on a GPU.
    functional: bool = False
    #: Whether it learns within an episode, by operations too small to keep several cores busy. If it is functional,
    #: too, episodes are done side by side on a CPU.
    inner_loop: bool = False
    #: How the episodes of a batch are worked through; the engine sets what suits the device.
    strategy: Strategy = InOrder()

    def __init__(self, config: Any, setup: Setup) -> None:
        super().__init__()
        self.config = config
        self.backbone = setup.backbone

    @property
    def training_strategy(self) -> Strategy:
        """Return how the episodes of a meta-batch are worked through: in order where one leaves traces for the next."""
        return self.strategy if self.functional and not leaves_traces(self.backbone) else InOrder()

    @abc.abstractmethod
    def meta_step(self, episodes: Episodes) -> Metrics:
        """Make one outer update from a meta-batch, and report at least ``{"loss": scalar}``."""

    @abc.abstractmethod
    def predict(self, support_x: Tensor, support_y: Tensor, query_x: Tensor, way: int) -> Tensor:
        """Classify the queries of B episodes; each episode on its own.

        It leaves parameters, buffers and optimiser state as they were, bit for bit.

        Args:
            support_x: [B, N·K, C, H, W].
            support_y: [B, N·K] labels 0 … N-1.
            query_x: [B, M, C, H, W]; there are no query labels here.
            way: N.

        Returns:
            [B, M, N] scores; the largest is the prediction. They must not depend on the batch that an episode
            is in: an algorithm that draws random numbers here takes a generator of its own for each episode.
        """

    def predict_alone(self, support_x: Tensor, support_y: Tensor, query_x: Tensor, way: int) -> Tensor:
        """Classify each query as if it were the only one of its episode; the rest is as in `predict`.

        Another implementation than this one returns the same, in less time: it may learn from the support set once for
        all queries of an episode.
        """
        queries = query_x.shape[1]
        scores = self.predict(
            support_x.repeat_interleave(queries, dim=0),
            support_y.repeat_interleave(queries, dim=0),
            query_x.flatten(0, 1).unsqueeze(1),
            way,
        )
        return scores.reshape(len(query_x), queries, way)

    def training_state(self) -> dict[str, Any]:
        """Return what a checkpoint needs beyond `state_dict` (optimisers, counters): plain data and tensors."""
        return {}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `training_state` returned."""


class AlgorithmConfig(Config):
    """The outer optimiser of `OptimisedAlgorithm`: Adam, as in most of the papers.

    Attributes:
        lr: its learning rate.
        weight_decay: its L2 penalty.
        halve_lr_every: halve the learning rate after so many steps; 0 never does.
        clip: rescale the gradient to at most this norm; None leaves it.
    """

    lr: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 0.0
    halve_lr_every: int = Field(default=0, ge=0)
    clip: PositiveFloat | None = None


class OptimisedAlgorithm(Algorithm):
    """An algorithm trained by "loss, backward, step": only `episode_scores` has to be written.

    Gradients are accumulated episode by episode, so memory does not grow with the meta-batch: its episodes are worked
    through as `Algorithm.strategy` says.
    """

    Config: ClassVar[type[Config]] = AlgorithmConfig

    def __init__(self, config: AlgorithmConfig, setup: Setup) -> None:
        super().__init__(config, setup)
        self._optimiser: torch.optim.Optimizer | None = None
        self._steps = 0

    @abc.abstractmethod
    def episode_scores(self, support_x: Tensor, support_y: Tensor, query_x: Tensor, way: int) -> Tensor:
        """Return the [M, N] scores of the queries of one episode (no leading B)."""

    def episode_loss(self, support_x: Tensor, support_y: Tensor, query_x: Tensor, query_y: Tensor, way: int) -> Tensor:
        """Return the scalar loss of one training episode: here, the cross-entropy of the scores."""
        return nn.functional.cross_entropy(self.episode_scores(support_x, support_y, query_x, way), query_y)

    @torch.no_grad()
    def predict(self, support_x: Tensor, support_y: Tensor, query_x: Tensor, way: int) -> Tensor:
        """Return the scores of each episode, stacked; see `Algorithm.predict`."""
        self.eval()

        def scores(learner: OptimisedAlgorithm, *episode: Tensor) -> tuple[Tensor]:
            support_x, support_y, query_x = episode
            return (learner.episode_scores(support_x, support_y, query_x, way),)

        return self.strategy.map(scores, self, support_x, support_y, query_x)[0]

    def meta_step(self, episodes: Episodes) -> Metrics:
        """Average the gradient of the episodes' losses, and let Adam make one step."""
        self.train()
        optimiser = self._adam()
        optimiser.zero_grad(set_to_none=True)

        def loss(learner: OptimisedAlgorithm, *episode: Tensor) -> Tensor:
            support_x, support_y, query_x, query_y = episode
            return learner.episode_loss(support_x, support_y, query_x, query_y, episodes.way)

        batch = episodes.support_x, episodes.support_y, episodes.query_x, episodes.query_y
        losses = self.training_strategy.backward(loss, self, *batch)
        if self.config.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters(), self.config.clip)
        if self.config.halve_lr_every:
            for group in optimiser.param_groups:
                group["lr"] = self.config.lr * 0.5 ** (self._steps // self.config.halve_lr_every)
        optimiser.step()
        self._steps += 1
        return {"loss": losses.mean()}

    def training_state(self) -> dict[str, Any]:
        """Return Adam's state and the number of steps made."""
        return {"optimiser": self._adam().state_dict(), "steps": self._steps}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `training_state` returned."""
        self._adam().load_state_dict(state["optimiser"])
        self._steps = int(state["steps"])

    def _adam(self) -> torch.optim.Optimizer:
        # Made on first use: a subclass adds its parameters after this class's constructor, and the engine
        # moves them to the device after that.
        if self._optimiser is None:
            # Fused: a small network has so little to compute that a call for each weight would take longer.
            self._optimiser = torch.optim.Adam(
                self.parameters(), lr=self.config.lr, weight_decay=self.config.weight_decay, fused=True
            )
        return self._optimiser
