"""Few-shot learners."""

from __future__ import annotations

import abc
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from metabench.api.backbones import Backbone, embed_episode
from metabench.api.batching import Batching, Sequential
from metabench.api.config import Config
from metabench.api.episodes import Episode, Episodes, Support
from metabench.api.gradients import trained_weights
from metabench.api.images import Images
from metabench.api.outer import AlgorithmConfig, OuterOptimiser
from metabench.api.tasks import Regression

#: The metrics of `Algorithm.train_step`: scalar tensors, left on the device so that the host need not wait.
Metrics = Mapping[str, Tensor]


@dataclass(frozen=True)
class Setup:
    """The parts of a cell that its algorithm needs.

    Attributes:
        backbone: the feature extractor, which the algorithm then owns.
        test_way: N of the test episodes; None for an algorithm that serves any way (`Algorithm.any_way`).
        train_way: N of the training episodes; None if it trains on no episodes.
        train_steps: number of calls of `Algorithm.train_step`; 0 if nothing is trained.
        teacher: a trained algorithm to learn from, in eval mode and without gradients, where the suite names one.
        train_classes: number of classes of the training split, the labels of `Images`.
        regression: the task of all episodes, if it is no classification.
    """

    backbone: Backbone
    test_way: int | None
    train_way: int | None
    train_steps: int
    teacher: Algorithm | None = None
    train_classes: int = 0
    regression: Regression | None = None

    @property
    def outputs(self) -> int:
        """The length of the answer to a query: N of a classification, or the outputs of a regression.

        Raises:
            TypeError: as `way`.
        """
        return self.way if self.regression is None else self.regression.outputs

    @property
    def way(self) -> int:
        """N of the test episodes.

        Raises:
            TypeError: the algorithm serves any way, and is built without one.
        """
        if self.test_way is None:
            raise TypeError("an algorithm with any_way = True is built without a way: take it from each episode")
        return self.test_way


# No base `abc.ABC`: libraries that subclass it with a base of their own put ABC before Module, or after it.
class Algorithm(nn.Module, metaclass=abc.ABCMeta):
    """A few-shot learner: two functions of one episode, `adapt` and `answer`.

    The harness batches episodes, embeds images for an algorithm that reads features, asks all queries at once or one at
    a time, and calls `train()` and `eval()`. It seeds torch's default generator before each episode; draw all
    randomness from that generator.

    Args:
        config: an instance of `Config`.
        setup: the backbone, and the sizes of the cell.
    """

    Config: ClassVar[type[Config]] = AlgorithmConfig
    #: The batches of `train_step`: episodes, or images with labels that all batches share (`image_loss`). An algorithm
    #: that trains on nothing is tested as it is, whatever a suite says about training.
    trains_on: Literal["episodes", "images", "nothing"] = "episodes"
    #: The kinds of tasks that it can do: ``"classification"``, ``"regression"``. Its cells of others are skipped.
    tasks: Collection[str] = ("classification",)
    #: Input of `adapt`, `answer` and `episode_loss`: images, or their features by the backbone.
    reads: Literal["images", "features"] = "images"
    #: Whether the result for an episode is a function of the weights and the episode, made of tensor operations: no
    #: random numbers, no state, no control flow on tensor values (``.item()``, ``if``), and inner gradients taken with
    #: `gradients`. The engine may then vectorise over episodes on a GPU.
    functional: bool = False
    #: Whether the algorithm learns within an episode, in operations too small to keep several cores busy. If it is also
    #: `functional`, the engine runs episodes in several threads on a CPU.
    inner_loop: bool = False
    #: Whether one training serves test episodes of any way; `Setup.way` then does not exist. Classes may have different
    #: numbers of support images.
    any_way: bool = False
    #: Whether its construction or an episode draws random numbers. If neither it nor the backbone draws, and nothing is
    #: trained, all seeds give the same result, and one of them is run.
    draws: bool = True
    #: Distorts [n, C, H, W] images of a support set as the training of the weights distorts its images, by draws from
    #: torch's default generator; None where it distorts none. The engine sets it before validations and tests.
    distort: Callable[[Tensor], Tensor] | None = None
    #: The batching of test episodes; the engine sets the fastest one for the device.
    batching: Batching = Sequential()
    #: The batching of training episodes; in order if an episode draws random numbers or changes the next one.
    training_batching: Batching = Sequential()

    def __init__(self, config: Any, setup: Setup) -> None:
        super().__init__()
        self.config = config
        self.backbone = setup.backbone
        if self.backbone.frozen:
            self.backbone.requires_grad_(False)
        self._steps = setup.train_steps
        self._outer: OuterOptimiser | None = None

    @property
    def second_order(self) -> bool:
        """Whether training differentiates the gradients of an inner loop; by default, it does not."""
        return False

    @abc.abstractmethod
    def adapt(self, support: Support) -> Any:
        """Learn from the support set of one episode.

        At test, gradients are disabled: take inner gradients by `metabench.api.gradients`, which enables them for its
        loss, or enable them by `torch.enable_grad`. Parameters and buffers must stay as they are.

        Returns:
            The state that `answer` needs, of any type.
        """

    @abc.abstractmethod
    def answer(self, state: Any, query: Tensor) -> Tensor:
        """Answer queries of the episode.

        The same state is asked several times, for all queries or for one; the answers must not depend on earlier ones.

        Args:
            state: the result of `adapt`.
            query: [M, C, H, W] images; [M, D] features for an algorithm that reads features.

        Returns:
            Of a regression, [M, outputs] numbers, all finite. Of a classification,
            [M, N] scores: log-probabilities up to a constant for each query, and up to one temperature for all of
            them. -inf says that a class is impossible; all other scores are finite. The largest score of a query is
            its prediction.
        """

    def episode_loss(self, episode: Episode) -> Tensor:
        """Return the scalar loss of one training episode; by default, the task's loss of the answers."""
        return episode.task.loss(self.answer(self.adapt(episode.support), episode.query_x), episode.query_y)

    def image_loss(self, images: Images) -> Tensor:
        """Return the scalar loss of a batch of labelled images, the mean over them.

        Every algorithm with ``trains_on = "images"`` overrides this method. If the algorithm reads features, `images.x`
        holds the features of the images.
        """
        raise NotImplementedError(f"{type(self).__name__} trains on images: define image_loss(images)")

    def prepare(self, train: Iterable[Images]) -> None:
        """See all training images once before a test, e.g. to compute their mean; by default, do nothing.

        Called with the weights that are tested, in eval mode and without gradients, also where nothing is trained.
        Keep the results in buffers; parameters stay as they are. Validation goes without: use a neutral initial value.

        Args:
            train: the training images in order, undistorted; features for an algorithm that reads features.
        """

    def lr_multiplier(self, name: str) -> float:
        """Return the factor of the outer learning rate for a parameter of this name; by default 1."""
        return 1.0

    # Any: subclasses write the one class that they train on, which the type of an argument must not narrow otherwise.
    def train_step(self, batch: Any) -> Metrics:
        """Make one outer update from a batch; return at least ``{"loss": scalar}``.

        By default, one step of `AlgorithmConfig`'s optimiser on the mean of `episode_loss`, or on `image_loss`.
        `training_batching` accumulates the gradients over the episodes, so that memory does not grow with the
        meta-batch.

        Args:
            batch: `Episodes`, or `Images` for an algorithm that trains on images.
        """
        self.train()
        optimiser = self._optimiser()
        optimiser.zero_grad()
        loss = self._image_gradients(batch) if isinstance(batch, Images) else self._episode_gradients(batch)
        optimiser.step()
        return {"loss": loss}

    def _image_gradients(self, images: Images) -> Tensor:
        """Add the gradient of `image_loss`; return the loss."""
        if self.reads == "features" and not images.embedded:
            images = replace(images, x=self.backbone(images.x), embedded=True)
        loss = self.image_loss(images)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _episode_gradients(self, episodes: Episodes) -> Tensor:
        """Add the gradient of the mean of `episode_loss`; return the mean."""

        def loss(learner: Algorithm, *episode: Tensor) -> Tensor:
            support_x, support_y, query_x, query_y = episode
            episode_of = Episode(Support(support_x, support_y, episodes.task), query_x, query_y)
            return learner.episode_loss(episode_of) if episodes.embedded else training_loss(learner, episode_of)

        batch = episodes.support_x, episodes.support_y, episodes.query_x, episodes.query_y
        return self.training_batching.backward(loss, self, *batch).mean()

    def training_state(self) -> dict[str, Any]:
        """Return the state that `state_dict` lacks (optimisers, counters), as plain data and tensors."""
        return {} if self.trains_on == "nothing" else self._optimiser().state()

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Restore the result of `training_state`."""
        if self.trains_on != "nothing":
            self._optimiser().load(state)

    def _optimiser(self) -> OuterOptimiser:
        """Return the outer optimiser, created on first use.

        The constructor is too early: subclasses add parameters after it, and the engine then moves them to the device.
        """
        if self._outer is None:
            weights = trained_weights(self)
            multipliers = [self.lr_multiplier(name) for name in weights]
            self._outer = OuterOptimiser(list(weights.values()), self.config, self._steps, multipliers)
        return self._outer


def training_loss(learner: Algorithm, episode: Episode) -> Tensor:
    """Return the loss of a training episode of images; embed them for an algorithm that reads features."""
    if learner.reads == "images":
        return learner.episode_loss(episode)
    support_x, query_x = embed_episode(learner.backbone, episode.support.x, episode.query_x)
    return learner.episode_loss(Episode(replace(episode.support, x=support_x), query_x, episode.query_y))
