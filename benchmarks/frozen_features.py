"""Nearest class means on features of EfficientNet-Lite0: accuracy and CPU seconds on a folder of images.

    python benchmarks/frozen_features.py caltech101/101_ObjectCategories --exclude BACKGROUND_Google

The folder is looked for in METABENCH_DATA; packs and features go to METABENCH_CACHE. Run it twice: the second run maps
the features of the first.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import torch

from metabench.analysis.stats import mean_interval
from metabench.api import Setup
from metabench.data.packing import DataRoots, load_splits
from metabench.data.sampler import EpisodeShape
from metabench.engine.evaluation import evaluate
from metabench.engine.feature_store import FeatureStore
from metabench.engine.features import FeatureRows
from metabench.engine.scaling import scaled
from metabench.engine.streams import EpisodeStream
from metabench.engine.trial import batching_for
from metabench.machine.memory import BatchSize, keep_freed_memory
from metabench.registry.configs import validate_config
from metabench.registry.manager import PluginManager
from metabench_plugins.algorithms.protonet import ProtoNet, ProtoNetConfig

CPU = torch.device("cpu")

_T = TypeVar("_T")


def timed(name: str, work: Callable[[], _T]) -> _T:
    """Return the result of a piece of work; print its CPU seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    result = work()
    print(f"{name}: {time.process_time() - cpu:.2f} CPU seconds, {time.perf_counter() - wall:.2f} s")
    return result


def main() -> None:
    """Pack, embed and test."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root")
    parser.add_argument("--exclude", nargs="*", default=[])
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    plugins, roots = PluginManager.from_environment(), DataRoots.from_environment(os.environ)
    params = {"root": options.root, "image_size": options.image_size, "exclude": options.exclude}
    dataset = plugins.build_dataset("folder", params)
    loaded = timed("packed and checked", lambda: load_splits("folder", dataset, roots, lambda done, total, what: None))
    cls = plugins.backbone_class("efficientnet-lite0")
    shape = loaded.splits["test"].rows.shape
    backbone = cls(validate_config(cls.Config, {}), shape).requires_grad_(False).to(memory_format=torch.channels_last)
    print(backbone.input.remark(shape), file=sys.stderr)
    store = FeatureStore(loaded.features, loaded.fingerprint)
    splits = {
        name: replace(split, images=FeatureRows(split, name, backbone, store, CPU))
        for name, split in scaled(loaded.splits, backbone).items()
    }
    for name, split in splits.items():
        title = f"features of {name}, {split.size.classes} classes, {len(split.rows)} images"
        timed(title, lambda split=split: split.rows.take(torch.arange(1)))  # type: ignore[misc]
    for shot in (1, 5):
        episode = EpisodeShape(5, shot, 15)
        algorithm = ProtoNet(ProtoNetConfig(), Setup(backbone, 5, 5, 0)).eval()
        algorithm.batching = batching_for(CPU, functional=True, inner_loop=False, embedded=True)
        stream = EpisodeStream(splits["test"], episode, "test", 0, CPU)
        batch = BatchSize(CPU, stream.at_once)
        accuracies = timed(
            f"{options.episodes} episodes of 5-way {shot}-shot",
            lambda algorithm=algorithm, stream=stream, batch=batch: evaluate(  # type: ignore[misc]
                algorithm, stream, options.episodes, batch, 0
            ),
        )
        interval = mean_interval(accuracies.mean(axis=1))
        print(f"5-way {shot}-shot: {interval.mean:.2%} ± {interval.ci95:.2%}")


if __name__ == "__main__":
    main()
