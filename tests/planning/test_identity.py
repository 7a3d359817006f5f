"""Whether a change ends earlier results: hashes of the core's results are pinned, and every setting is classified."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from types import NoneType
from typing import get_args

import numpy as np
import pytest
from pydantic import BaseModel

from metabench.data.sampler import EpisodeSampler, EpisodeShape
from metabench.engine.outcome import Outcome
from metabench.planning.identity import IDENTITY_VERSION
from metabench.planning.plan import make_plan
from metabench.planning.suite import AlgorithmEntry, DatasetEntry, Entry, Suite
from metabench.planning.suite_file import SuiteFile, resolve
from metabench.registry.configs import is_class
from metabench.registry.manager import PluginManager

#: Settings that change accuracies, and so the ids of cells.
CHANGING = {
    "algorithms",
    "algorithms.backbone",
    "algorithms.init",
    "algorithms.params",
    "algorithms.precision",
    "algorithms.teacher",
    "algorithms.test",
    "algorithms.train",
    "algorithms.use",
    "algorithms.weights",
    "backbones",
    "backbones.params",
    "backbones.use",
    "datasets",
    "datasets.params",
    "datasets.test_on",
    "datasets.use",
    "eval.dirichlet_alpha",
    "eval.episodes_file",
    "eval.query_balance",
    "eval.sampling",
    "eval.seed",
    "precision",
    "queries",
    "seeds",
    "shots",
    "train.augment",
    "train.batch",
    "train.classes",
    "train.epochs",
    "train.images_per_class",
    "train.meta_batch",
    "train.patience",
    "train.queries",
    "train.sampling",
    "train.seconds",
    "train.shot",
    "train.steps",
    "train.validate_every",
    "train.validate_on",
    "train.validation_episodes",
    "train.validation_seed",
    "train.way",
    "ways",
}
#: Settings that do not.
NOT_CHANGING = {
    "algorithms.tuned",
    "datasets.licence",
    "description",
    "engine",
    "eval.batch",
    "eval.corruptions",
    "eval.episodes",
    "eval.inductive_episodes",
    "eval.keep_outputs",
    "eval.severity",
    "eval.strangers",
    "eval.time_limit",
    "eval.until.at_most",
    "eval.until.ci95",
    "exclude",
    "floors",
    "gate.memory_growth",
    "gate.slowdown",
    "gate.tolerance",
    "gate.tolerances",
    "limits.test",
    "limits.training",
    "name",
    "profile",
    "superseded_by",
    "train.time_limit",
    "version",
}


def fields(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of all settings of a suite."""
    entries = {"algorithms": AlgorithmEntry, "backbones": Entry, "datasets": DatasetEntry}
    for name, field in model.model_fields.items():
        kind, parts = field.annotation, get_args(field.annotation)
        if NoneType in parts:  # an optional section
            kind = next(part for part in parts if part is not NoneType)
        if not prefix and name in entries:
            yield name
            yield from (f"{name}.{inner}" for inner in entries[name].model_fields)
        elif is_class(kind) and issubclass(kind, BaseModel):
            yield from fields(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_every_setting_of_a_suite_is_classified() -> None:
    assert set(fields(Suite)) == CHANGING | NOT_CHANGING
    assert not CHANGING & NOT_CHANGING


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


#: A change here changes what users measured before: raise IDENTITY_VERSION, and pin the new hashes.
IDS, EPISODES, ACCURACIES = "e4b89b9723a1dd9f", "7f12f845ad7cd8af", "3620a1184060509f"


def test_the_ids_of_cells_are_pinned(suite_file: Callable[[str], SuiteFile], plugins: PluginManager) -> None:
    file = suite_file(
        """
        name: pinned
        datasets: {glyphs: {}}
        backbones: {conv4: {params: {channels: 8}}}
        algorithms: {protonet: {}, maml: {precision: bf16}, siamese: {train: {way: 8, shot: 2}}}
        ways: [5]
        shots: [1, 5]
        seeds: [0, 1]
        train: {steps: 100}
        """
    )
    cells = make_plan(*resolve(file), plugins)
    assert len(cells) == 12
    assert (IDENTITY_VERSION, digest(" ".join(cell.id for cell in cells))) == (4, IDS)


def test_episodes_are_pinned() -> None:
    offsets = np.cumsum([0, *np.resize([20, 21, 25], 50)])
    drawn = EpisodeSampler(offsets, EpisodeShape(5, 2, 3), "pinned", 7).draw(0, 100)
    assert (IDENTITY_VERSION, digest(str(drawn.support.tolist()) + str(drawn.query.tolist()))) == (4, EPISODES)


@pytest.mark.usefixtures("one_thread", "few_latencies")
def test_accuracies_are_pinned(run: Callable[..., Outcome]) -> None:
    outcomes = [run(name, name=name) for name in ("relative", "guessing", "fading")]
    accuracies = [np.round(outcome.episodes.figures["accuracy"], 6).tolist() for outcome in outcomes]
    assert (IDENTITY_VERSION, digest(str(accuracies))) == (4, ACCURACIES)
