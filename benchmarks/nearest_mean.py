"""Time 10 000 episodes of the nearest class mean on features, and compare labels with those from images.

    python benchmarks/nearest_mean.py --threads 2

The images are noise around a mean of each class; the backbone is a fixed random projection. Nothing is written.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import Tensor

from metabench.api import Backbone, Config, Setup, Split
from metabench.data.sampler import EpisodeShape
from metabench.engine.asking import predict
from metabench.engine.batching import InOrder
from metabench.engine.evaluation import evaluate
from metabench.engine.feature_store import FeatureStore
from metabench.engine.features import FeatureRows
from metabench.engine.streams import EpisodeStream
from metabench.engine.trial import batching_for
from metabench.machine.clock import Stopwatch
from metabench.machine.memory import BatchSize, keep_freed_memory
from metabench_plugins.algorithms.protonet import ProtoNet, ProtoNetConfig

CLASSES, IMAGES = 100, 60
SHAPE = EpisodeShape(way=5, shot=1, queries=15)
CPU = torch.device("cpu")


class Projection(Backbone):
    """A fixed random projection of the pixels."""

    frozen = True
    per_image = True

    def __init__(self, features: int, image_shape: tuple[int, ...]) -> None:
        super().__init__(Config(), image_shape)
        self.dense = torch.nn.Linear(image_shape[0] * image_shape[1] * image_shape[2], features)
        self.features = features

    def forward(self, x: Tensor, support: int | None = None) -> Tensor:
        """See `metabench.api.Backbone.forward`."""
        return self.dense(x.flatten(1))  # type: ignore[no-any-return]


def images() -> Split:
    """Return 100 classes of 60 noisy images of 3×16×16."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randint(0, 256, (CLASSES, 1, 3, 16, 16), generator=generator)
    noise = torch.randint(-255, 256, (CLASSES, IMAGES, 3, 16, 16), generator=generator)
    pixels = ((means + 3 * noise) // 4).clamp(0, 255).to(torch.uint8).flatten(0, 1)
    return Split(pixels, torch.arange(CLASSES + 1) * IMAGES, [f"class {c:03d}" for c in range(CLASSES)])


def measure(features: int, episodes: int, rounds: int) -> None:
    """Print the seconds of `episodes` episodes, and how many labels differ from those from images."""
    torch.manual_seed(0)
    split = images()
    algorithm = ProtoNet(ProtoNetConfig(), Setup(Projection(features, (3, 16, 16)), SHAPE.way, SHAPE.way, 0)).eval()
    algorithm.batching = batching_for(CPU, functional=True, inner_loop=False, embedded=True)
    rows = FeatureRows(split, "test", algorithm.backbone, FeatureStore(None, ""), CPU)
    stream = EpisodeStream(Split(rows, split.offsets, split.class_names), SHAPE, "test", 0, CPU)
    seconds, cpu_seconds = [], []
    for _ in range(rounds + 1):
        watch, before = Stopwatch(CPU), time.process_time()
        with watch.running():
            accuracies = evaluate(algorithm, stream, episodes, BatchSize(CPU, stream.at_once), 0)
        seconds.append(watch.seconds)
        cpu_seconds.append(time.process_time() - before)
    differ, ties = _differences(algorithm, stream, min(episodes, 500))
    print(
        f"{features} dimensions: median {statistics.median(seconds[1:]):.2f} s "
        f"({min(seconds[1:]):.2f} to {max(seconds[1:]):.2f}), {statistics.median(cpu_seconds[1:]):.2f} CPU seconds for "
        f"{episodes} episodes, accuracy {accuracies.mean():.2%}; "
        f"{differ} labels differ from those from images beside {ties} ties"
    )


def _differences(algorithm: ProtoNet, stream: EpisodeStream, episodes: int) -> tuple[int, int]:
    """Return the number of labels that differ though no two scores tie within 1e-5, and the number of ties."""
    differ = ties = 0
    for first in range(0, episodes, 50):
        cached = predict(algorithm, stream.batch(first, 50), 0, first)
        batching, algorithm.batching = algorithm.batching, InOrder()
        from_images = predict(algorithm, stream.images.batch(first, 50), 0, first)
        algorithm.batching = batching
        best = from_images.topk(2, dim=-1).values
        tied = (best[..., 0] - best[..., 1]) <= 1e-5 * from_images.abs().amax(dim=-1)
        differ += int(((cached.argmax(-1) != from_images.argmax(-1)) & ~tied).sum())
        ties += int(tied.sum())
    return differ, ties


def main() -> None:
    """Measure at 64 and at 1280 dimensions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--episodes", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    for features in (64, 1280):
        measure(features, options.episodes, options.rounds)


if __name__ == "__main__":
    main()
