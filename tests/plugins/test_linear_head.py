"""A module under other weights than its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from metabench_plugins.algorithms.linear_head import UnderWeights


class Tied(nn.Module):
    """Two layers with the same weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        """Return [n, 3]."""
        scores: Tensor = self.second(torch.tanh(self.first(x)))
        return scores


def other_weights(module: nn.Module) -> dict[str, Tensor]:
    """Return random weights with the names and shapes of the module's."""
    return {name: torch.randn_like(own, requires_grad=True) for name, own in module.named_parameters()}


@pytest.mark.parametrize(
    "make",
    [
        Tied,
        lambda: nn.LSTM(3, 2),
        lambda: nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)),
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)),
    ],
    ids=["shared weight", "recurrent", "buffers", "parametrised"],
)
def test_output_and_gradients_under_other_weights_are_those_of_functional_call(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    module = make()
    weights, x = other_weights(module), torch.randn(4, 3)

    def first(output: Tensor | tuple[Tensor, ...]) -> Tensor:
        return output[0] if isinstance(output, tuple) else output

    ours = first(UnderWeights(module)(weights, x))
    reference = first(functional_call(module, weights, (x,)))
    torch.testing.assert_close(ours, reference, rtol=0, atol=0)
    wanted = list(weights.values())
    for own, expected in zip(
        torch.autograd.grad(ours.square().sum(), wanted),
        torch.autograd.grad(reference.square().sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(own, expected, rtol=0, atol=0)


def test_episodes_under_torch_vmap_have_weights_of_their_own() -> None:
    module, x = Tied(), torch.randn(5, 4, 3)
    weights = {name: torch.randn(5, *own.shape) for name, own in module.named_parameters()}
    ours = torch.vmap(UnderWeights(module))(weights, x)
    reference = torch.stack(
        [functional_call(module, {name: rows[i] for name, rows in weights.items()}, (x[i],)) for i in range(5)]
    )
    torch.testing.assert_close(ours, reference)


def test_a_recurrent_module_computes_with_its_own_weights_after_a_call() -> None:
    module, x = nn.LSTM(3, 2), torch.randn(4, 3)
    before, _ = module(x)
    UnderWeights(module)(other_weights(module), x)
    torch.testing.assert_close(module(x)[0], before, rtol=0, atol=0)


def test_a_module_has_its_own_weights_back_after_a_call_and_after_one_that_fails() -> None:
    module, x = Tied(), torch.randn(4, 3)
    own, before = dict(module.named_parameters()), module(x)
    under = UnderWeights(module)
    under(other_weights(module), x)
    with pytest.raises(RuntimeError):
        under(other_weights(module), torch.randn(4, 7))
    assert all(parameter is own[name] for name, parameter in module.named_parameters())
    assert module.second.weight is module.first.weight
    torch.testing.assert_close(module(x), before, rtol=0, atol=0)


def test_weights_that_are_not_given_are_the_modules_own() -> None:
    module, x = Tied(), torch.randn(4, 3)
    some = {"first.bias": torch.randn(3)}
    torch.testing.assert_close(UnderWeights(module)(some, x), functional_call(module, some, (x,)), rtol=0, atol=0)


def test_a_weight_of_no_parameter_is_refused_and_nothing_is_changed() -> None:
    module, x = Tied(), torch.randn(4, 3)
    before = module(x)
    with pytest.raises(KeyError, match="third"):
        UnderWeights(module)({**other_weights(module), "third.weight": torch.randn(3, 3)}, x)
    torch.testing.assert_close(module(x), before, rtol=0, atol=0)
