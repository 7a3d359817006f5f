"""Measures the time that the harness adds to a cell.

python benchmarks/overhead.py --cells 1000

Runs `metabench run` on a suite of many cells of three steps each, with a worker for each cell and `--in-process`, then
the same cells by a bare loop of build, train and test in one process, and prints the differences a cell; and the time
of the same command again, which keeps them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from metabench.data.packing import DataRoots
from metabench.engine.evaluation import evaluate
from metabench.engine.learner import build_tested, make_learner
from metabench.engine.streams import evaluation_stream, training_stream, validation_stream
from metabench.engine.trial import set_batchings
from metabench.executors.loading import LoadedDataset, load_dataset
from metabench.machine.device import choose_device
from metabench.machine.memory import BatchSize
from metabench.planning.cells import Cell
from metabench.planning.plan import make_plan
from metabench.planning.suite_file import read_suite, resolve
from metabench.registry.manager import PluginManager

SUITE = """\
name: overhead
datasets: {{glyphs: {{}}}}
backbones: {{conv4: {{params: {{channels: 2, downsample: stride}}}}}}
algorithms: {{protonet: {{}}}}
ways: [2]
shots: [1]
queries: 2
seeds: {seeds}
train: {{steps: 3, validation_episodes: 2}}
eval: {{episodes: 10}}
"""


class Silent:
    """A watcher that shows nothing and never stops."""

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """See `metabench.engine.progress.Watcher`."""

    def advance(self, done: int, note: str = "") -> None:
        """See `metabench.engine.progress.Watcher`."""

    def should_stop(self) -> bool:
        """See `metabench.engine.progress.Watcher`."""
        return False


def main() -> None:
    """Run and time all three ways."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=1000)
    count = parser.parse_args().cells
    with tempfile.TemporaryDirectory() as folder:
        suite = Path(folder) / "overhead.yaml"
        suite.write_text(SUITE.format(seeds=list(range(count))), encoding="utf-8")
        metabench = Path(sys.executable).with_name("metabench")
        command = [metabench, "run", suite, "--device", "cpu", "--output", f"{folder}/out"]
        environment = {**os.environ, "METABENCH_CACHE": f"{folder}/cache"}

        def run_command(*options: str) -> float:
            return timed(lambda: subprocess.run([*command, *options], check=True, capture_output=True, env=environment))

        in_process = run_command("--in-process")
        kept = run_command()
        run = run_command("--fresh")
        plugins = PluginManager.from_environment()
        cells = make_plan(*resolve(read_suite(suite)), plugins)
        device = choose_device("cpu")
        roots = DataRoots((), Path(folder) / "cache")
        data = load_dataset(cells[0].dataset, plugins, roots, device, lambda done, total, what: None)
        bare = timed(lambda: bare_loop(cells, data, device, plugins))
        engine = timed(lambda: engine_loop(cells, data, device, plugins, Path(folder)))
    for name, seconds in (
        ("metabench run", run),
        ("metabench run --in-process", in_process),
        ("bare loop", bare),
        ("loop of the engine, with all that it measures", engine),
    ):
        print(f"{name}: {seconds:.1f} s, {1000 * seconds / count:.1f} ms a cell")
    print(f"metabench run, less the bare loop: {1000 * (run - bare) / count:.1f} ms a cell")
    print(f"metabench run --in-process, less the bare loop: {1000 * (in_process - bare) / count:.1f} ms a cell")
    print(f"metabench run, less the loop of the engine: {1000 * (run - engine) / count:.1f} ms a cell")
    print(f"the same command again, all {count} cells kept: {kept:.1f} s")


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def bare_loop(cells: Sequence[Cell], data: LoadedDataset, device: torch.device, plugins: PluginManager) -> None:
    """Build, train, validate and test each cell, and measure and keep nothing."""
    for cell in cells:
        algorithm = build_tested(cell, data.splits, device, plugins)
        schedule = cell.training.schedule
        assert schedule is not None, "every cell is trained"
        assert schedule.steps is not None, "every training has steps"
        train = training_stream(cell.training, data.splits, device)
        set_batchings(algorithm, train.batch(0, min(2, schedule.batch)))
        for step in range(schedule.steps):
            algorithm.train()
            algorithm.train_step(train.batch(step * schedule.batch, schedule.batch))
        validation = validation_stream(schedule, data.splits, cell.shape, device)
        evaluate(algorithm, validation, schedule.validation_episodes, BatchSize(device), schedule.validation_seed)
        test = evaluation_stream(cell, data.splits, device)
        evaluate(algorithm, test, cell.test.episodes, BatchSize(device), cell.test.seed)


def engine_loop(
    cells: Sequence[Cell], data: LoadedDataset, device: torch.device, plugins: PluginManager, folder: Path
) -> None:
    """Run each cell by the engine, with its checkpoint, latency, operations and picture, and keep nothing."""
    for cell in cells:
        learner = make_learner(
            cell.training, [cell.selection], {cell.dataset.label: data}, device, plugins, folder, Silent()
        )
        learner.test(cell, Silent())


if __name__ == "__main__":
    main()
