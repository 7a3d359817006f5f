"""The outer optimiser, against plain torch."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR, StepLR

from metabench.api import AlgorithmConfig
from metabench.api.outer import OuterOptimiser, lr_factor

STEPS = 20


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def loss_of(net: nn.Module, step: int) -> Tensor:
    x = torch.randn(7, 6, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
    value: Tensor = net(x).square().mean()
    return value


def optimiser_of(net: nn.Module, steps: int = STEPS, **params: Any) -> OuterOptimiser:
    return OuterOptimiser(list(net.parameters()), AlgorithmConfig(**params), steps)


def make_steps(net: nn.Module, optimiser: OuterOptimiser, first: int, last: int) -> None:
    for step in range(first, last):
        optimiser.zero_grad()
        loss_of(net, step).backward()  # type: ignore[no-untyped-call]
        optimiser.step()


def sgd(parameters: Any) -> Optimizer:
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)


@pytest.mark.parametrize(
    ("params", "optimiser", "schedule"),
    [
        ({"optimiser": "sgd", "lr": 0.1}, lambda p: torch.optim.SGD(p, lr=0.1), None),
        (
            {
                "optimiser": "sgd",
                "lr": 0.1,
                "momentum": 0.9,
                "nesterov": True,
                "weight_decay": 5e-4,
                "schedule": "cosine",
            },
            sgd,
            lambda o: CosineAnnealingLR(o, STEPS),
        ),
        (
            {"lr": 0.01, "weight_decay": 0.1, "schedule": "step", "decay_at": (0.5, 0.75), "decay": 0.1},
            lambda p: Adam(p, lr=0.01, weight_decay=0.1),
            lambda o: MultiStepLR(o, [10, 15], gamma=0.1),
        ),
        (
            {"optimiser": "adamw", "lr": 0.01, "weight_decay": 0.1, "schedule": "step", "decay_every": 6},
            lambda p: AdamW(p, lr=0.01, weight_decay=0.1),
            lambda o: StepLR(o, 6, gamma=0.5),
        ),
    ],
)
def test_the_weights_are_those_of_a_plain_torch_loop(
    params: dict[str, Any],
    optimiser: Callable[[Any], Optimizer],
    schedule: Callable[[Optimizer], LRScheduler] | None,
) -> None:
    ours, plain = network(), network()
    make_steps(ours, optimiser_of(ours, **params), 0, STEPS)
    steps = optimiser(plain.parameters())
    rates = schedule(steps) if schedule else None
    for step in range(STEPS):
        steps.zero_grad()
        loss_of(plain, step).backward()  # type: ignore[no-untyped-call]
        steps.step()
        if rates:
            rates.step()
    for one, other in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)
    assert not torch.equal(next(ours.parameters()), next(network().parameters()))


def test_each_parameter_has_its_multiple_of_the_scheduled_learning_rate() -> None:
    ours, plain = network(), network()
    params: dict[str, Any] = {"optimiser": "sgd", "lr": 0.1, "schedule": "step", "decay_every": 6}
    optimiser = OuterOptimiser(list(ours.parameters()), AlgorithmConfig(**params), STEPS, [1.0, 0.1, 1.0, 10.0])
    make_steps(ours, optimiser, 0, STEPS)
    weight, bias, second_weight, second_bias = plain.parameters()
    steps = torch.optim.SGD(
        [{"params": [weight, second_weight]}, {"params": [bias], "lr": 0.01}, {"params": [second_bias], "lr": 1.0}],
        lr=0.1,
    )
    rates = StepLR(steps, 6, gamma=0.5)
    for step in range(STEPS):
        steps.zero_grad()
        loss_of(plain, step).backward()  # type: ignore[no-untyped-call]
        steps.step()
        rates.step()
    for one, other in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_a_warm_up_rises_linearly_before_the_schedule_begins() -> None:
    config = AlgorithmConfig(schedule="cosine", warm_up=4)
    factors = [lr_factor(config, step, 12) for step in range(13)]
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert factors[8] == pytest.approx(0.5)
    assert factors[12] == pytest.approx(0.0)
    assert factors[4:] == sorted(factors[4:], reverse=True)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step"])
def test_a_saved_optimiser_goes_on_bit_for_bit(schedule: str) -> None:
    params = {"optimiser": "sgd", "momentum": 0.9, "lr": 0.1, "warm_up": 3, "schedule": schedule, "decay_every": 5}
    whole, half, rest = network(), network(), network()
    make_steps(whole, optimiser_of(whole, **params), 0, STEPS)
    first = optimiser_of(half, **params)
    make_steps(half, first, 0, 9)
    file = io.BytesIO()
    torch.save({"weights": half.state_dict(), "training": first.state()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    rest.load_state_dict(saved["weights"])
    second = optimiser_of(rest, **params)
    second.load(saved["training"])
    make_steps(rest, second, 9, STEPS)
    assert all(torch.equal(one, other) for one, other in zip(whole.parameters(), rest.parameters(), strict=True))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"momentum": 0.9}, "momentum and nesterov are parameters of sgd, and the optimiser is adam"),
        ({"optimiser": "sgd", "nesterov": True}, "nesterov needs a momentum"),
        ({"schedule": "step"}, "needs decay_every"),
        ({"schedule": "step", "decay_at": (1.5,)}, "less than 1"),
        ({"optimiser": "adamax"}, "'adam', 'adamw' or 'sgd'"),
    ],
)
def test_parameters_that_contradict_each_other_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        AlgorithmConfig(**params)
