"""Hooks of the built-in plugin.

`metabench list` imports this module, which must import no torch to be fast.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from metabench.specs import (
    AlgorithmSpec,
    BackboneSpec,
    DatasetSpec,
    ExecutorSpec,
    LoggerSpec,
    PublishedResult,
    SuiteSpec,
    hookimpl,
)
from metabench_plugins.algorithms.announced import ALGORITHMS
from metabench_plugins.backbones.announced import BACKBONES
from metabench_plugins.datasets.announced import DATASETS
from metabench_plugins.heads.announced import HEADS

_HERE = "metabench_plugins"


@hookimpl
def metabench_algorithms() -> list[AlgorithmSpec]:
    """Return the built-in algorithms, and the heads that train nothing."""
    return [*ALGORITHMS, *HEADS]


@hookimpl
def metabench_backbones() -> list[BackboneSpec]:
    """Return the built-in backbones."""
    return BACKBONES


@hookimpl
def metabench_datasets() -> list[DatasetSpec]:
    """Return the datasets: one's own images, published ones, and those that are made."""
    return DATASETS


@hookimpl
def metabench_executors() -> list[ExecutorSpec]:
    """Return the executor of SLURM clusters."""
    return [
        ExecutorSpec(
            "slurm",
            f"{_HERE}.executors.slurm:Slurm",
            "jobs of a SLURM cluster: one array, requeued at time limits",
            link="https://slurm.schedmd.com",
            requires="metabench[slurm]",
        )
    ]


@hookimpl
def metabench_loggers() -> list[LoggerSpec]:
    """Return the loggers for TensorBoard and MLflow."""
    return [
        LoggerSpec(
            "tensorboard",
            f"{_HERE}.loggers.tensorboard:TensorBoardLogger",
            "event files in OUTPUT/tensorboard: validation curves, metrics, hyper-parameters",
            link="https://www.tensorflow.org/tensorboard",
            requires="metabench[tensorboard]",
        ),
        LoggerSpec(
            "mlflow",
            f"{_HERE}.loggers.mlflow:MLflowLogger",
            "one MLflow run for each cell, stored at MLFLOW_TRACKING_URI",
            link="https://mlflow.org",
            requires="metabench[mlflow]",
        ),
    ]


@hookimpl
def metabench_published_results() -> list[PublishedResult]:
    """Return the accuracies of the papers on Omniglot."""
    from metabench_plugins.published import published_results

    return published_results()


@hookimpl
def metabench_suites() -> list[SuiteSpec]:
    """Return the suites installed with this package."""
    package = find_spec(f"{_HERE}.suites")
    folders = list(package.submodule_search_locations or []) if package else []
    return [SuiteSpec(path.stem, path) for folder in folders for path in sorted(Path(folder).glob("*.yaml"))]
