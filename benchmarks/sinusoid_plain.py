"""MAML on sinusoids in plain torch, without metabench: the figures that its suite `sinusoid` is to agree with.

python benchmarks/sinusoid_plain.py [--updates 15000] [--shots 10] [--std 0.1] [--seed 0]

The protocol is that of Finn et al. 2017 (section 5.1): amplitude 0.1 to 5, phase 0 to π, inputs -5 to 5, an MLP of two
hidden layers of 40, 25 tasks an update, one inner step of 0.01, Adam at 0.001, and 0, 1, 5 and 10 steps at test.
"""

from __future__ import annotations

import argparse
import math
import time

import torch
from torch import Tensor

RATE, TASKS, TEST_TASKS = 0.01, 25, 600


def sinusoids(tasks: int, points: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return [tasks, points, 1] inputs and targets."""
    amplitude = 0.1 + 4.9 * torch.rand(tasks, 1, 1, generator=generator)
    phase = math.pi * torch.rand(tasks, 1, 1, generator=generator)
    x = 10 * torch.rand(tasks, points, 1, generator=generator) - 5
    return x, amplitude * torch.sin(x - phase)


def network(weights: list[Tensor], x: Tensor) -> Tensor:
    """Return the [T, n, 1] outputs of T networks, each with its own weights and [n, 1] inputs."""
    for i in range(0, 6, 2):
        x = torch.baddbmm(weights[i + 1], x, weights[i])
        x = x.relu() if i < 4 else x
    return x


def adapted(weights: list[Tensor], x: Tensor, y: Tensor, steps: int, differentiable: bool = False) -> list[Tensor]:
    """Return the weights of each task after gradient steps on its own mean squared error."""
    for _ in range(steps):
        loss = (network(weights, x) - y).square().mean(dim=(1, 2)).sum()
        slopes = torch.autograd.grad(loss, weights, create_graph=differentiable)
        weights = [weight - RATE * slope for weight, slope in zip(weights, slopes, strict=True)]
    return weights


def copies(weights: list[Tensor], tasks: int) -> list[Tensor]:
    """Return [tasks, …] copies of the weights."""
    return [weight.expand(tasks, *weight.shape[1:]) for weight in weights]


def main() -> None:
    """Train, test, and print a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=15_000)
    parser.add_argument("--shots", type=int, default=10)
    parser.add_argument("--std", type=float, default=0.1, help="standard deviation of the initial weights")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    generator, shots = torch.Generator().manual_seed(arguments.seed), arguments.shots
    shapes = [(1, 1, 40), (1, 1, 40), (1, 40, 40), (1, 1, 40), (1, 40, 1), (1, 1, 1)]
    weights = [
        torch.zeros(shape) if i % 2 else arguments.std * torch.randn(shape, generator=generator)
        for i, shape in enumerate(shapes)
    ]
    weights = [weight.requires_grad_() for weight in weights]
    adam, start = torch.optim.Adam(weights, lr=1e-3), time.perf_counter()
    for update in range(arguments.updates):
        x, y = sinusoids(TASKS, 2 * shots, generator)
        fitted = adapted(copies(weights, TASKS), x[:, :shots], y[:, :shots], 1, differentiable=True)
        loss = (network(fitted, x[:, shots:]) - y[:, shots:]).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        if update % 1000 == 0:
            print(f"update {update}: loss {loss.item():.3f}, {time.perf_counter() - start:.0f} s", flush=True)
    x, y = sinusoids(TEST_TASKS, shots + 100, torch.Generator().manual_seed(arguments.seed + 1))
    for steps in (0, 1, 5, 10):
        fitted = adapted(copies(weights, TEST_TASKS), x[:, :shots], y[:, :shots], steps)
        errors = (network(fitted, x[:, shots:]) - y[:, shots:]).square().mean(dim=(1, 2)).detach()
        half = 1.96 * errors.std().item() / TEST_TASKS**0.5
        print(f"{steps:>2} steps: MSE {errors.mean().item():.3f} ± {half:.3f}")


if __name__ == "__main__":
    main()
