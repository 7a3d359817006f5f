"""Count the queries of a test by class, by pair of classes, and by confidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from metabench.analysis.metrics import CalibrationError, credit
from metabench.analysis.stats import Floats, Ints
from metabench.records.tallies import Tallies


class Tally:
    """Counts queries, chunk of episodes by chunk.

    Args:
        names: names of all classes of the split.
        classes: returns the [count, N] classes of the split behind the labels of episodes, from a first one on.
        first: number of the first episode that is added.
    """

    def __init__(self, names: Sequence[str], classes: Callable[[int, int], Ints], first: int) -> None:
        self._names, self._classes, self._next = list(names), classes, first
        self._episodes = np.zeros(len(names), np.int64)
        self._accuracy = np.zeros(len(names))
        self._pairs: list[Ints] = []
        self._bins = np.zeros((2, 3, CalibrationError.BINS))

    def add(self, outputs: Floats, calibrated: Floats | None, targets: Ints) -> None:
        """Add the next B episodes.

        Args:
            outputs: [B, M, N] log-probabilities.
            calibrated: the same at the temperature of the cell; None without one.
            targets: [B, M] labels.
        """
        classes = self._classes(self._next, len(targets))
        self._next += len(targets)
        right, ways = credit(outputs, targets), outputs.shape[-1]
        episode = np.arange(len(targets))[:, None]
        flat = (episode * ways + targets).ravel()
        asked = np.bincount(flat, minlength=classes.size)
        correct = np.bincount(flat, right.ravel(), minlength=classes.size)
        seen, of_class = asked > 0, classes.ravel()
        self._episodes += np.bincount(of_class[seen], minlength=len(self._names))
        self._accuracy += np.bincount(of_class[seen], correct[seen] / asked[seen], minlength=len(self._names))
        predicted = outputs.argmax(axis=-1)
        wrong = predicted != targets
        pairs = np.stack([classes[episode, targets][wrong], classes[episode, predicted][wrong]], axis=1)
        self._pairs.append(pairs.astype(np.int64))
        for scale, read in enumerate((outputs, calibrated)):
            if read is not None:
                self._bins[scale] += _bins(read, targets)

    def tallies(self) -> Tallies:
        """Return the totals of all added episodes; of the classes that had queries."""
        drawn = np.flatnonzero(self._episodes)
        place = np.zeros(len(self._names), np.int64)
        place[drawn] = np.arange(len(drawn))
        pairs = np.concatenate([np.empty((0, 2), np.int64), *self._pairs])
        unique, counts = np.unique(place[pairs], axis=0, return_counts=True)
        return Tallies(
            names=[self._names[number] for number in drawn],
            episodes=self._episodes[drawn],
            accuracy=self._accuracy[drawn] / self._episodes[drawn],
            confusions=np.concatenate([unique, counts[:, None]], axis=1).astype(np.int64),
            reliability=self._bins,
        )


def _bins(outputs: Floats, targets: Ints) -> Floats:
    """Return the [3, K] numbers, sums of confidence and sums of correctness of the queries in each bin."""
    count = CalibrationError.BINS
    confidence = np.exp(outputs.max(axis=-1)).ravel()
    bins = np.minimum((confidence * count).astype(np.int64), count - 1)
    weights = (None, confidence, credit(outputs, targets).ravel())
    return np.stack([np.bincount(bins, weight, minlength=count) for weight in weights]).astype(np.float64)
