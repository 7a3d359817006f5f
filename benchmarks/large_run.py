"""Write made-up records, to time `metabench leaderboard` and `report`.

python benchmarks/large_run.py /tmp/large --tables 50 --methods 10 --episodes 1000
time metabench leaderboard /tmp/large
time metabench report /tmp/large
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np

from metabench.analysis.estimates import estimate_of_mean, estimates
from metabench.analysis.metrics import CLASSIFICATION, RANKED_BY, CalibrationError, Measure
from metabench.analysis.stats import DataIntervals, Floats
from metabench.engine.pictures import episode_png
from metabench.records.record import EpisodeResults, Record
from metabench.records.store import Store


def _made_up(measure: Measure, episodes: int, generator: np.random.Generator) -> Floats:
    """Return figures of a metric."""
    if measure.name.startswith("ece"):
        return generator.normal(0, 0.01, (episodes, CalibrationError.BINS))
    return generator.uniform(0.1, 0.9, episodes)


def main() -> None:
    """Write tables × methods records; a table's methods share episodes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--tables", type=int, default=50)
    parser.add_argument("--methods", type=int, default=10)
    parser.add_argument("--episodes", type=int, default=1000)
    arguments = parser.parse_args()
    generator = np.random.default_rng(0)
    store = Store(arguments.output)
    images = generator.random((5, 1, 28, 28), dtype=np.float32)
    picture = episode_png(images, range(5), images.repeat(15, axis=0), np.repeat(range(5), 15), np.arange(75) % 5)
    for table in range(arguments.tables):
        difficulty = generator.normal(0, 0.04, arguments.episodes)
        groups = generator.integers(0, 423, (arguments.episodes, 5))
        for method in range(arguments.methods):
            chance = np.clip(0.7 + 0.02 * method + difficulty, 0, 1)
            accuracies = generator.binomial(75, chance) / 75
            cell = hashlib.sha256(f"{table} {method}".encode()).hexdigest()[:16]
            accuracy = estimate_of_mean(accuracies, DataIntervals(groups))
            further = {measure.name: _made_up(measure, arguments.episodes, generator) for measure in CLASSIFICATION[1:]}
            figures = {RANKED_BY: accuracies, **further}
            record = {
                "cell": cell,
                "suite": "large",
                "profile": "",
                "algorithm": f"method{method}",
                "dataset": f"dataset{table}",
                "backbone": "conv4",
                "way": 5,
                "shot": 1,
                "queries": 15,
                "seed": 0,
                "identity": {"algorithm": {"name": f"method{method}"}, "dataset": {"name": f"dataset{table}"}},
                "status": "ok",
                "metrics": estimates(figures, groups, CLASSIFICATION),
                "declarations": {measure.name: measure.declaration for measure in CLASSIFICATION},
                "inductive_accuracy": accuracy,
                "transductive": False,
                "worst_classes": [{"name": f"class {i}", "accuracy": 0.1 * i, "episodes": 12} for i in range(10)],
                "train": {
                    "steps": 5000,
                    "episodes": 5000,
                    "seconds": 50.0 + 10 * method,
                    "episodes_per_second": 100.0,
                    "best_step": 5000,
                    "validation": [{"step": 500 * i, "accuracy": 0.5 + 0.02 * i} for i in range(1, 11)],
                },
                "eval": {
                    "seconds": 10.0,
                    "episodes_per_second": 100.0,
                    "latency_ms": {"p50": 5.0 + method, "p95": 9.0 + method},
                },
                "peak_memory_bytes": 2**30,
                "flops_per_episode": 10**9,
                "parameters": 111936,
                "device": "made up",
                "dataset_fingerprint": "0" * 64,
                "environment": {"cuda": None},
                "finished": "2026-01-01T00:00:00+00:00",
            }
            store.write(Record.model_validate(record), EpisodeResults(figures, groups), picture)
    print(f"{arguments.tables * arguments.methods} records in {arguments.output}")


if __name__ == "__main__":
    main()
