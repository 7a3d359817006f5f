from __future__ import annotations

import importlib
import os
import sys
import textwrap
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from metabench.data.packing import DataRoots, load_pack
from metabench.planning.cells import Cell
from metabench.planning.plan import make_plan
from metabench.planning.suite import Suite
from metabench.planning.suite_file import SuiteFile, read_suite, resolve
from metabench.records.record import EpisodeResults, Record
from metabench.registry.manager import PluginManager

if TYPE_CHECKING:  # imports torch
    from command_line import Ended
    from metabench.engine.outcome import Outcome
    from metabench.executors.loading import LoadedDataset


#: The declaration of the accuracy.
ACCURACY = {
    "title": "accuracy",
    "unit": "%",
    "scale": 100.0,
    "lowest": 0.0,
    "highest": 1.0,
    "summary": "mean over the test episodes",
}


def pytest_configure() -> None:
    """Share the processors among the workers of pytest-xdist: more threads than processors slow torch tenfold."""
    if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))
    # A pytest that a test starts is no worker.
    os.environ.pop("PYTEST_XDIST_WORKER", None)


class Distributions:
    """Writes made-up distributions, as pip would install them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.modules: list[str] = []

    def add(self, name: str, source: str, entry: str | None = None) -> str:
        """Add the distribution `name` 1.0; return its module's name.

        Args:
            name: name of the distribution.
            source: source code of its only module.
            entry: target of its entry point; None means the module.
        """
        module = f"fake_{name.replace('-', '_')}"
        self.modules.append(module)
        (self.folder / f"{module}.py").write_text(textwrap.dedent(source), encoding="utf-8")
        info = self.folder / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(f"[metabench]\nmain = {entry or module}\n", encoding="utf-8")
        importlib.invalidate_caches()
        return module


@pytest.fixture
def distributions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Distributions]:
    """Return a writer of made-up distributions, in an importable folder."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delenv("METABENCH_PLUGINS", raising=False)
    distributions = Distributions(folder)
    yield distributions
    for module in distributions.modules:
        sys.modules.pop(module, None)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Compute in one thread, which is fastest for tiny tensors."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def plugins() -> PluginManager:
    """Return a plugin manager of the built-in plugin only."""
    return PluginManager.from_environment({"METABENCH_PLUGINS": "metabench"})


@pytest.fixture
def suite_file(tmp_path: Path) -> Callable[[str], SuiteFile]:
    """Return a function that writes and reads a suite."""

    def read(text: str) -> SuiteFile:
        path = tmp_path / "suite.yaml"
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return read_suite(path)

    return read


@pytest.fixture(scope="session")
def glyphs_cache(tmp_path_factory: pytest.TempPathFactory, plugins: PluginManager) -> Path:
    """Return a cache with packed glyphs."""
    cache = Path(tmp_path_factory.mktemp("cache"))
    load_pack("glyphs", plugins.build_dataset("glyphs"), DataRoots((), cache), lambda done, total, what: None)
    return cache


@pytest.fixture
def make_record() -> Callable[..., Record]:
    """Return a function that makes records."""

    def estimate(interval: dict[str, Any] | None) -> dict[str, Any] | None:
        """Return an interval of a mean as an estimate."""
        return interval and {"value" if name == "mean" else name: value for name, value in interval.items()}

    def make(mean: float | None = 0.9, accuracy: dict[str, Any] | None = None, **changes: Any) -> Record:
        accuracy = accuracy or {"mean": mean, "ci95": 0.0123, "std": 0.1, "episodes": 100}
        if "inductive_accuracy" in changes:
            changes["inductive_accuracy"] = estimate(changes["inductive_accuracy"])
        finished: dict[str, Any] = {
            "metrics": {"accuracy": estimate(accuracy)},
            "declarations": {"accuracy": ACCURACY},
            "transductive": False,
            "train": {
                "steps": 10,
                "episodes": 40,
                "seconds": 2.0,
                "episodes_per_second": 20.0,
                "best_step": 5,
                "validation": [{"step": 5, "accuracy": 0.8}],
            },
            "eval": {"seconds": 1.0, "episodes_per_second": 100.0, "latency_ms": {"p50": 1.5, "p95": 2.5}},
            "peak_memory_bytes": 2**28,
            "parameters": 1234,
        }
        defaults: dict[str, Any] = {
            "cell": "0123456789abcdef",
            "suite": "suite",
            "profile": "smoke",
            "algorithm": "one",
            "dataset": "glyphs",
            "backbone": "conv4",
            "way": 5,
            "shot": 1,
            "queries": 15,
            "seed": 0,
            "identity": {"seed": 0},
            "status": "ok",
            "device": "A processor, 2 threads",
            "dataset_fingerprint": "f" * 64,
            "environment": {"cuda": None},
            "finished": "2025-01-01T00:00:00+00:00",
        }
        failed = {"status": "failed", "error": "it broke"}
        return Record.model_validate({**defaults, **(failed if mean is None else finished), **changes})

    return make


@pytest.fixture
def make_results() -> Callable[..., EpisodeResults]:
    """Return a function that makes paired per-episode results."""
    import numpy as np

    def make(mean: float, episodes: int = 100, spread: float = 0.05, noise: int | None = None) -> EpisodeResults:
        shared = np.resize([spread, -spread], episodes)
        unshared = np.zeros(episodes) if noise is None else np.random.default_rng(noise).normal(0, 0.02, episodes)
        groups = np.random.default_rng(0).integers(0, 40, (episodes, 5))
        return EpisodeResults({"accuracy": mean + shared + unshared - unshared.mean()}, groups)

    return make


@pytest.fixture
def metabench(
    tmp_path: Path, glyphs_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ended]:
    """Return a function that runs commands beside `small.yaml`."""
    from command_line import SUITE, ended

    work = tmp_path / "work"
    work.mkdir()
    (work / "small.yaml").write_text(SUITE, encoding="utf-8")
    monkeypatch.chdir(work)
    monkeypatch.setenv("METABENCH_CACHE", str(glyphs_cache))
    monkeypatch.delenv("METABENCH_DATA", raising=False)
    monkeypatch.delenv("METABENCH_PLUGINS", raising=False)

    def run(*arguments: str) -> Ended:
        return ended(arguments, monkeypatch, capsys)

    return run


# ------------------------------------------------------------------------------- tiny algorithms and datasets


@pytest.fixture
def few_latencies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time two episodes, for tests not about latency."""
    monkeypatch.setattr("metabench.engine.costs.LATENCY_EPISODES", 2)


@pytest.fixture(scope="session")
def everything() -> PluginManager:
    """Return a plugin manager of the built-ins and of `tiny`."""
    return PluginManager([*entry_points(group="metabench"), EntryPoint("tiny", "tiny:PLUGIN", "metabench")])


@pytest.fixture(scope="session")
def data() -> LoadedDataset:
    """Return the loaded tiny dataset."""
    from metabench.api import Config
    from metabench.executors.loading import LoadedDataset
    from tiny import Blots

    dataset = Blots(Config())
    pack = dataset.pack(None, lambda done, total, what: None)  # type: ignore[arg-type]
    return LoadedDataset(dataset.split(pack), pack.fingerprint)


@pytest.fixture
def cells_of(
    suite_file: Callable[[str], SuiteFile], everything: PluginManager
) -> Callable[..., tuple[Suite, list[Cell]]]:
    """Return a function that plans a suite of algorithms."""

    def plan(*algorithms: str, text: str | None = None) -> tuple[Suite, list[Cell]]:
        from tiny import PARAMS, SUITE

        entries = ", ".join(f"{name}: {{params: {{{PARAMS.get(name, '')}}}}}" for name in algorithms)
        suite, file = resolve(suite_file((text or SUITE).format(algorithms=entries)))
        return suite, make_plan(suite, file, everything)

    return plan


@pytest.fixture
def run(
    tmp_path: Path,
    data: LoadedDataset,
    everything: PluginManager,
    cells_of: Callable[..., tuple[Suite, list[Cell]]],
) -> Callable[..., Outcome]:
    """Return a function that runs an algorithm's only cell."""
    from metabench.engine.learner import make_learner
    from tiny import CPU, Watching

    def start(
        algorithm: str, text: str | None = None, watcher: Watching | None = None, name: str = "checkpoint"
    ) -> Outcome:
        _, (cell,) = cells_of(algorithm, text=text)
        watcher = watcher or Watching()
        learner = make_learner(
            cell.training, [cell.selection], {cell.dataset.label: data}, CPU, everything, tmp_path / name, watcher
        )
        return learner.test(cell, watcher)

    return start
