from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from metabench.analysis.metrics import Accuracy, CalibrationError, log_probabilities
from metabench.analysis.stats import Floats, Ints
from metabench.analysis.tally import Tally

NAMES = [f"class {number}" for number in range(9)]


def drawn(episodes: int, seed: int) -> tuple[Floats, Ints, Ints]:
    """Return log-probabilities, labels and classes of 3-way episodes with 4 queries a class."""
    generator = np.random.default_rng(seed)
    classes = np.stack([generator.permutation(len(NAMES))[:3] for _ in range(episodes)])
    targets = np.stack([generator.permutation(np.repeat(np.arange(3), 4)) for _ in range(episodes)])
    return log_probabilities(generator.normal(size=(episodes, 12, 3))), targets, classes


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), episodes=st.integers(2, 12), split=st.integers(1, 11))
def test_chunks_and_the_totals_of_parts_make_no_difference(seed: int, episodes: int, split: int) -> None:
    outputs, targets, classes = drawn(episodes, seed)
    split = min(split, episodes - 1)

    def tallied(first: int, *ends: int) -> Tally:
        tally = Tally(NAMES, lambda start, count: classes[start : start + count], first)
        for start, end in zip((first, *ends), ends, strict=False):
            tally.add(outputs[start:end], None, targets[start:end])
        return tally

    whole = tallied(0, split, episodes).tallies()
    parts = tallied(0, split).tallies().followed_by(tallied(split, episodes).tallies())
    assert sum(whole.episodes) == 3 * episodes
    assert dict(zip(whole.names, whole.episodes, strict=True)) == dict(zip(parts.names, parts.episodes, strict=True))
    assert np.allclose(whole.reliability, parts.reliability)
    # Every class has as many queries, so that the mean over the classes of the episodes is the accuracy.
    accuracy = float(Accuracy().of_episode(outputs, targets).mean())
    for found in (whole, parts):
        assert np.isclose((found.accuracy * found.episodes).sum() / found.episodes.sum(), accuracy)
        assert np.isclose(1 - found.confusions[:, 2].sum() / targets.size, accuracy)


def test_the_bins_are_those_of_the_calibration_error() -> None:
    outputs, targets, classes = drawn(50, 0)
    tally = Tally(NAMES, lambda start, count: classes[start : start + count], 0)
    tally.add(outputs, log_probabilities(outputs, 0.5), targets)
    for scale, read in enumerate((outputs, log_probabilities(outputs, 0.5))):
        queries, confidence, correct = tally.tallies().reliability[scale]
        metric = CalibrationError()
        expected = metric.pooled(metric.of_episode(read, targets).mean(axis=0))
        assert np.isclose(np.abs(correct - confidence).sum() / queries.sum(), expected)


def test_a_pair_names_the_class_and_what_it_was_taken_for() -> None:
    outputs = log_probabilities(np.array([[[5.0, 0.0], [5.0, 0.0], [0.0, 5.0]]]))
    tally = Tally(NAMES, lambda start, count: np.array([[7, 2]]), 0)
    tally.add(outputs, None, np.array([[0, 1, 1]]))
    found = tally.tallies()
    assert list(found.names) == ["class 2", "class 7"]
    assert found.confusions.tolist() == [[0, 1, 1]]
    assert found.accuracy.tolist() == [0.5, 1.0]
