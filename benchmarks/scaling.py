"""Plot the time per episode of ProtoNet and MAML.

python benchmarks/scaling.py --output docs/scaling.svg

Each plot varies one setting: way, shot, image size, meta-batch, inner steps or test episodes. The other settings stay
at 5-way 1-shot with 15 queries of 28×28 images and Conv4-64. A point is the median of several rounds, the band extends
from the smallest to the largest. The order of measurements is shuffled in every round, so that a slow minute of the
machine affects all curves. The figure is written after every round.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib import pyplot as plt

from metabench.api import Algorithm, Setup, Split
from metabench.data.sampler import EpisodeShape
from metabench.engine.asking import predict
from metabench.engine.evaluation import evaluate
from metabench.engine.streams import EpisodeStream
from metabench.engine.trial import set_batchings
from metabench.machine.clock import synchronise
from metabench.machine.device import choose_device, describe_device
from metabench.machine.memory import BatchSize
from metabench.machine.reproducible import deterministic
from metabench.registry.configs import validate_config
from metabench.registry.manager import PluginManager

#: The varied settings: label of the axis, and values.
SWEEPS: Mapping[str, tuple[str, tuple[int, ...]]] = {
    "way": ("way", (2, 5, 10, 20)),
    "shot": ("shot", (1, 5, 10, 20)),
    "size": ("image size in pixels", (16, 28, 42, 56, 84)),
    "meta_batch": ("episodes of an outer update", (1, 4, 16, 32)),
    "inner_steps": ("inner steps", (1, 2, 5, 10)),
    "episodes": ("test episodes", (10, 20, 40, 80, 160)),
}

#: The curves, and the settings varied for each.
CURVES: Mapping[str, tuple[str, ...]] = {
    "ProtoNet, training": ("way", "shot", "size", "meta_batch"),
    "ProtoNet, test": ("way", "shot", "size", "episodes"),
    "MAML, training": ("way", "shot", "size", "meta_batch", "inner_steps"),
    "MAML, test": ("way", "shot", "size", "inner_steps", "episodes"),
}


@dataclass(frozen=True)
class Point:
    """The values of all settings for one measurement."""

    way: int = 5
    shot: int = 1
    size: int = 28
    meta_batch: int = 4
    inner_steps: int = 1
    episodes: int = 40


#: Milliseconds per episode in each round, by curve and point.
Measured = dict[tuple[str, Point], list[float]]


def main() -> int:
    """Measure all points and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("docs/scaling.svg"))
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    measured: Measured = {
        (curve, point): [] for curve, sweeps in CURVES.items() for sweep in sweeps for point in _points(sweep)
    }
    order, keys = random.Random(0), list(measured)
    with deterministic():
        for number in range(1, arguments.rounds + 1):
            order.shuffle(keys)
            for i, (curve, point) in enumerate(keys, 1):
                print(f"\rround {number} of {arguments.rounds}: {i}/{len(keys)} ", end="", file=sys.stderr)
                measured[curve, point].append(_measure(curve, point, device))
            _draw(measured, describe_device(device), arguments.output)
            print(f"written: {arguments.output}", file=sys.stderr)
    return 0


def _points(sweep: str) -> list[Point]:
    return [replace(Point(), **{sweep: value}) for value in SWEEPS[sweep][1]]


def _measure(curve: str, point: Point, device: torch.device) -> float:
    """Return milliseconds per episode."""
    name, _, phase = curve.partition(", ")
    shape = EpisodeShape(point.way, point.shot, 15)
    algorithm = _build(name.lower(), point, device)
    stream = EpisodeStream(_split(point.size), shape, "scaling", 0, device)
    set_batchings(algorithm, stream.batch(0, 2))
    if phase == "training":
        algorithm.train()
        count = point.meta_batch
        return _milliseconds(lambda i: algorithm.train_step(stream.batch(i * count, count)), device) / count
    predict(algorithm, stream.batch(0, 2), 0, 0)  # warm-up
    start = time.perf_counter()
    evaluate(algorithm, stream, point.episodes, BatchSize(device), 0)
    return 1e3 * (time.perf_counter() - start) / point.episodes


def _milliseconds(work: Callable[[int], object], device: torch.device, repeats: int = 3) -> float:
    seconds = []
    for i in range(repeats + 2):
        start = time.perf_counter()
        work(i)
        synchronise(device)
        seconds.append(time.perf_counter() - start)
    return 1e3 * statistics.median(seconds[2:])


def _build(name: str, point: Point, device: torch.device) -> Algorithm:
    plugins = PluginManager.from_environment()
    backbone_class, algorithm_class = plugins.backbone_class("conv4"), plugins.algorithm_class(name)
    adapts = name == "maml"
    params = {"inner_steps": point.inner_steps, "test_inner_steps": point.inner_steps} if adapts else {}
    torch.manual_seed(0)
    backbone = backbone_class(
        validate_config(backbone_class.Config, {"norm": "batch" if adapts else "running"}), (1, point.size, point.size)
    )
    setup = Setup(backbone, point.way, point.way, 1000)
    algorithm: Algorithm = algorithm_class(validate_config(algorithm_class.Config, params), setup)
    layout = torch.channels_last if device.type == "cpu" else torch.preserve_format
    return algorithm.to(device, memory_format=layout)  # type: ignore[call-overload, no-any-return]


def _split(size: int) -> Split:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (40 * 35, 1, size, size), dtype=torch.uint8, generator=generator)
    return Split(images, torch.arange(41) * 35, [""] * 40)


def _draw(measured: Measured, device: str, output: Path) -> None:
    mpl.use("svg")
    figure, axes = plt.subplots(2, 3, figsize=(11, 6.5), layout="constrained")
    for axis, (sweep, (label, _)) in zip(axes.flat, SWEEPS.items(), strict=True):
        for number, (curve, sweeps) in enumerate(CURVES.items()):
            if sweep in sweeps:
                points = _points(sweep)
                values = [getattr(point, sweep) for point in points]
                low, middle, high = (
                    [f(measured[curve, point]) for point in points] for f in (min, statistics.median, max)
                )
                color = f"C{number}"
                axis.plot(values, middle, marker="o", markersize=3, label=curve, color=color)
                axis.fill_between(values, low, high, color=color, alpha=0.2, linewidth=0)
        axis.set_xlabel(label)
        axis.set_ylabel("ms an episode")
        axis.set_ylim(bottom=0)
        axis.legend(fontsize=7, frameon=False)
    figure.suptitle(f"5-way 1-shot, 15 queries, 28×28, Conv4-64, but for one thing: {device}", fontsize=10)
    figure.savefig(output)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
