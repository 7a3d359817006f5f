"""Time 10 000 episodes of the nearest class mean on features, with all metrics, beside easyfsl on the same features.

    pip install easyfsl
    python benchmarks/features_easyfsl.py

easyfsl runs as in its own example: `FeaturesDataset`, `TaskSampler`, a `DataLoader` of 0 or 2 workers and
`PrototypicalNetworks` on an identity; the faster number of workers counts. It computes the accuracy only. Rounds
alternate.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from easyfsl.datasets import FeaturesDataset
from easyfsl.methods import PrototypicalNetworks
from easyfsl.samplers import TaskSampler
from torch import nn
from torch.utils.data import DataLoader, Sampler

from metabench.analysis.metrics import CLASSIFICATION, Collector
from metabench.api import Config, Setup, Split
from metabench.data.sampler import EpisodeShape
from metabench.engine.evaluation import measure
from metabench.engine.feature_store import FeatureStore
from metabench.engine.features import FEATURES_AT_ONCE, FeatureRows
from metabench.engine.streams import EpisodeStream
from metabench.engine.trial import batching_for
from metabench.machine.memory import BatchSize, keep_freed_memory
from metabench_plugins.algorithms.protonet import ProtoNet, ProtoNetConfig
from metabench_plugins.backbones.identity import Identity

CLASSES, IMAGES = 100, 60
SHAPE = EpisodeShape(way=5, shot=1, queries=15)
CPU = torch.device("cpu")


def features(dimensions: int) -> torch.Tensor:
    """Return [classes · images, D] noise around a mean of each class."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(CLASSES, 1, dimensions, generator=generator)
    return (means + 2 * torch.randn(CLASSES, IMAGES, dimensions, generator=generator)).flatten(0, 1)


def of_metabench(rows: torch.Tensor, episodes: int) -> float:
    """Return the mean accuracy of metabench; it computes all metrics, raw and at a temperature."""
    backbone = Identity(Config(), (rows.shape[1],))
    algorithm = ProtoNet(ProtoNetConfig(), Setup(backbone, None, None, 0)).eval()
    algorithm.batching = batching_for(CPU, functional=True, inner_loop=False, embedded=True)
    split = Split(rows, torch.arange(CLASSES + 1) * IMAGES, [f"class {c:03d}" for c in range(CLASSES)])
    embedded = FeatureRows(split, "test", backbone, FeatureStore(None, ""), CPU)
    stream = EpisodeStream(replace(split, images=embedded), SHAPE, "test", 0, CPU)
    collector = Collector(CLASSIFICATION, 1.0)
    by_class, _ = measure(algorithm, stream, episodes, BatchSize(CPU, FEATURES_AT_ONCE), 0, collector, 0)
    collector.figures()
    return float(by_class.mean())


def of_easyfsl(rows: torch.Tensor, episodes: int, workers: int) -> float:
    """Return the mean accuracy of easyfsl."""
    labels = [c for c in range(CLASSES) for _ in range(IMAGES)]
    dataset = FeaturesDataset(labels, rows, [str(c) for c in range(CLASSES)])
    sampler = TaskSampler(dataset, SHAPE.way, SHAPE.shot, SHAPE.queries, episodes)
    loader = DataLoader(
        dataset, batch_sampler=sampler, num_workers=workers, collate_fn=sampler.episodic_collate_fn, pin_memory=False
    )
    method = PrototypicalNetworks(nn.Identity()).eval()
    right = 0
    with torch.no_grad():
        for support, support_labels, query, query_labels, _ in loader:
            method.process_support_set(support, support_labels)
            right += int((method(query).argmax(dim=1) == query_labels).sum())
    return right / (episodes * SHAPE.way * SHAPE.queries)


def timed(work: Callable[[], float]) -> tuple[float, float]:
    """Return the seconds and the result of a call."""
    begun = time.perf_counter()
    result = work()
    return time.perf_counter() - begun, result


def main() -> None:
    """Measure at 64 and at 1280 dimensions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--episodes", type=int, default=10_000)
    parser.add_argument("--easyfsl-episodes", type=int, default=1_000, help="its time is scaled to --episodes")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    # easyfsl 1.5.0 calls `Sampler.__init__(data_source=None)`, but recent releases of torch removed this argument.
    if "__init__" not in vars(Sampler):
        Sampler.__init__ = lambda self, data_source=None: None
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    fewer = options.easyfsl_episodes
    for dimensions in (64, 1280):
        rows = features(dimensions)
        of_metabench(rows, 64)
        ours, theirs = [], {0: [], 2: []}
        for _ in range(options.rounds):
            seconds, accuracy = timed(lambda rows=rows: of_metabench(rows, options.episodes))
            ours.append(seconds)
            for workers, times in theirs.items():
                seconds, other = timed(lambda rows=rows, workers=workers: of_easyfsl(rows, fewer, workers))
                times.append(seconds * options.episodes / fewer)
        best = min(statistics.median(times) for times in theirs.values())
        median = statistics.median(ours)
        print(
            f"{dimensions} dimensions, {options.episodes} episodes: metabench {median:.2f} s ({min(ours):.2f} to "
            f"{max(ours):.2f}), easyfsl {best:.1f} s, ratio {best / median:.0f}; accuracies {accuracy:.2%}, {other:.2%}"
        )


if __name__ == "__main__":
    main()
