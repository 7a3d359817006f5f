"""Heads on features: each against a plain reference in float64, the descents against torch's optimiser."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional as F

from metabench.api import Algorithm, CellFailed, Classification, Episodes, Images, Setup, Support
from metabench.engine.asking import predict, predict_alone
from metabench.engine.batching import Vmapped
from metabench_plugins.backbones.identity import Identity
from metabench_plugins.heads.announced import HEADS

WAY, QUERIES, FEATURES, CPU = 4, 9, 6, torch.device("cpu")
#: Shots of the classes of an episode, also different ones.
every_shots = pytest.mark.parametrize("shots", [(1, 1, 1, 1), (5, 5, 5, 5), (1, 4, 2, 3)], ids=str)
every_head = pytest.mark.parametrize("name", [spec.name for spec in HEADS])


def make(name: str, **params: Any) -> Algorithm:
    (target,) = [spec.target for spec in HEADS if spec.name == name]
    module, cls = target.split(":")
    head = getattr(importlib.import_module(module), cls)
    backbone = Identity(Identity.Config(), (FEATURES,))
    made: Algorithm = head(head.Config(**params), Setup(backbone, None, None, 0)).double().eval()
    return made


def episode(shots: tuple[int, ...] = (5,) * WAY, seed: int = 0, unit: bool = False) -> tuple[Support, Tensor]:
    """Return a support set and queries around a mean of each class, all features positive."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(WAY, FEATURES, generator=generator, dtype=torch.float64)
    y = torch.arange(WAY).repeat_interleave(torch.tensor(shots))
    of_query = torch.arange(WAY).repeat(QUERIES // WAY + 1)[:QUERIES]
    noise = torch.randn(len(y) + QUERIES, FEATURES, generator=generator, dtype=torch.float64)
    x = (means[torch.cat([y, of_query])] + 0.7 * noise).abs()
    if unit:
        x = F.normalize(x, dim=1)
    return Support(x[: len(y)], y, Classification(WAY)), x[len(y) :]


def answers(head: Algorithm, support: Support, query: Tensor) -> Tensor:
    with torch.no_grad():
        return head.answer(head.adapt(support), query)


def means_of(support: Support) -> Tensor:
    return torch.stack([support.x[support.y == label].mean(dim=0) for label in range(WAY)])


def cosines(a: Tensor, b: Tensor) -> Tensor:
    return F.cosine_similarity(a.unsqueeze(1), b.unsqueeze(0), dim=2)


def close(one: Tensor, other: Tensor, atol: float = 1e-9) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=atol)


def by_adam(weight: Tensor, loss: Callable[[Tensor], Tensor], steps: int, lr: float) -> Tensor:
    weight = weight.clone().requires_grad_()
    optimiser = torch.optim.Adam([weight], lr=lr)
    for _ in range(steps):
        optimiser.zero_grad()
        loss(weight).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return weight.detach()


def entropy(scores: Tensor) -> Tensor:
    return -(scores.softmax(dim=1) * scores.log_softmax(dim=1)).sum(dim=1).mean()


# ------------------------------------------------------------------------------------------- inductive heads


def test_the_nearest_mean_is_nearest_by_squared_distance_or_cosine() -> None:
    support = Support(torch.tensor([[0.0, 0], [2, 0], [0, 4]]).double(), torch.tensor([0, 0, 1]), Classification(2))
    query = torch.tensor([[3.0, 4]]).double()
    assert answers(make("nearest-mean"), support, query).tolist() == [[-20.0, -9.0]]
    assert answers(make("nearest-mean", distance="cosine"), support, query)[0].tolist() == pytest.approx([6, 8])


@every_shots
def test_ridge_solves_the_normal_equations(shots: tuple[int, ...]) -> None:
    support, query = episode(shots)
    x, labels = support.x, F.one_hot(support.y).double()
    normal = x.T @ x + 0.3 * torch.eye(FEATURES, dtype=torch.float64)
    weight = torch.linalg.inv(normal) @ x.T @ labels
    close(answers(make("ridge", transform="UN", penalty=0.3, scale=2), support, query), 2 * query @ weight)


@every_shots
@pytest.mark.parametrize("inverse_penalty", [0.1, 1.0, 10.0])
def test_logistic_regression_has_the_optimum_of_scikit_learn(shots: tuple[int, ...], inverse_penalty: float) -> None:
    support, query = episode(shots)
    x, asked = (F.normalize(part, dim=1).numpy() for part in (support.x, query))
    reference = LogisticRegression(C=inverse_penalty, tol=1e-10, max_iter=10_000).fit(x, support.y.numpy())
    ours = answers(make("logistic-regression", inverse_penalty=inverse_penalty), support, query)
    np.testing.assert_allclose(ours.numpy(), reference.decision_function(asked), rtol=0, atol=1e-4)


@every_shots
def test_finetuning_is_adam_on_the_support_set_from_the_class_means(shots: tuple[int, ...]) -> None:
    support, query = episode(shots)

    def loss(weight: Tensor) -> Tensor:
        return F.cross_entropy(3 * cosines(support.x, weight), support.y)

    weight = by_adam(means_of(support), loss, steps=30, lr=0.02)
    close(answers(make("finetuning", steps=30, lr=0.02, scale=3), support, query), 3 * cosines(query, weight))


def test_tip_adapter_adds_the_similarities_to_the_images_of_a_class() -> None:
    support, query = episode((1, 4, 2, 3))
    similar = (-2.0 * (1 - cosines(query, support.x))).exp()
    cached = torch.stack([similar[:, support.y == label].sum(dim=1) for label in range(WAY)], dim=1)
    head = make("tip-adapter", sharpness=2.0, residual=0.5)
    close(answers(head, support, query), 0.5 * cached)
    means = torch.stack([F.normalize(support.x, dim=1)[support.y == label].mean(dim=0) for label in range(WAY)])
    head = make("tip-adapter", sharpness=2.0, residual=0.5, zero_shot="means", scale=3)
    close(answers(head, support, query), 0.5 * cached + 3 * cosines(query, means))


def test_tip_adapter_averages_the_features_of_distorted_copies() -> None:
    support, query = episode()
    head, plain = make("tip-adapter", views=3), make("tip-adapter")
    added = iter([0.0, 0.3, 0.9])
    head.distort = lambda x: x + next(added)
    moved = Support(support.x + 0.4, support.y, support.task)
    close(answers(head, support, query), answers(plain, moved, query))
    assert (head.reads, plain.reads) == ("images", "features")


def test_copies_without_distortions_are_refused() -> None:
    with pytest.raises(
        CellFailed, match=r"views: 3 distorts .* name distortions in its train.augment, or set views: 0"
    ):
        answers(make("tip-adapter", views=3), *episode())


# ---------------------------------------------------------------------------------------- transductive heads


def rectified(support: Support, query: Tensor) -> Tensor:
    """Return BD-CSPN's means, image by image."""
    means, shifted = means_of(support), query + support.x.mean(dim=0) - query.mean(dim=0)
    members: list[list[tuple[float, Tensor]]] = [[] for _ in range(WAY)]
    for x, label in zip(support.x, support.y.tolist(), strict=True):
        members[label].append((float(cosines(x[None], means)[0, label].exp()), x))
    for x in shifted:
        similar = cosines(x[None], means)[0]
        label = int(similar.argmax())
        members[label].append((float(similar[label].exp()), x))
    return torch.stack([sum(w * x for w, x in some) / sum(w for w, _ in some) for some in members])  # type: ignore[misc]


@every_shots
def test_bd_cspn_weights_pseudo_labelled_queries(shots: tuple[int, ...]) -> None:
    support, query = episode(shots)
    close(answers(make("bd-cspn", scale=1), support, query), cosines(query, rectified(support, query)))


@every_shots
@pytest.mark.parametrize("neighbours", [1, 3, 30])
def test_laplacianshot_updates_labels_by_those_of_neighbours(shots: tuple[int, ...], neighbours: int) -> None:
    support, query = episode(shots)
    distances = torch.cdist(query, rectified(support, query)).square()
    nearest = [row.argsort()[1:neighbours].tolist() for row in torch.cdist(query, query)]
    labels = (-distances).softmax(dim=1)
    for _ in range(20):
        pulls = torch.stack([sum((labels[i] for i in some), torch.zeros(WAY).double()) for some in nearest])
        labels = (-distances + 0.7 * pulls).softmax(dim=1)
    ours = answers(make("laplacianshot", transform="UN", neighbours=neighbours), support, query)
    close(ours.exp(), labels)


@every_shots
def test_tim_is_adam_on_its_three_terms(shots: tuple[int, ...]) -> None:
    support, query = episode(shots, unit=True)

    def loss(weight: Tensor) -> Tensor:
        on_support, on_query = (4 * cosines(x, weight) for x in (support.x, query))
        shares = on_query.softmax(dim=1).mean(dim=0)
        marginal = -(shares * shares.log()).sum()
        return 0.2 * F.cross_entropy(on_support, support.y) - 0.9 * marginal + 0.3 * entropy(on_query)

    weight = by_adam(means_of(support), loss, steps=40, lr=0.01)
    weights = {"cross_entropy": 0.2, "marginal_entropy": 0.9, "conditional_entropy": 0.3}
    head = make("tim", steps=40, lr=0.01, scale=4, **weights)
    close(answers(head, support, query), 4 * cosines(query, weight))


@every_shots
def test_transductive_finetuning_is_adam_on_cross_entropy_and_entropy(shots: tuple[int, ...]) -> None:
    support, query = episode(shots)

    def loss(weight: Tensor) -> Tensor:
        on_support, on_query = (-(x.unsqueeze(1) - weight).norm(dim=2) for x in (support.x, query))
        return F.cross_entropy(on_support, support.y) + entropy(on_query)

    weight = by_adam(means_of(support), loss, steps=25, lr=0.01)
    head = make("transductive-finetuning", lr=0.01)
    close(answers(head, support, query), -torch.cdist(query, weight))


@every_shots
@pytest.mark.parametrize("centred", [False, True])
def test_pt_map_moves_means_to_balanced_assignments(shots: tuple[int, ...], centred: bool) -> None:
    support, query = episode(shots)

    def powers(x: Tensor) -> Tensor:
        unit = F.normalize((x + 1e-6).sqrt(), dim=1)
        return F.normalize(unit - unit.mean(dim=0), dim=1) if centred else unit

    def transport(means: Tensor) -> Tensor:
        plan = (-10 * torch.cdist(powers(query), means).square()).exp()
        for _ in range(2000):
            plan = plan / plan.sum(dim=1, keepdim=True)
            plan = plan / plan.sum(dim=0) * (QUERIES / WAY)
        return plan / plan.sum(dim=1, keepdim=True)

    means = means_of(Support(powers(support.x), support.y, support.task))
    x, labels = torch.cat([powers(support.x), powers(query)]), F.one_hot(support.y).double()
    for _ in range(20):
        shares = torch.cat([labels, transport(means)])
        means = means + 0.2 * (shares.T @ x / shares.sum(dim=0).unsqueeze(1) - means)
    ours = answers(make("pt-map", transport_steps=1000, centred=centred), support, query).exp()
    close(ours, transport(means))
    close(ours.sum(dim=0), torch.full((WAY,), QUERIES / WAY).double())


# --------------------------------------------------------------------------------------------------- all heads


@every_head
@every_shots
def test_one_query_is_answered_and_episodes_at_once_are_answered_as_one(name: str, shots: tuple[int, ...]) -> None:
    drawn = [episode(shots, seed) for seed in range(5)]
    support_x, query_x = torch.stack([s.x for s, _ in drawn]), torch.stack([q for _, q in drawn])
    support_y = torch.stack([s.y for s, _ in drawn])
    labels = torch.zeros(5, QUERIES, dtype=torch.long)
    episodes = Episodes(support_x, support_y, query_x, labels, Classification(WAY), embedded=True)
    head = make(name)
    plain = predict(head, episodes, 0, 0), predict_alone(head, episodes, 0, 0)
    assert bool(plain[1].isfinite().all())
    head.batching = Vmapped(CPU, 2)
    for ours, theirs in zip((predict(head, episodes, 0, 0), predict_alone(head, episodes, 0, 0)), plain, strict=True):
        close(ours, theirs, atol=1e-7)


@every_head
def test_features_that_are_zero_give_finite_scores(name: str) -> None:
    support, query = episode()
    black = support.x * (support.y != 0).unsqueeze(1)  # all images of class 0
    scores = answers(make(name), replace(support, x=black), torch.cat([torch.zeros_like(query[:1]), query[1:]]))
    assert not bool(scores.isnan().any())


@every_head
@pytest.mark.parametrize("transform", ["L2N", "CL2N"])
def test_every_head_transforms_its_features_as_simpleshot(name: str, transform: str) -> None:
    support, query = episode()
    mean = torch.linspace(0, 0.5, FEATURES).double()
    head, plain = make(name, transform=transform), make(name, transform="UN")
    head.prepare([Images(mean.repeat(3, 1), torch.zeros(3, dtype=torch.long), 1, embedded=True)])
    centre = mean if transform == "CL2N" else torch.zeros(FEATURES).double()
    moved = Support(F.normalize(support.x - centre, dim=1), support.y, support.task)
    close(answers(head, support, query), answers(plain, moved, F.normalize(query - centre, dim=1)))


@every_head
def test_training_images_are_embedded_for_their_mean_only(name: str) -> None:
    def never() -> Any:
        raise AssertionError("the training images are not needed")
        yield

    make(name, transform="L2N").prepare(never())


@every_head
def test_all_parameters_but_the_number_of_copies_are_of_the_test_only(name: str) -> None:
    fields = type(make(name).config).model_fields
    assert {field for field, info in fields.items() if info.json_schema_extra != {"test_time": True}} <= {"views"}
