"""How long the parts of metabench take: ``pytest tests/benchmarks --benchmark-enable``.

They report; nothing fails for being slow. Without the option, as in the other tests, each runs once.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from metabench.analysis.standings import make_tables
from metabench.data.sampler import EpisodeSampler, EpisodeShape
from metabench.engine.streams import EpisodeStream
from metabench.records.record import EpisodeResults, Record
from metabench.records.runs import Runs
from metabench.records.store import Store
from metabench.reporting.rendering import render_text
from metabench.testing import Benchmark, SuiteBenchmarks

SHAPE = EpisodeShape(way=5, shot=1, queries=15)
EPISODES = 256
CELLS = 20
RESULTS = 100


class TestCells(SuiteBenchmarks):
    """An outer update and the predictions of all five algorithms."""

    suite = "../../suites/ci.yaml"


def test_draw(benchmark: Benchmark) -> None:
    sampler = EpisodeSampler(np.arange(0, 20 * 1692 + 1, 20), SHAPE, "benchmark", 0)
    benchmark.extra_info["episodes"] = EPISODES
    drawn = benchmark(lambda: sampler.draw(0, EPISODES))
    assert len(drawn.classes) == EPISODES  # type: ignore[attr-defined]


def test_draw_and_gather(benchmark: Benchmark) -> None:
    from metabench.api import Split

    images = torch.randint(0, 256, (20 * 1692, 1, 28, 28), dtype=torch.uint8)
    split = Split(images, torch.arange(0, len(images) + 1, 20), [""] * 1692)
    stream = EpisodeStream(split, SHAPE, "benchmark", 0, torch.device("cpu"))
    number = iter(range(0, 10**9, 8))
    benchmark.extra_info["episodes"] = 8
    drawn = benchmark(lambda: stream.batch(next(number), 8))
    assert len(drawn) == 8  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path, make_record: Callable[..., Record]) -> Store:
    """Return a store with one table of cells."""
    store = Store(tmp_path / "out")
    for i in range(CELLS):
        _write(store, make_record(0.5 + 0.01 * i, cell=f"{i:016x}", algorithm=f"method{i}"), i)
    return store


def _write(store: Store, record: Record, seed: int) -> None:
    generator = np.random.default_rng(seed)
    accuracies = generator.binomial(75, record.primary.value if record.primary else 0, RESULTS) / 75
    store.write(record, EpisodeResults({"accuracy": accuracies}, generator.integers(0, 400, (RESULTS, 5))))


def test_store_write(benchmark: Benchmark, tmp_path: Path, make_record: Callable[..., Record]) -> None:
    store, record = Store(tmp_path / "out"), make_record(0.9)
    benchmark(lambda: _write(store, record, 0))
    assert len(store.records()) == 1


def test_store_read(benchmark: Benchmark, store: Store) -> None:
    records = benchmark(store.records)
    assert len(records) == CELLS  # type: ignore[arg-type]


def test_leaderboard(benchmark: Benchmark, store: Store) -> None:

    def leaderboard() -> str:
        runs = Runs.read([store.path])
        return render_text(make_tables(runs.records, runs), 200)

    text = benchmark(leaderboard)
    assert f"method{CELLS - 1}" in str(text)
