"""Contestants of easyfsl, with PNG files as in its tutorials."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from contestants import QUERIES, SHOT, WAY, Contestant
from easyfsl.datasets import EasySet
from easyfsl.methods import FewShotClassifier, MatchingNetworks, PrototypicalNetworks
from easyfsl.samplers import TaskSampler
from easyfsl.utils import evaluate_on_one_task
from network import CHANNELS, initial_context, initial_embedding
from prepared import load_episodes, test_characters
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from torchvision import transforms
from torchvision.transforms import InterpolationMode

#: Number of tasks of a loader: so many that it is never restarted within a run.
_ENDLESS = 10**7


def protonet_evaluation(data: Path, loaders: int) -> Contestant:
    """Evaluate prototypical networks, data included."""
    return _evaluation(data, loaders, PrototypicalNetworks(initial_embedding()))


def matchingnet_evaluation(data: Path, loaders: int) -> Contestant:
    """Evaluate matching networks, data included."""
    support, query = initial_context()
    model = MatchingNetworks(
        initial_embedding(), feature_dimension=CHANNELS, support_encoder=support, query_encoder=query
    )
    return _evaluation(data, loaders, model)


def episodes(data: Path, loaders: int) -> Contestant:
    """Load episodes."""
    upcoming = _episodes(data, loaders)
    return Contestant(lambda: len(next(upcoming)) > 0)


def _evaluation(data: Path, loaders: int, model: FewShotClassifier) -> Contestant:
    """Return a contestant that runs `easyfsl.utils.evaluate` task by task.

    Loader processes load a few episodes ahead while the contestant waits for its turn, in easyfsl's favour.
    """
    model.eval()
    upcoming = _episodes(data, loaders)

    def one() -> float:
        with torch.no_grad():
            correct, total = evaluate_on_one_task(model, *next(upcoming)[:4])
        return correct / total

    def step() -> int:
        one()
        return 1

    def check() -> list[float]:
        labels: list[float] = []
        with torch.no_grad():
            for support_x, support_y, query_x, _ in load_episodes(data, "test")[0]:
                model.process_support_set(support_x, support_y)
                labels += model(query_x).argmax(dim=-1).tolist()
        return labels

    return Contestant(step, check, accuracies=lambda count: [one() for _ in range(count)])


def _episodes(data: Path, loaders: int) -> Iterator[tuple[Tensor, ...]]:
    roots = [str(folder) for folder in test_characters(data)]
    specs = data / f"easyset-{os.getpid()}.json"
    specs.write_text(json.dumps({"class_names": roots, "class_roots": roots}))
    try:
        dataset = EasySet(specs, transform=_transform())
    finally:
        specs.unlink()
    _accept_no_source()
    sampler = TaskSampler(dataset, n_way=WAY, n_shot=SHOT, n_query=QUERIES, n_tasks=_ENDLESS)
    loader = DataLoader(dataset, batch_sampler=sampler, num_workers=loaders, collate_fn=sampler.episodic_collate_fn)
    return itertools.chain.from_iterable(itertools.repeat(loader))


def _transform() -> transforms.Compose:
    """Return the transform to metabench's images.

    They have light strokes on black, and are resized to 28×28 pixels with LANCZOS.
    """
    return transforms.Compose(
        [
            transforms.Grayscale(),
            transforms.Resize((28, 28), interpolation=InterpolationMode.LANCZOS),
            transforms.ToTensor(),
            transforms.Lambda(_inverted),
        ]
    )


def _inverted(image: Tensor) -> Tensor:
    return 1 - image


def _accept_no_source() -> None:
    # easyfsl 1.5.0 calls `Sampler.__init__(data_source=None)`, but recent releases of torch removed this argument. The
    # old constructor ignored it.
    if "__init__" not in vars(Sampler):
        Sampler.__init__ = lambda self, data_source=None: None  # type: ignore[method-assign]
