"""Measure metabench's agreement, speed and memory on a GPU.

python benchmarks/peers/gpu.py
python benchmarks/peers/gpu.py --device cpu --seconds 1 --rounds 1 --episodes 64     # a short trial

The script needs metabench, and Omniglot in METABENCH_DATA. It prints

- the largest differences in float64 from the plain loop on the CPU, of each algorithm's predictions, and of its weights
  after an outer update;
- the rates and peak memory of MAML's second-order training, in turns with a textbook loop on the same device, and of
  ProtoNet's evaluation, in each precision;
- the number of times that an outer update makes the host wait for the device;
- the expected time of each cell of the profile ``paper`` of suites/omniglot.yaml.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from contestants import OUTER_RATE
from metabench_cells import CellWork, planned, splits_of
from network import initial_classifier, initial_embedding
from peer_textbook import query_loss
from torch import Tensor

from metabench.api import Algorithm, Episodes
from metabench.api.batching import Sequential
from metabench.engine.asking import predict
from metabench.engine.evaluation import evaluate
from metabench.engine.learner import build_tested
from metabench.engine.precision import tf32
from metabench.engine.streams import evaluation_stream, training_stream
from metabench.engine.trial import set_batchings
from metabench.executors.rehearsal import rehearse
from metabench.machine.clock import synchronise
from metabench.machine.device import choose_device, describe_device
from metabench.machine.memory import BatchSize, PeakMemory
from metabench.machine.reproducible import deterministic
from metabench.registry.manager import PluginManager

STREAMS = (evaluation_stream, training_stream)
SUITE = Path(__file__).parents[2] / "suites" / "omniglot.yaml"
META_BATCH = 32


def main() -> None:
    """Print all measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--seconds", type=float, default=5.0, help="duration of one turn (5)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contestant (5)")
    parser.add_argument("--episodes", type=int, default=20_000, help="episodes of ProtoNet's evaluation (20000)")
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    precisions = ["float32", "tf32", "bf16"] if device.type == "cuda" else ["float32", "bf16"]
    print(f"device: {describe_device(device)}, torch {torch.__version__}")
    with deterministic():
        print_agreement(device)
        for precision in precisions:
            with tf32(precision == "tf32"):
                print_training(device, precision, arguments.seconds, arguments.rounds)
                print_evaluation(device, precision, arguments.episodes, arguments.rounds)
    print_expected_minutes(device)


def print_agreement(device: torch.device) -> None:
    """Print each algorithm's differences from the plain CPU loop."""
    print("\nlargest difference from the plain loop on the CPU in float64, as a share of the largest number")
    plugins = PluginManager.from_environment()
    cells = planned(SUITE, "paper", plugins)
    splits = splits_of(cells[0], plugins)  # all cells have the same dataset
    for cell in cells:
        test, train = (make(cell, splits, torch.device("cpu")).batch(0, 3) for make in STREAMS)
        scores: list[Tensor] = []
        weights: list[Tensor] = []
        for place, batching in ((torch.device("cpu"), Sequential()), (device, None)):
            algorithm = build_tested(cell, splits, place, plugins).double()
            set_batchings(algorithm, in_double(train, place))
            if batching is not None:
                algorithm.batching = algorithm.training_batching = batching
            scores.append(predict(algorithm, in_double(test, place), 0, 0))
            weights.append(updated(algorithm, in_double(train, place)))
            functional = algorithm.functional
        # Algorithms that are not functional draw random numbers in training, which differ between kinds of device.
        after = f"{share(*weights):.0e}" if functional else "not compared"
        print(f"{cell.title}: predictions {share(*scores):.0e}, weights {after}")


def in_double(drawn: Episodes, device: torch.device) -> Episodes:
    """Return the episodes in float64 on `device`."""
    images = [x.to(device, torch.float64) for x in (drawn.support_x, drawn.query_x)]
    support_y, query_y = drawn.support_y.to(device), drawn.query_y.to(device)
    return Episodes(images[0], support_y, images[1], query_y, drawn.task)


def updated(algorithm: Algorithm, drawn: Episodes) -> Tensor:
    """Return all weights after one outer update, flattened."""
    algorithm.train()
    torch.manual_seed(0)
    algorithm.train_step(drawn)
    return torch.cat([weight.detach().flatten() for weight in algorithm.parameters()])


def share(expected: Tensor, actual: Tensor) -> float:
    """Return the largest difference divided by the largest expected value."""
    return float((actual.cpu() - expected.cpu()).abs().max() / expected.abs().max())


def print_training(device: torch.device, precision: str, seconds: float, rounds: int) -> None:
    """Print MAML's training rate beside a textbook loop's."""
    work = CellWork("maml", "rotated", precision, device)
    work.load(initial_classifier())
    numbers = itertools.count()

    def metabench_step() -> None:
        work.algorithm.train()
        work.algorithm.train_step(work.train.batch(next(numbers) * META_BATCH, META_BATCH))

    network = initial_classifier().to(device)
    optimiser = torch.optim.Adam(network.parameters(), lr=OUTER_RATE)
    tasks = list(work.train.batch(0, META_BATCH))

    def textbook_step() -> None:
        optimiser.zero_grad()
        with tf32(False):
            for task in tasks:
                (query_loss(network, task) / META_BATCH).backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    rates: list[tuple[float, float]] = []
    for step in (metabench_step, metabench_step, textbook_step):
        step()  # warm-up
    memory = PeakMemory(device)
    metabench_step()
    peak = memory.bytes() / 2**20
    for _ in range(rounds):
        metabench, textbook = (META_BATCH * rate(step, seconds, device) for step in (metabench_step, textbook_step))
        rates.append((metabench, textbook))
    ratios = [metabench / textbook for metabench, textbook in rates]
    print(
        f"\nMAML, second order, {META_BATCH} tasks, {precision}: {spread([metabench for metabench, _ in rates])} "
        f"tasks/s, {spread(ratios)} times the textbook loop in float32, peak {peak:.0f} MiB; "
        f"{waits(metabench_step, device)}"
    )


def rate(step: Callable[[], None], seconds: float, device: torch.device) -> float:
    """Return the number of steps per second."""
    synchronise(device)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        step()
        synchronise(device)
        count += 1
    return count / (time.perf_counter() - start)


def spread(values: list[float]) -> str:
    """Return median, smallest and largest value as text."""
    return f"{statistics.median(values):.3g} ({min(values):.3g}-{max(values):.3g})"


def waits(step: Callable[[], None], device: torch.device) -> str:
    """Return how often a step makes the host wait."""
    if device.type != "cuda":
        return "a CPU does not wait for itself"
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    synchronisations = [warning for warning in caught if "synchroniz" in str(warning.message)]
    places = sorted({f"{Path(warning.filename).name}:{warning.lineno}" for warning in synchronisations})
    return f"the host waits {len(synchronisations)} times in a step {places or ''}"


def print_evaluation(device: torch.device, precision: str, episodes: int, rounds: int) -> None:
    """Print the rate of ProtoNet's evaluation, data included."""
    work = CellWork("protonet", "characters", precision, device)
    work.load(initial_embedding())
    batch = BatchSize(device)
    evaluate(work.algorithm, work.test, 2 * batch.size, batch, 0)  # warm-up
    memory, rates = PeakMemory(device), []
    for _ in range(rounds):
        synchronise(device)
        start = time.perf_counter()
        evaluate(work.algorithm, work.test, episodes, batch, 0)
        rates.append(episodes / (time.perf_counter() - start))
    peak = memory.bytes() / 2**20
    print(f"ProtoNet, evaluation, {precision}: {spread(rates)} episodes/s, {batch.size} at once, peak {peak:.0f} MiB")


def print_expected_minutes(device: torch.device) -> None:
    """Print the expected minutes of each ``paper`` cell."""
    plugins = PluginManager.from_environment()
    cells = planned(SUITE, "paper", plugins)
    splits = splits_of(cells[0], plugins)  # all cells have the same dataset
    seconds = rehearse(cells, {cells[0].dataset.label: splits}, device, plugins)
    print("\nexpected of the profile paper, from a few steps:")
    for cell in cells:
        print(f"{cell.title}: {seconds[cell.id] / 60:.1f} min")
    print(f"in all: {sum(seconds.values()) / 60:.0f} min")


if __name__ == "__main__":
    main()
