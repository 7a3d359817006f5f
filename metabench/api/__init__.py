"""The interface of plugins: `Algorithm`, `Backbone`, `Dataset` and their tensors."""

from __future__ import annotations

from typing import NoReturn

from metabench.api.algorithms import Algorithm, Metrics, Setup
from metabench.api.backbones import Backbone, BackboneInput, embed_episode, embed_queries
from metabench.api.batching import Batching, episode_generators
from metabench.api.config import Config, at_test
from metabench.api.datasets import Dataset, DatasetFiles, Progress, Split, SplitSize
from metabench.api.episodes import Episode, Episodes, Support
from metabench.api.gradients import Weights, gradients, is_vectorised, trained_weights
from metabench.api.images import Images
from metabench.api.inspections import Inspection
from metabench.api.module_backbones import ModuleBackbone, ModuleConfig, drop_submodule
from metabench.api.outer import AlgorithmConfig
from metabench.api.rollouts import Answers, Rollouts
from metabench.api.rows import Rows, TensorRows
from metabench.api.sources import EpisodeSource, SourceSplit
from metabench.api.tasks import Classification, Regression, Task
from metabench.api.version_1 import REMOVED, removed
from metabench.api.weights_files import load_weights_file
from metabench.errors import CellFailed, DataError, Unfit, in_one_line, nearest
from metabench.files import is_weights_file
from metabench.packs import ClassImages, Pack
from metabench.specs import Float, Integer, OneOf, SearchRange


def __getattr__(name: str) -> NoReturn:
    if name in REMOVED:
        raise ImportError(removed(name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "Algorithm",
    "AlgorithmConfig",
    "Answers",
    "Backbone",
    "BackboneInput",
    "Batching",
    "CellFailed",
    "ClassImages",
    "Classification",
    "Config",
    "DataError",
    "Dataset",
    "DatasetFiles",
    "Episode",
    "EpisodeSource",
    "Episodes",
    "Float",
    "Images",
    "Inspection",
    "Integer",
    "Metrics",
    "ModuleBackbone",
    "ModuleConfig",
    "OneOf",
    "Pack",
    "Progress",
    "Regression",
    "Rollouts",
    "Rows",
    "SearchRange",
    "Setup",
    "SourceSplit",
    "Split",
    "SplitSize",
    "Support",
    "Task",
    "TensorRows",
    "Unfit",
    "Weights",
    "at_test",
    "drop_submodule",
    "embed_episode",
    "embed_queries",
    "episode_generators",
    "gradients",
    "in_one_line",
    "is_vectorised",
    "is_weights_file",
    "load_weights_file",
    "nearest",
    "trained_weights",
]
