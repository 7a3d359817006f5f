"""Check an algorithm that does regression against the contract of `metabench.api.Algorithm`.

`metabench.testing.RegressorChecks` runs these checks under pytest, `metabench plugin check` on the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from metabench.api import Algorithm, Backbone, Config, Episodes, EpisodeSource, Regression, Setup, SourceSplit
from metabench.api.batching import Sequential
from metabench.conformance.checks import NotConforming
from metabench.conformance.subjects import same, state_of
from metabench.data.sampler import EpisodeShape
from metabench.engine.asking import ask, predict
from metabench.engine.batching import Threaded, Vmapped
from metabench.engine.controls import is_transductive
from metabench.engine.sources import SourceStream
from metabench.engine.trial import purity_of, set_batchings
from metabench.errors import in_one_line
from metabench.machine.memory import BatchSize
from metabench.registry.configs import validate_config
from metabench.registry.manager import PluginManager

_CPU = torch.device("cpu")
#: Inputs, outputs and support points of the made-up episodes.
_INPUTS, _OUTPUTS, _SHOT = 2, 3, 12
#: Largest share of the error from another episode's support set that the error from its own may have.
_LEARNT = 0.95


class Planes(EpisodeSource):
    """Linear functions of two numbers, with three values."""

    task = Regression(_OUTPUTS)
    input_shape = (_INPUTS,)

    def draws(self, shot: int, queries: int) -> int:
        """Return a matrix, and the inputs of each point."""
        return _INPUTS * (_OUTPUTS + shot + queries)

    def episodes(self, uniform: Tensor, split: str, shot: int, queries: int) -> Episodes:
        """See `metabench.api.EpisodeSource.episodes`."""
        numbers = 2 * uniform - 1
        matrix = numbers[:, : _INPUTS * _OUTPUTS].reshape(-1, _INPUTS, _OUTPUTS)
        x = numbers[:, _INPUTS * _OUTPUTS :].reshape(len(numbers), -1, _INPUTS)
        x, y = x.float(), (2 * x @ matrix).float()
        return Episodes(x[:, :shot], y[:, :shot], x[:, shot:], y[:, shot:], self.task)


class SmallVectorNetwork(Backbone):
    """A backbone of one hidden layer, which trains in seconds."""

    per_image = True
    takes_vectors = True
    features = 32

    def __init__(self) -> None:
        super().__init__(Config(), (_INPUTS,))
        self.layer = nn.Linear(_INPUTS, self.features)

    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        """Return [n, 32] features of [n, 2] vectors."""
        features: Tensor = self.layer(x).relu()
        return features


@dataclass(frozen=True)
class Subject:
    """The algorithm to check.

    Attributes:
        name: name of the algorithm, as its plugin announces it, or ``FILE.py:CLASS``.
        params: its parameters.
        transductive: whether an answer may depend on the other queries.
        steps: outer updates, of eight episodes each, after which it must learn from a support set.
        plugins: the plugin manager that provides the class.
    """

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)
    transductive: bool = False
    steps: int = 400
    plugins: PluginManager = field(default_factory=PluginManager.from_environment)

    def build(self, seed: int = 0) -> Algorithm:
        """Return a new algorithm on a `SmallVectorNetwork`."""
        cls = self.plugins.algorithm_class(self.name)
        torch.manual_seed(seed)
        way = None if cls.any_way else 1
        setup = Setup(SmallVectorNetwork(), way, 1, self.steps, regression=Planes.task)
        algorithm = cls(validate_config(cls.Config, dict(self.params)), setup)
        set_batchings(algorithm, episodes("train").batch(0, 2))
        return algorithm


def episodes(split: str) -> SourceStream:
    """Return made-up episodes."""
    return SourceStream(SourceSplit(Planes(Config()), split), EpisodeShape(1, _SHOT, 6), 0, _CPU)


def train(algorithm: Algorithm, first: int, count: int) -> None:
    """Make `count` outer updates of eight episodes each."""
    stream = episodes("train")
    for step in range(first, first + count):
        algorithm.train()
        torch.manual_seed(step)
        algorithm.train_step(stream.batch(8 * step, 8))


def check_declared(subject: Subject) -> None:
    """It declares regression among its tasks."""
    if Regression.kind not in subject.plugins.algorithm_class(subject.name).tasks:
        raise NotConforming('its tasks lack "regression": its cells on sources would be skipped')


def check_seed(subject: Subject) -> None:
    """The same seed gives the same weights, bit for bit."""
    states = []
    for _ in range(2):
        algorithm = subject.build()
        train(algorithm, 0, 3)
        states.append(state_of(algorithm))
    if not same(*states):
        raise NotConforming("two trainings from one seed differ: draw random numbers from torch's default generator")


def check_resume(subject: Subject) -> None:
    """Saving and loading changes neither further training nor answers."""
    whole, interrupted = subject.build(), subject.build()
    train(whole, 0, 4)
    train(interrupted, 0, 2)
    saved, resumed = state_of(interrupted), subject.build(seed=1)
    resumed.load_state_dict(saved["weights"])
    resumed.load_training_state(saved["training"])
    train(resumed, 2, 2)
    drawn = episodes("test").batch(0, 2)
    if not (same(state_of(whole), state_of(resumed)) and same(*(predict(a, drawn, 0, 0) for a in (whole, resumed)))):
        raise NotConforming(
            "a training that was saved and loaded goes on otherwise: save and restore state that is not in "
            "state_dict() by training_state() and load_training_state()"
        )


def check_prediction_changes_nothing(subject: Subject) -> None:
    """`adapt` and `answer` leave parameters, buffers and training state unchanged, and the state answers again."""
    algorithm, drawn = subject.build(), episodes("test").batch(0, 3)
    train(algorithm, 0, 2)
    before = state_of(algorithm)
    first, _, again = ask(algorithm, drawn, [drawn.query_x, drawn.query_x[:, :1], drawn.query_x], 0, 0)
    if not (same(before, state_of(algorithm)) and torch.equal(first, again)):
        raise NotConforming("adapt or answer changes itself, its parameters or buffers: work on copies of them")


def check_batches(subject: Subject) -> None:
    """An episode's answers do not depend on its batch, nor those of a functional algorithm on its batching."""
    tried = subject.build()
    train(tried, 0, 2)
    drawn = episodes("test").batch(0, 4)
    expected = torch.cat([predict(tried, drawn[i : i + 1], 0, i) for i in range(4)])
    batchings = [tried.batching]
    if tried.functional and purity_of(tried, episodes("train").batch(0, 2)).testing:
        batchings += [Sequential(), Threaded(2), Vmapped(_CPU)]
    for batching in batchings:
        tried.batching = batching
        try:
            answers = predict(tried, drawn, 0, 0)
        except RuntimeError as error:
            raise NotConforming(
                f"it sets `functional`, but does not work for several episodes at once ({in_one_line(error)}): "
                "use tensor operations only, or do not set `functional`"
            ) from error
        if not torch.allclose(answers, expected, rtol=1e-3, atol=1e-4):
            raise NotConforming(
                f"answers move by up to {float((answers - expected).abs().max()):.2g} with the batch that an episode "
                "is in: keep no state between episodes"
            )


def check_queries(subject: Subject) -> None:
    """An answer does not depend on the other queries."""
    algorithm = subject.build()
    train(algorithm, 0, 2)
    if is_transductive(algorithm, episodes("test"), 0, BatchSize(_CPU)) and not subject.transductive:
        raise NotConforming(
            "an answer moves when the other queries are exchanged: answer each query on its own, or declare the "
            "algorithm transductive"
        )


def check_learning(subject: Subject) -> None:
    """It answers better from the episode's own support set than from another episode's."""
    algorithm = subject.build()
    train(algorithm, 0, subject.steps)
    drawn = episodes("test").batch(0, 64)
    other = replace(drawn, support_x=drawn.support_x.roll(1, 0), support_y=drawn.support_y.roll(1, 0))
    own, others = (float((predict(algorithm, given, 0, 0) - drawn.query_y).square().mean()) for given in (drawn, other))
    if not own <= _LEARNT * others:
        raise NotConforming(
            f"its squared error is {own:.3g} from an episode's own support set and {others:.3g} from another's, after "
            f"{subject.steps} steps: correct the loss, or allow more steps"
        )


CHECKS: dict[str, Callable[[Subject], None]] = {
    "regression: declared": check_declared,
    "regression: seed": check_seed,
    "regression: resume": check_resume,
    "regression: prediction changes nothing": check_prediction_changes_nothing,
    "regression: batches": check_batches,
    "regression: queries": check_queries,
    "regression: learning": check_learning,
}
