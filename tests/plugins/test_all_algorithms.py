"""Properties of every built-in algorithm."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from metabench.analysis.metrics import credit
from metabench.api import Algorithm, Classification, Episodes, Support
from metabench.engine import asking, evaluation
from metabench.engine.controls import PROBE_EPISODES, is_transductive
from metabench.engine.precision import autocast_of
from metabench.engine.streams import EpisodeStream
from metabench.machine.memory import BatchSize
from metabench_plugins.algorithms import siamese
from metabench_plugins.algorithms.maml import MAML
from metabench_plugins.algorithms.matchingnet import MatchingNet
from metabench_plugins.algorithms.metasgd import MetaSGD
from metabench_plugins.algorithms.protonet import ProtoNet
from metabench_plugins.algorithms.reptile import Reptile
from metabench_plugins.algorithms.siamese import Siamese
from metabench_plugins.backbones.conv4 import Conv4, Conv4Config
from variants import ALGORITHMS, Variant, every_norm, every_variant

Make = Callable[..., Any]


def predict(learner: Algorithm, episodes: Episodes) -> Tensor:
    return asking.predict(learner, episodes, 0, 0)


def chosen(episodes: Episodes, index: list[int]) -> Episodes:
    parts = (episodes.support_x, episodes.support_y, episodes.query_x, episodes.query_y)
    return Episodes(*(part[index] for part in parts), task=episodes.task)


def snapshot(learner: Algorithm) -> dict[str, Any]:
    """Return a copy of the whole state of the training."""
    return copy.deepcopy(
        {
            "state": dict(learner.state_dict()),
            "training": learner.training_state(),
            "gradients": {name: p.grad for name, p in learner.named_parameters()},
            "requires_grad": {name: p.requires_grad for name, p in learner.named_parameters()},
        }
    )


def identical(a: Any, b: Any) -> bool:
    """Return whether nested plain data and tensors are equal, bit for bit."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(identical(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(identical(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


# ------------------------------------------------------------------------------------- nothing leaks in or out


class ShuffledLabels:
    """A stream with shuffled query labels, which records the episodes that algorithms saw."""

    def __init__(self, stream: EpisodeStream, order: Tensor) -> None:
        self.stream = stream
        self.order = order
        self.labels: list[Tensor] = []
        self.task = stream.task

    def batch(self, first: int, count: int) -> Episodes:
        drawn = self.stream.batch(first, count)
        drawn = replace(drawn, query_y=drawn.query_y[:, self.order].clone())
        self.labels.append(drawn.query_y)
        return drawn


@every_variant
def test_query_labels_reach_no_prediction(
    trained: Make, stream: EpisodeStream, monkeypatch: pytest.MonkeyPatch, variant: Variant
) -> None:
    learner = trained(variant, norm="batch", dtype=torch.float32)
    seen: list[Tensor] = []
    scores: list[Tensor] = []
    adapt, answer = learner.adapt, learner.answer

    def recorded_adapt(support: Support) -> Any:
        seen.extend([support.x, support.y])
        return adapt(support)

    def recorded_answer(state: Any, query: Tensor) -> Tensor:
        seen.append(query)
        scores.append(answer(state, query))
        return scores[-1]

    monkeypatch.setattr(learner, "adapt", recorded_adapt)
    monkeypatch.setattr(learner, "answer", recorded_answer)
    runs = []
    for order in (torch.arange(6), torch.tensor([3, 5, 0, 4, 2, 1])):
        seen.clear()
        scores.clear()
        shuffled = ShuffledLabels(stream, order)
        accuracies = evaluation.evaluate(learner, shuffled, episodes=4, batch=BatchSize(torch.device("cpu"), 2), seed=0)  # type: ignore[arg-type]
        is_transductive(learner, shuffled, 0, BatchSize(torch.device("cpu")))  # type: ignore[arg-type]
        assert len(scores) == 4 + 2 * PROBE_EPISODES
        pointers = {labels.data_ptr() for labels in shuffled.labels}
        assert pointers.isdisjoint({x.untyped_storage().data_ptr() for x in seen})
        runs.append(([tensor.clone() for tensor in scores], list(seen), accuracies))
    assert identical(runs[0][0], runs[1][0])
    assert identical(runs[0][1], runs[1][1])
    assert runs[0][2].tolist() != runs[1][2].tolist()


@every_norm
@every_variant
def test_prediction_changes_no_weights_buffers_or_optimiser_state(
    trained: Make, make_episodes: Make, variant: Variant, norm: str
) -> None:
    learner = trained(variant, norm)
    before = snapshot(learner)
    scores = predict(learner, make_episodes(2))
    assert scores.shape == (2, 6, 3)
    assert bool(torch.isfinite(scores).all())
    assert identical(snapshot(learner), before)
    with torch.no_grad():
        assert torch.equal(predict(learner, make_episodes(2)), scores)
    assert identical(snapshot(learner), before)


@every_norm
@every_variant
def test_a_prediction_does_not_change_the_following_training(
    trained: Make, make_episodes: Make, variant: Variant, norm: str
) -> None:
    learners = [trained(variant, norm) for _ in range(2)]
    predict(learners[0], make_episodes(1))
    for learner in learners:
        torch.manual_seed(7)
        learner.train_step(make_episodes(2, seed=1))
    assert identical(snapshot(learners[0]), snapshot(learners[1]))


@pytest.mark.parametrize("way", [2, 3, 4, 5, 20])
@pytest.mark.parametrize("value", [0.0, -1e30, 0.1])
def test_a_constant_score_earns_chance_whatever_the_labels(way: int, value: float) -> None:
    scores = np.full((2, 8, way), value)
    labels = np.stack([np.zeros(8, dtype=np.int64), np.arange(8) % way])
    assert credit(scores, labels).tolist() == [pytest.approx([1 / way] * 8, rel=1e-15)] * 2


# ------------------------------------------------------------------------------------------------ symmetries


@every_norm
@every_variant
def test_an_episode_is_predicted_the_same_alone_and_in_any_batch(
    trained: Make, make_episodes: Make, variant: Variant, norm: str
) -> None:
    learner, episodes = trained(variant, norm), make_episodes(4)
    together = predict(learner, episodes)
    order = [2, 0, 3, 1]
    assert torch.equal(predict(learner, chosen(episodes, order)), together[order])
    for i in range(4):
        assert torch.equal(predict(learner, chosen(episodes, [i])), together[[i]])
    assert not torch.equal(together[0], together[1])


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("algorithm", [ProtoNet, MatchingNet, Siamese])
def test_in_lower_precisions_the_batch_changes_scores_only_by_rounding(
    make_learner: Make, make_episodes: Make, algorithm: type[Algorithm], precision: str
) -> None:
    network = Conv4(Conv4Config(channels=16), (1, 16, 16))
    network.autocast = autocast_of(precision)
    learner = make_learner(algorithm, network, dtype=torch.float32)
    episodes = make_episodes(5, dtype=torch.float32)
    alone = torch.cat([predict(learner, chosen(episodes, [i])) for i in range(5)])
    tolerance = 1e-5 if precision == "float32" else 1e-2
    torch.testing.assert_close(predict(learner, episodes), alone, rtol=tolerance, atol=tolerance)


@every_norm
@every_variant
def test_queries_alone_get_the_answers_of_episodes_of_one_query(
    trained: Make, make_episodes: Make, variant: Variant, norm: str
) -> None:
    learner, episodes = trained(variant, norm), make_episodes(2)
    alone = asking.predict_alone(learner, episodes, 0, 0)
    for i in range(episodes.query_x.shape[1]):
        only = predict(learner, replace(episodes, query_x=episodes.query_x[:, [i]]))
        torch.testing.assert_close(alone[:, [i]], only, rtol=1e-9, atol=1e-10)


@every_norm
@every_variant
def test_the_order_of_the_queries_is_irrelevant(
    trained: Make, make_episodes: Make, variant: Variant, norm: str
) -> None:
    learner, episodes = trained(variant, norm), make_episodes(2)
    order = torch.tensor([5, 0, 3, 1, 4, 2])
    after = predict(learner, replace(episodes, query_x=episodes.query_x[:, order]))
    torch.testing.assert_close(after, predict(learner, episodes)[:, order], rtol=1e-9, atol=1e-10)


@every_variant
def test_the_order_of_the_episodes_of_a_meta_batch_is_irrelevant(
    make_learner: Make, make_episodes: Make, monkeypatch: pytest.MonkeyPatch, variant: Variant
) -> None:
    # Pairs and minibatches are drawn one episode after the other; remove that randomness.
    monkeypatch.setattr(siamese, "draw_pairs", all_pairs)
    params = {**variant.params, "inner_batch": 100} if variant.algorithm is Reptile else variant.params
    results = []
    for order in ([0, 1, 2], [2, 0, 1]):
        learner = make_learner(variant.algorithm, norm="batch", **params)
        for seed in (0, 1):
            metrics = learner.train_step(chosen(make_episodes(3, seed=seed), order))
        # Of a bias before a batch norm the gradient is zero but for rounding, and Adam makes steps of it.
        weights = [value for name, value in learner.named_parameters() if not name.endswith("conv.bias")]
        results.append([metrics["loss"], *weights])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


def all_pairs(labels: Tensor, pairs: int) -> tuple[Tensor, Tensor]:
    """Return as many pairs of one class as of two classes, without randomness."""
    same = (labels.unsqueeze(0) == labels.unsqueeze(1)).triu(diagonal=1)
    other = (labels.unsqueeze(0) != labels.unsqueeze(1)).triu(diagonal=1)
    indices = torch.cat([same.nonzero()[: pairs // 2], other.nonzero()[: pairs // 2]])
    return indices[:, 0], indices[:, 1]


@every_norm
@every_variant
def test_renaming_the_classes_permutes_the_scores(
    trained: Make, make_episodes: Make, variant: Variant, norm: str
) -> None:
    learner, episodes = trained(variant, norm), make_episodes(2)
    new_label = torch.tensor([2, 0, 1])
    before = predict(learner, episodes)
    if hasattr(learner, "head"):
        permute_head(learner, new_label)
    after = predict(learner, replace(episodes, support_y=new_label[episodes.support_y]))
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after[..., new_label], before, rtol=1e-8, atol=1e-9)


def permute_head(learner: Algorithm, new_label: Tensor) -> None:
    """Move output c of the head to `new_label[c]`, in the weights, Reptile's mean squares and Meta-SGD's rates."""
    old_label = new_label.argsort()
    for i, (name, weight) in enumerate(learner.named_parameters()):
        if name.startswith("head."):
            weight.data.copy_(weight.data[old_label])
            if isinstance(learner, Reptile):
                square = learner.get_buffer(f"square_{i}")
                square.copy_(square[old_label])
            if isinstance(learner, MetaSGD):
                learner.rates[i].data.copy_(learner.rates[i][old_label])


# ------------------------------------------------------------------------------------------ saving, parameters


@every_norm
@every_variant
def test_a_saved_and_loaded_training_continues_identically(
    trained: Make, make_learner: Make, make_episodes: Make, variant: Variant, norm: str
) -> None:
    extra = {} if variant.algorithm is Reptile else {"schedule": "step", "decay_every": 2, "clip": 1.0}
    learner = trained(variant, norm, steps=2, **extra)
    file = io.BytesIO()
    torch.save({"weights": learner.state_dict(), "training": learner.training_state()}, file)
    file.seek(0)
    loaded = make_learner(variant.algorithm, norm=norm, seed=99, **{**variant.params, **extra})
    assert not identical(snapshot(loaded)["state"], snapshot(learner)["state"])
    state = torch.load(file, weights_only=True)
    loaded.load_state_dict(state["weights"])
    loaded.load_training_state(state["training"])
    for step in range(2):
        losses = []
        for one in (learner, loaded):
            torch.manual_seed(step)
            losses.append(one.train_step(make_episodes(2, seed=step))["loss"])
        assert torch.equal(*losses)
    assert identical(snapshot(loaded), snapshot(learner))
    assert torch.equal(predict(loaded, make_episodes(1)), predict(learner, make_episodes(1)))


@every_variant
def test_the_best_weights_loaded_into_a_new_learner_predict_the_same(
    trained: Make, make_learner: Make, make_episodes: Make, variant: Variant
) -> None:
    learner = trained(variant, steps=2)
    fresh = make_learner(variant.algorithm, seed=99, **variant.params)
    fresh.load_state_dict(learner.state_dict())
    assert torch.equal(predict(fresh, make_episodes(1)), predict(learner, make_episodes(1)))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_unknown_parameter_is_refused(algorithm: type[Algorithm]) -> None:
    algorithm.Config()
    with pytest.raises(ValidationError, match="inner_learning_rate"):
        algorithm.Config.model_validate({"inner_learning_rate": 0.1})


def test_protonet_is_inductive_with_running_and_transductive_with_batch_statistics(
    trained: Make, stream: EpisodeStream
) -> None:
    variant = Variant("protonet", ProtoNet)
    for norm, transductive in (("running", False), ("support", False), ("batch", True)):
        learner = trained(variant, norm, dtype=torch.float32)
        assert is_transductive(learner, stream, 0, BatchSize(torch.device("cpu"))) is transductive


# ---------------------------------------------------------------------------------------------- golden numbers


def wave(count: int, phase: float) -> Tensor:
    """Return numbers between -1 and 1 without a random generator."""
    return torch.sin(torch.arange(count, dtype=torch.float64) * 1.7 + phase)


def formula_episodes(step: int) -> Episodes:
    """Return two 3-way 2-shot episodes of 12 images, each the sum of its class's wave and its own."""
    labels = torch.arange(3).repeat(4)
    images = torch.stack(
        [
            (wave(256, 5.0 * int(label) + step + e) + 0.5 * wave(256, 0.3 * i * i + e)).reshape(1, 16, 16)
            for e in range(2)
            for i, label in enumerate(labels)
        ]
    ).reshape(2, 12, 1, 16, 16)
    labels = labels.repeat(2, 1)
    return Episodes(images[:, :6], labels[:, :6], images[:, 6:], labels[:, 6:], task=Classification(3))


# The losses of two steps and one score after them, computed by this implementation when it had the properties above.
# A change of one of these numbers changes the results of every suite, and must be intended.
GOLDEN = {
    "maml": (1.2068118239, 1.19250719648, 1.45690243686),
    "maml-first-order": (1.2068118239, 1.21175973543, 1.72931659193),
    "anil": (1.24460764679, 1.23093157858, 1.19814894185),
    "protomaml": (1.53295295489, 3.35810783791, 22.555787977),
    "protomaml-first-order": (1.53295295489, 3.0637092239, 24.8945584052),
    "reptile": (1.07529621017, 1.01517476355, 0.916858023161),
    "reptile-transductive": (1.07529621017, 1.01517476355, 1.13402274943),
    "protonet": (1.44697340157, 2.26550159718, -0.0417578904579),
    "matchingnet": (1.067058567, 1.11727021358, -1.09808876289),
    "matchingnet-fce": (1.0006721261, 1.13336264166, -1.09866670589),
    "siamese": (0.796425473907, 0.795374144319, -0.341129489405),
    "r2d2": (1.11660678535, 1.11673384572, 0.230033106186),
    "metaoptnet-rr": (1.1609915459, 1.17432346893, 0.313887658484),
    "dkt": (4.69895482719, 5.00680836114, -0.268697618774),
    "dkt-linear": (4.19901915074, 4.32978417301, 0.0570164313455),
    "relationnet": (0.371083311075, 0.2305209623, -5.50597706752),
    "metasgd": (1.09977963572, 1.07787419405, 1.47145599953),
    "meta-baseline": (1.10086790085, 1.0944271829, 0.998191817904),
    "feat": (1.03095207126, 1.07859672936, -5.11231195331),
}


@every_variant
def test_losses_and_scores_are_the_stored_numbers(
    make_learner: Make, monkeypatch: pytest.MonkeyPatch, variant: Variant
) -> None:
    monkeypatch.setattr(siamese, "draw_pairs", all_pairs)
    # Minibatches of all images: only their order is random, and irrelevant.
    whole = {"inner_batch": 100, "test_inner_batch": 100} if variant.algorithm is Reptile else {}
    norm = "batch" if variant.algorithm in (MAML, MetaSGD, Reptile) else "running"
    learner = make_learner(variant.algorithm, norm=norm, **{**variant.params, **whole})
    for i, parameter in enumerate(learner.parameters()):
        values = wave(parameter.numel(), 0.9 * i).reshape(parameter.shape)
        parameter.data.copy_(1 + 0.1 * values if parameter.ndim < 2 else 0.4 * values)
    losses = [learner.train_step(formula_episodes(step))["loss"].item() for step in range(2)]
    score = predict(learner, formula_episodes(2))[1, 4, 1].item()
    assert (*losses, score) == pytest.approx(GOLDEN[variant.name], rel=1e-6)
