from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t

from metabench.analysis.stats import DataIntervals, mean_interval, seed_ci95, t_quantile
from metabench.data.sampler import EpisodeSampler, EpisodeShape

accuracies = st.lists(st.floats(0, 1), min_size=2, max_size=50)

REPETITIONS = 2000


# -------------------------------------------------------------------------------------------- over episodes


@given(accuracies)
def test_the_interval_matches_student_t(values: list[float]) -> None:
    found = mean_interval(values)
    n = len(values)
    assert found.episodes == n
    assert found.mean == pytest.approx(np.mean(values))
    assert found.std == pytest.approx(np.std(values, ddof=1))
    if found.std > 1e-12:
        low, high = t.interval(0.95, n - 1, loc=np.mean(values), scale=np.std(values, ddof=1) / n**0.5)
        assert (found.mean - found.ci95, found.mean + found.ci95) == pytest.approx((low, high))
    else:
        assert found.ci95 == pytest.approx(0, abs=1e-10)


@given(accuracies, st.randoms(use_true_random=False))
def test_the_order_of_episodes_does_not_matter(values: list[float], random: object) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert mean_interval(shuffled).ci95 == pytest.approx(mean_interval(values).ci95)


def test_four_times_the_episodes_halve_the_interval() -> None:
    values = np.random.default_rng(1).uniform(size=400)
    ratio = mean_interval(np.tile(values, 4)).ci95 / mean_interval(values).ci95
    assert ratio == pytest.approx(0.5, rel=0.01)


@pytest.mark.parametrize("values", [[], [0.5]])
def test_one_episode_makes_no_interval(values: list[float]) -> None:
    with pytest.raises(ValueError, match="at least two episodes"):
        mean_interval(values)


@given(st.integers(1, 10_000), st.floats(0.01, 0.99))
def test_the_quantile_matches_student_t(degrees: int, probability: float) -> None:
    assert t_quantile(degrees, probability) == pytest.approx(t.ppf(probability, degrees), rel=1e-6, abs=1e-9)


# ------------------------------------------------------------------------------------------- about the data


def simulate(
    repetition: int, classes: int, spread: float, episodes: int = 300, mean: float = 0.7, copies: int = 1
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], float]:
    """Draw classes, their images, episodes and answers anew, and test a learner whose true accuracy is about `mean`.

    Args:
        repetition: numbers the draw.
        classes: how many.
        spread: standard deviation of the classes' and of the images' difficulty.
        episodes: how many.
        mean: accuracy before it is cut at 0 and 1.
        copies: classes that share one difficulty, as the rotations of a character do.

    Returns:
        The accuracies of the episodes, the groups of their classes, and the accuracy over all episodes of these images.
    """
    generator = np.random.default_rng(repetition)
    difficulty = generator.normal(0, spread, (classes // copies, 1)).repeat(copies, axis=0)
    chance = np.clip(mean + difficulty + generator.normal(0, spread, (classes, 20)), 0, 1)
    sampler = EpisodeSampler(np.arange(classes + 1) * 20, EpisodeShape(5, 1, 5), "simulation", repetition)
    drawn = sampler.draw(0, episodes)
    correct = generator.random(drawn.query.shape) < chance.reshape(-1)[drawn.query]
    return correct.mean(axis=1), drawn.classes // copies, float(chance.mean())


def truth(mean: float, spread: float) -> float:
    """Return the accuracy over all classes and images that there could be."""
    difficulty = np.random.default_rng(0).normal(mean, spread * 2**0.5, 10**6)
    return float(np.clip(difficulty, 0, 1).mean())


def documented(question: str, data: str, interval: str) -> str:
    """Return the coverage that docs/statistics.md reports."""
    page = (Path(__file__).parents[2] / "docs" / "statistics.md").read_text(encoding="utf-8")
    (line,) = [line for line in page.splitlines() if line.startswith(f"| {question} | {data} | {interval} |")]
    return line.split("|")[4].strip()


@pytest.mark.slow
def test_each_interval_covers_what_it_claims_and_the_episode_interval_not_the_data() -> None:
    held = {"episodes": 0, "data": 0, "episodes about the data": 0}
    for repetition in range(REPETITIONS):
        values, classes, of_these_images = simulate(repetition, classes=60, spread=0.08, episodes=1000)
        interval = mean_interval(values)
        half = DataIntervals(classes).ci95(values)
        assert half is not None
        held["episodes"] += abs(interval.mean - of_these_images) <= interval.ci95
        held["data"] += abs(interval.mean - 0.7) <= half
        held["episodes about the data"] += abs(interval.mean - 0.7) <= interval.ci95
    coverage = {name: count / REPETITIONS for name, count in held.items()}
    assert coverage["episodes"] == pytest.approx(0.95, abs=0.01)
    assert coverage["data"] == pytest.approx(0.95, abs=0.01)
    assert coverage["episodes about the data"] < 0.85
    assert f"{coverage['episodes']:.1%}" == documented("these images", "60 classes, 1000 episodes", "over episodes")
    assert f"{coverage['data']:.1%}" == documented("the data", "60 classes, 1000 episodes", "about the data")
    assert f"{coverage['episodes about the data']:.1%}" == documented(
        "the data", "60 classes, 1000 episodes", "over episodes"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "settings", "low", "high"),
    [
        ("20 classes, 300 episodes", {"classes": 20}, 0.94, 0.96),
        ("400 classes, 300 episodes", {"classes": 400}, 0.94, 0.96),
        ("400 classes in fours, 300 episodes", {"classes": 400, "copies": 4}, 0.94, 0.96),
        ("60 classes at 97 %, 300 episodes", {"classes": 60, "mean": 1.0, "spread": 0.05}, 0.93, 0.97),
        ("60 classes that hardly differ, 300 episodes", {"classes": 60, "spread": 0.02}, 0.94, 1.0),
    ],
)
def test_the_interval_about_the_data_covers_them(case: str, settings: dict[str, Any], low: float, high: float) -> None:
    settings = {"spread": 0.08, "mean": 0.7, **settings}
    true = truth(settings["mean"], settings["spread"])
    held = 0
    for repetition in range(REPETITIONS):
        values, members, _ = simulate(repetition, **settings)
        half = DataIntervals(members).ci95(values)
        held += half is not None and abs(values.mean() - true) <= half
    assert low <= held / REPETITIONS <= high
    assert f"{held / REPETITIONS:.1%}" == documented("the data", case, "about the data")


def test_the_interval_about_the_data_of_a_difference_covers_it() -> None:
    held = 0
    for repetition in range(REPETITIONS):
        values, members, _ = simulate(repetition, 60, 0.08)
        # The other learner is better by 0.05 on average, and by other amounts on other classes.
        generator = np.random.default_rng(REPETITIONS + repetition)
        gain = generator.normal(0.05, 0.05, 60)[members].mean(axis=1) + generator.normal(0, 0.05, len(values))
        half = DataIntervals(members).ci95(gain)
        held += half is not None and abs(gain.mean() - 0.05) <= half
    assert held / REPETITIONS == pytest.approx(0.95, abs=0.01)
    assert f"{held / REPETITIONS:.1%}" == documented(
        "the data", "60 classes, 300 episodes, a difference", "about the data"
    )


def test_the_interval_between_seeds_covers_the_training() -> None:
    means = np.random.default_rng(0).normal(0.7, 0.02, (REPETITIONS, 3))
    held = [abs(row.mean() - 0.7) <= (seed_ci95(row.tolist()) or 0) for row in means]
    assert np.mean(held) == pytest.approx(0.95, abs=0.01)
    assert seed_ci95([0.7]) is None


def test_equal_classes_add_no_variance_about_the_data() -> None:
    values, classes, _ = simulate(0, classes=400, spread=0.0)
    assert DataIntervals(classes).ci95(values) == pytest.approx(mean_interval(values).ci95, rel=0.2)


def test_ungrouped_copies_of_classes_make_the_data_interval_too_narrow() -> None:
    held = 0
    for repetition in range(500):
        values, members, _ = simulate(repetition, classes=80, spread=0.08, episodes=1000, copies=4)
        separate = EpisodeSampler(np.arange(81) * 20, EpisodeShape(5, 1, 5), "simulation", repetition).draw(0, 1000)
        half = DataIntervals(separate.classes).ci95(values)
        held += half is not None and abs(values.mean() - 0.7) <= half
        assert np.array_equal(separate.classes // 4, members)
    assert held / 500 < 0.85


def test_the_numbers_of_groups_do_not_matter() -> None:
    values, classes, _ = simulate(1, classes=60, spread=0.08)
    assert DataIntervals(classes + 1000).ci95(values) == pytest.approx(DataIntervals(classes).ci95(values))


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        ([0.5, 0.6], [[0, 1], [0, 1]]),
        ([0.5, 0.6], [[0, 1], [2, 3]]),
        ([0.5], [[0, 1]]),
    ],
)
def test_too_few_classes_make_no_interval_about_the_data(values: list[float], classes: list[list[int]]) -> None:
    assert DataIntervals(classes).ci95(values) is None
