"""Compare the heads with easyfsl's methods on the same features and episodes: equal labels, and times.

    pip install easyfsl
    python benchmarks/heads_easyfsl.py

Both get the parameters of easyfsl, and episodes at hand: easyfsl's methods one after the other, without its sampler
and its data loader. Ours are timed with drawing and gathering of the episodes, too (second ratio). Times are CPU
seconds; rounds alternate, and the fastest of each counts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from easyfsl import methods
from tabulate import tabulate
from torch import Tensor
from torch.nn import functional as F

from metabench.api import Algorithm, Config, Episodes, Setup, Split
from metabench.data.sampler import EpisodeShape
from metabench.engine.asking import predict
from metabench.engine.feature_store import FeatureStore
from metabench.engine.features import FEATURES_AT_ONCE, FeatureRows
from metabench.engine.streams import EpisodeStream
from metabench.engine.trial import batching_for
from metabench.machine.memory import keep_freed_memory
from metabench.registry.configs import validate_config
from metabench.registry.manager import PluginManager
from metabench_plugins.backbones.identity import Identity

CLASSES, IMAGES = 100, 60
CPU = torch.device("cpu")

_T = TypeVar("_T")


@dataclass(frozen=True)
class Pair:
    """A head, and the method of easyfsl that is the same function.

    Attributes:
        head: name of the head.
        params: its parameters, where easyfsl's differ from its defaults.
        peer: name of the class in `easyfsl.methods`.
        peer_params: arguments of its constructor.
    """

    head: str
    params: Mapping[str, Any]
    peer: str
    peer_params: Mapping[str, Any] = field(default_factory=dict)


PAIRS = (
    Pair("nearest-mean", {}, "PrototypicalNetworks"),
    Pair("nearest-mean", {"distance": "cosine"}, "SimpleShot"),
    # The paper's, to the mean that is not normalised again.
    Pair("simpleshot", {"transform": "L2N"}, "SimpleShot"),
    Pair("finetuning", {"scale": 1.0}, "Finetune"),
    Pair("bd-cspn", {}, "BDCSPN"),
    Pair("laplacianshot", {"transform": "UN"}, "LaplacianShot"),
    Pair("tim", {"transform": "UN", "steps": 50, "scale": 10.0, "cross_entropy": 1.0}, "TIM"),
    # Features divided by their sum have length 1 after the square root.
    Pair("pt-map", {"steps": 10, "centred": False}, "PTMAP", {"feature_normalization": 1.0}),
    Pair("transductive-finetuning", {}, "TransductiveFinetuning"),
)


def features(dimensions: int) -> Tensor:
    """Return [classes · images, D] features of length 1, positive as after a ReLU, around a mean of each class."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(CLASSES, 1, dimensions, generator=generator)
    noise = torch.randn(CLASSES, IMAGES, dimensions, generator=generator)
    spread = 2.4 * (dimensions / 64) ** 0.25  # the task is about as hard in any number of dimensions
    return F.normalize((means + spread * noise).relu().flatten(0, 1) + 0.01, dim=1)


def episodes_of(rows: Tensor, shot: int) -> EpisodeStream:
    """Return 5-way episodes of features."""
    split = Split(rows, torch.arange(CLASSES + 1) * IMAGES, [f"class {c:03d}" for c in range(CLASSES)])
    embedded = FeatureRows(split, "test", Identity(Config(), (rows.shape[1],)), FeatureStore(None, ""), CPU)
    return EpisodeStream(replace(split, images=embedded), EpisodeShape(5, shot, 15), "test", 0, CPU)


def head_of(pair: Pair, dimensions: int, plugins: PluginManager) -> Algorithm:
    """Return a head with the batching that the engine chooses for it."""
    cls = plugins.algorithm_class(pair.head)
    backbone = Identity(Config(), (dimensions,))
    made = cls(validate_config(cls.Config, dict(pair.params)), Setup(backbone, None, None, 0)).eval()
    made.batching = batching_for(CPU, functional=True, inner_loop=False, embedded=True)
    return made


def of_head(head: Algorithm, batches: Iterable[Episodes]) -> Tensor:
    """Return the [episodes, M] labels of a head."""
    return torch.cat([predict(head, batch, 0, 0).argmax(dim=-1) for batch in batches])


@torch.no_grad()
def of_peer(pair: Pair, stream: EpisodeStream, episodes: int) -> Tensor:
    """Return the [episodes, M] labels of easyfsl's method."""
    labels = []
    for episode in stream.batch(0, episodes):
        method = getattr(methods, pair.peer)(**pair.peer_params).eval()
        method.process_support_set(episode.support.x, episode.support.y)
        labels.append(method(episode.query_x).argmax(dim=-1))
    return torch.stack(labels)


def timed(work: Callable[[], _T]) -> tuple[float, _T]:
    """Return the CPU seconds and the result of a call."""
    begun = time.process_time()
    result = work()
    return time.process_time() - begun, result


def compared(pair: Pair, rows: Tensor, shot: int, options: argparse.Namespace, plugins: PluginManager) -> list[Any]:
    """Return a row of the table."""
    stream, head = episodes_of(rows, shot), head_of(pair, rows.shape[1], plugins)
    firsts = range(0, options.episodes, FEATURES_AT_ONCE)
    at_hand = [stream.batch(first, FEATURES_AT_ONCE) for first in firsts]
    of_head(head, at_hand[:1])  # warm-up
    ours, drawn, theirs = [], [], []
    for _ in range(options.rounds):
        ours.append(timed(lambda: of_head(head, at_hand)))
        drawn.append(timed(lambda: of_head(head, (stream.batch(first, FEATURES_AT_ONCE) for first in firsts))))
        theirs.append(timed(lambda: of_peer(pair, stream, options.peer_episodes)))
    labels, same = ours[0][1], theirs[0][1]
    wanted = torch.cat([batch.query_y for batch in at_hand])
    each, with_draws = (min(s for s, _ in times) / len(wanted) for times in (ours, drawn))
    peer = min(s for s, _ in theirs) / options.peer_episodes
    setting = ", ".join(f"{name} {value}" for name, value in pair.params.items())
    return [
        rows.shape[1],
        shot,
        f"{pair.head} ({setting})" if setting else pair.head,
        pair.peer,
        f"{float((labels == wanted).double().mean()):.1%}",
        f"{float((labels[: len(same)] == same).double().mean()):.2%}",
        f"{1e3 * each:.3f}",
        f"{1e3 * peer:.2f}",
        f"{peer / each:.0f}",
        f"{peer / with_draws:.0f}",
    ]


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dimensions", type=int, nargs="*", default=[64, 640, 1280])
    parser.add_argument("--shots", type=int, nargs="*", default=[1, 5])
    parser.add_argument("--episodes", type=int, default=512, help="episodes of ours")
    parser.add_argument("--peer-episodes", type=int, default=100, help="the first ones, which easyfsl's methods get")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if options.peer_episodes > options.episodes:
        parser.error("--peer-episodes must not exceed --episodes, of which they are the first ones")
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    plugins, table = PluginManager.from_environment(), []
    for dimensions in options.dimensions:
        rows = features(dimensions)
        for shot in options.shots:
            for pair in PAIRS:
                print(f"{dimensions} dimensions, {shot}-shot: {pair.head} and {pair.peer}", end="\033[K\r", flush=True)
                table.append(compared(pair, rows, shot, options, plugins))
    headers = [
        "D",
        "shot",
        "head",
        "easyfsl",
        "accuracy",
        "same labels",
        "ms an episode",
        "easyfsl's",
        "ratio",
        "with draws",
    ]
    print("\033[K" + tabulate(table, headers, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
