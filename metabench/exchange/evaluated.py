"""Test a network or an algorithm that a program has built, as a cell without a training."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metabench.api import Algorithm, Backbone, Setup, SourceSplit
from metabench.api.module_backbones import CallableConfig, callable_backbone
from metabench.engine.images import train_classes
from metabench.engine.learner import Learner, image_shape_of, regression_of
from metabench.engine.progress import Watcher
from metabench.errors import UsageError
from metabench.exchange.episode_sets import EpisodeSet
from metabench.executors.job import TrainingJob
from metabench.executors.origin import Code, machine_of
from metabench.machine.device import choose_device
from metabench.machine.environment import environment
from metabench.machine.memory import PeakMemory
from metabench.machine.reproducible import derive_seed, seed_generators
from metabench.planning.cells import Cell, Choice, Selection, Training
from metabench.records.record import EpisodeResults, Record
from metabench.records.store import Store
from metabench.records.trained import TrainingFiles
from metabench.registry.code import code_hash, distribution_of
from metabench.registry.configs import InvalidConfig, complete_params, validate_config
from metabench.registry.manager import PluginManager

#: What a record says of a learner that a program has built.
_REMARK = "evaluated from Python: how its weights were made, and what they have seen, is not recorded"


@dataclass(frozen=True)
class _Built:
    """An algorithm, with what tells it from others.

    Attributes:
        algorithm: the algorithm.
        choice: its name and parameters, without a label; not that of a plugin, whose published results are others'.
        code: hash of its code.
        head: name of the head; empty of an algorithm that answers by itself.
    """

    algorithm: Algorithm
    choice: Choice
    code: str
    head: str = ""


def evaluated(
    learner: nn.Module,
    episodes: EpisodeSet,
    head: str | type[Algorithm] | None,
    params: Mapping[str, Any],
    name: str | None,
    backbone: str | None,
    pretrained_on: str,
    seed: int,
    device: str,
    watcher: Watcher,
) -> tuple[Record, EpisodeResults, bytes | None]:
    """Return record, per-episode results and picture of a test; arguments and errors as of `metabench.evaluate`."""
    on, plugins, test = choose_device(device), PluginManager.from_environment(), episodes.test
    # Features of a network that is not a plugin's have no place on disk.
    data = replace(episodes.data, features=None)
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they are
        built = _built(learner, episodes, head, params, pretrained_on, plugins)
    kind = type(learner).__name__
    algorithm = replace(built.choice, label=name or ", ".join([kind, *([built.head] if built.head else [])]))
    network = built.algorithm.backbone if isinstance(learner, Algorithm) else learner
    weights = _weights_hash(learner)
    choice = Choice(backbone or type(network).__name__, _qualified(type(network)), {}, weights)
    training = Training(algorithm, test.dataset, choice, test.shape.way, seed, "float32", None)
    cell = Cell(algorithm, training, Selection(test.shape), test)
    # Nothing is trained or read: the directory is not used.
    files = TrainingFiles(Path(), training.id)
    datasets = {test.dataset.label: data}
    memory = PeakMemory(on)
    tested = Learner(training, built.algorithm.to(on), None, files, datasets, {}, on, plugins, memory)
    outcome = tested.test(cell, watcher)
    code = Code(
        providers={
            "algorithm": f"{_qualified(type(built.algorithm))}, in this process",
            "dataset": plugins.provider("dataset", test.dataset.name),
        },
        hashes={
            "algorithm": built.code,
            "dataset": plugins.code("dataset", test.dataset.name),
            "backbone": _code_of(type(network)),
        },
    )
    job = TrainingJob(
        training, [cell], [], "evaluated", "", on, machine_of(on, 1), environment(on), Store(Path()), plugins=plugins
    )
    record = job.record(cell, code, datasets, outcome=outcome)
    return record.model_copy(update={"remarks": [*record.remarks, _REMARK]}), outcome.episodes, outcome.picture


def _built(
    learner: nn.Module,
    episodes: EpisodeSet,
    head: str | type[Algorithm] | None,
    params: Mapping[str, Any],
    pretrained_on: str,
    plugins: PluginManager,
) -> _Built:
    """Return a copy of an algorithm, or a head on a copy of a module.

    Raises:
        PluginError: no plugin provides the head.
        UsageError: head or parameters do not fit.
        Unfit: the head or the module does not fit the episodes.
    """
    if isinstance(learner, type) or not isinstance(learner, nn.Module):
        raise UsageError(
            f"{learner!r} is no torch.nn.Module: give an instance; a class of Algorithm is the head of a module"
        )
    if isinstance(learner, Backbone):
        raise UsageError(f"{type(learner).__name__} is a Backbone: evaluate it in a suite, which knows its parameters")
    if isinstance(learner, Algorithm):
        if head is not None or params:
            raise UsageError(f"{type(learner).__name__} is an Algorithm, which answers by itself: leave out the head")
        choice = Choice("", _qualified(type(learner)), learner.config.model_dump(mode="json"))
        return _Built(copy.deepcopy(learner), choice, _code_of(type(learner)))
    if head is None:
        raise UsageError(
            f"{type(learner).__name__} gives features: say which algorithm answers from them, e.g. "
            f"head='{_a_head(plugins)}' (`metabench list algorithms`)"
        )
    cls = plugins.algorithm_class(head) if isinstance(head, str) else head
    splits, test = episodes.data.splits, episodes.test
    make = callable_backbone(lambda: copy.deepcopy(learner))
    network = make(CallableConfig(pretrained_on=pretrained_on), image_shape_of(splits))
    train, regression = splits["train"], regression_of(splits)
    setup = Setup(
        network,
        test_way=None if cls.any_way else test.shape.way,
        train_way=None,
        train_steps=0,
        train_classes=0 if isinstance(train, SourceSplit) else train_classes(train),
        regression=regression,
    )
    seed_generators(derive_seed(0, "initialise"))
    try:
        complete = complete_params(cls.Config, params)
        algorithm = cls(validate_config(cls.Config, complete), setup)
    except InvalidConfig as error:
        place = ".".join(map(str, error.problem.path))
        raise UsageError(f"params{f'.{place}' if place else ''}: {error.problem.message}") from error
    title = head if isinstance(head, str) else cls.__name__
    code = plugins.code("algorithm", head) if isinstance(head, str) else _code_of(cls)
    return _Built(algorithm, Choice("", f"{_qualified(type(learner))}, {title}", complete), code, title)


def _a_head(plugins: PluginManager) -> str:
    """Return the name of an algorithm that answers from features and trains nothing, for a message."""
    for name in plugins.algorithms():
        cls = plugins.algorithm_class(name)
        if cls.reads == "features" and cls.trains_on == "nothing" and cls.any_way:
            return name
    return "NAME"


def _weights_hash(module: nn.Module) -> str:
    """Return a hash of a module's weights and buffers."""
    digest = hashlib.sha256()
    tensors = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _code_of(cls: type) -> str:
    """Return a hash of the code of a class; name and version of a library that is installed."""
    library = distribution_of(cls.__module__)
    return f"{library} {version(library)}" if library else code_hash(cls)


def _qualified(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
