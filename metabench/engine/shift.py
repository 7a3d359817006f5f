"""Test under a shift: with queries of strange classes, and with corrupted queries."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from metabench.analysis.metrics import log_probabilities
from metabench.analysis.shift import auroc, measures_of_shift, of_corruption, of_strangers
from metabench.analysis.stats import Floats
from metabench.api import Algorithm
from metabench.engine.corruptions import Corruption
from metabench.engine.evaluation import answers, evaluate, in_batches
from metabench.engine.progress import Interrupted, Watcher
from metabench.engine.streams import EpisodeStream, Stream
from metabench.errors import CellFailed, in_one_line
from metabench.machine.memory import BatchSize
from metabench.planning.cells import Testing


def figures_of_shift(
    test: Testing,
    algorithm: Algorithm,
    stream: Stream,
    batch: BatchSize,
    watcher: Watcher,
    first: int,
    last: int,
) -> tuple[dict[str, Floats], dict[str, str]]:
    """Return the metrics of the shifts that a test asks for.

    Args:
        test: the test.
        algorithm: the trained algorithm.
        stream: the episodes of the test.
        batch: number of episodes predicted at once.
        watcher: sees the progress, and may ask to stop.
        first: number of the first episode.
        last: number of the episode after the last one.

    Returns:
        [last - first] values by name of the metric (`metabench.analysis.shift.measures_of_shift`), and why others have
        none.

    Raises:
        Interrupted: `watcher` asked to stop.
    """

    if not measures_of_shift(test):
        return {}, {}
    assert isinstance(stream, EpisodeStream), "a shift is tested in episodes of a split"

    def of_strange_classes() -> Floats:
        mixed = stream.with_strangers(test.strangers)

        def areas(start: int, count: int) -> Floats:
            scores, labels = answers(algorithm, mixed, test.seed, start, count)
            return auroc(log_probabilities(scores).max(axis=-1), labels < test.shape.way)

        return in_batches(areas, last, batch, watcher, first)

    def of_corrupted(name: str) -> Floats:
        corrupted = stream.corrupted(Corruption(name, test.severity, test.seed))
        means: Floats = evaluate(algorithm, corrupted, last, batch, test.seed, watcher, first).mean(axis=1)
        return means

    trials: dict[str, tuple[str, Callable[[], Floats]]] = {}
    if test.strangers:
        trials[of_strangers(test.strangers).name] = "strangers", of_strange_classes
    for name in test.corruptions:
        trials[of_corruption(name, test.severity).name] = name.replace("_", " "), partial(of_corrupted, name)
    figures, problems = {}, {}
    for metric, (phase, trial) in trials.items():
        watcher.phase(f"test with {phase}", last, first)
        try:
            figures[metric] = trial()
        except Interrupted:
            raise
        except CellFailed as error:
            problems[metric] = str(error)
        except Exception as error:  # a plugin may raise anything
            problems[metric] = in_one_line(error)
    return figures, problems
