"""The interface of plugins: `Algorithm`, `Backbone`, `Dataset` and their tensors."""

from __future__ import annotations

from metabench.api.algorithms import Algorithm, Metrics, Setup
from metabench.api.backbones import Backbone, embed_episode, embed_queries
from metabench.api.batching import Batching, episode_generators
from metabench.api.config import Config
from metabench.api.datasets import Dataset, DatasetFiles, Progress, Split, SplitSize
from metabench.api.embedding import EmbeddingAlgorithm
from metabench.api.episodes import Episodes
from metabench.api.gradients import Weights, gradients, is_vectorised
from metabench.api.optimised import AlgorithmConfig, OptimisedAlgorithm
from metabench.errors import CellFailed, DataError, Unfit
from metabench.packs import Pack

__all__ = [
    "Algorithm",
    "AlgorithmConfig",
    "Backbone",
    "Batching",
    "CellFailed",
    "Config",
    "DataError",
    "Dataset",
    "DatasetFiles",
    "EmbeddingAlgorithm",
    "Episodes",
    "Metrics",
    "OptimisedAlgorithm",
    "Pack",
    "Progress",
    "Setup",
    "Split",
    "SplitSize",
    "Unfit",
    "Weights",
    "embed_episode",
    "embed_queries",
    "episode_generators",
    "gradients",
    "is_vectorised",
]
