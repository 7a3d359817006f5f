from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.optimize import minimize_scalar
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from metabench.analysis.calibration import fit_temperature
from metabench.analysis.estimates import estimates
from metabench.analysis.metrics import (
    CLASSIFICATION,
    CalibrationError,
    Collector,
    Measure,
    by_name,
    class_accuracies,
    credit,
    log_probabilities,
)
from metabench.analysis.stats import Floats, Ints
from metabench.records.measured import Estimate
from metabench.specs import Metric, MetricSpec

WAY, QUERIES = 5, 75


def drawn(seed: int, episodes: int = 200, sharpness: float = 2.0) -> tuple[Floats, Ints]:
    """Return the log-probabilities of a calibrated method, and labels that are drawn from them."""
    generator = np.random.default_rng(seed)
    outputs = log_probabilities(generator.normal(size=(episodes, QUERIES, WAY)) * sharpness)
    ends = np.exp(outputs).cumsum(axis=-1)
    targets = (generator.random((episodes, QUERIES, 1)) > ends).sum(axis=-1)
    return outputs, np.minimum(targets, WAY - 1)


def value_of(name: str, outputs: Floats, targets: Ints, temperature: float | None = None) -> float:
    """Return one metric of all episodes."""
    collector = Collector(CLASSIFICATION, temperature)
    collector.add(outputs, targets)
    estimate = estimates(collector.figures(), np.zeros((len(outputs), 1), np.int64), CLASSIFICATION)[name]
    assert estimate is not None
    return estimate.value


# ------------------------------------------------------------------------------------------------ accuracy


def test_ties_share_the_credit() -> None:
    scores = np.array([[[1.0, 1.0, 0.0], [2.0, 2.0, 2.0], [0.0, 0.0, 3.0]]])
    assert credit(scores, np.array([[0, 1, 2]])).tolist() == [pytest.approx([1 / 2, 1 / 3, 1])]
    assert credit(scores, np.array([[2, 1, 0]])).tolist() == [pytest.approx([0, 1 / 3, 0])]


def test_class_accuracies_are_the_share_of_correct_queries_per_class() -> None:
    scores = np.eye(3)[np.array([[0, 1, 2, 2, 1, 0]])]
    labels = np.array([[0, 1, 2, 0, 1, 2]])
    assert class_accuracies(scores, labels).tolist() == [[0.5, 1.0, 0.5]]


float32_scores = arrays.arrays(
    np.float32, (2, 6, 3), elements=st.floats(-1e3, 1e3, width=32).map(lambda score: float(np.float32(round(score, 3))))
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(float32_scores)
def test_log_probabilities_keep_every_order_and_tie_of_the_scores(scores: Floats) -> None:
    labels = np.resize(np.arange(3), (2, 6))
    np.testing.assert_array_equal(credit(log_probabilities(scores), labels), credit(scores, labels))
    np.testing.assert_allclose(np.exp(log_probabilities(scores)).sum(axis=-1), 1)


# ------------------------------------------------------------------------------------- against other code


@pytest.mark.parametrize("sharpness", [0.3, 2.0, 30.0])
def test_nll_brier_and_ece_are_those_of_scikit_learn(sharpness: float) -> None:
    outputs, targets = drawn(1, sharpness=sharpness)
    outputs = log_probabilities(1.7 * outputs)  # not calibrated
    probabilities, labels = np.exp(outputs).reshape(-1, WAY), targets.ravel()
    assert value_of("nll", outputs, targets) == pytest.approx(log_loss(labels, probabilities), abs=1e-6)
    assert value_of("brier", outputs, targets) == pytest.approx(
        brier_score_loss(labels, probabilities, labels=range(WAY), scale_by_half=False), abs=1e-6
    )
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    right, expected = calibration_curve(correct, confidence, n_bins=15)
    counts = np.histogram(confidence, np.linspace(0, 1, 16))[0]
    ece = (np.abs(right - expected) * counts[counts > 0]).sum() / len(labels)
    assert value_of("ece", outputs, targets) == pytest.approx(ece, abs=1e-6)


def test_a_calibrated_method_is_below_the_999th_quantile_of_simulated_ones() -> None:
    simulated = []
    metric = CalibrationError()
    for seed in range(1000):
        outputs, targets = drawn(seed, episodes=20)
        simulated.append(metric.pooled(metric.of_episode(outputs, targets).mean(axis=0)))
    limit = float(np.quantile(simulated, 0.999))
    outputs, targets = drawn(12345, episodes=20)
    assert value_of("ece", outputs, targets) < limit
    assert value_of("ece", log_probabilities(2 * outputs), targets) > limit, "an overconfident method is above it"


# --------------------------------------------------------------------------------------------- temperature


@pytest.mark.parametrize("scale", [1e-4, 0.2, 1.0, 7.0, 1e5])
def test_the_temperature_undoes_a_scale_of_the_scores(scale: float) -> None:
    outputs, targets = drawn(2)
    temperature = fit_temperature(outputs * scale, targets)
    assert temperature == pytest.approx(scale, rel=0.03)


def test_the_temperature_minimises_the_nll() -> None:
    outputs, targets = drawn(3)
    scores = outputs * np.random.default_rng(0).uniform(1, 4, (len(outputs), QUERIES, 1))

    def nll(log_temperature: float) -> float:
        return value_of("nll", log_probabilities(scores, math.exp(log_temperature)), targets)

    expected = math.exp(minimize_scalar(nll, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9}).x)
    assert fit_temperature(scores, targets) == pytest.approx(expected, rel=2e-3)


def test_a_perfect_validation_gives_a_finite_temperature() -> None:
    targets = np.resize(np.arange(WAY), (10, QUERIES))
    temperature = fit_temperature(np.eye(WAY)[targets], targets)
    assert temperature is not None
    assert 0.05 < temperature < 1


def test_scores_against_the_labels_are_flattened() -> None:
    outputs, targets = drawn(4)
    temperature = fit_temperature(-outputs, targets)
    assert temperature is not None
    assert temperature > 100


def test_there_is_no_temperature_where_the_truth_is_impossible() -> None:
    assert fit_temperature(np.array([[[0.0, -np.inf]]]), np.array([[1]])) is None


def test_equal_scores_keep_their_temperature() -> None:
    assert fit_temperature(np.ones((2, 3, 4)), np.zeros((2, 3), np.int64)) == 1


def test_impossible_classes_do_not_move_the_temperature() -> None:
    outputs, targets = drawn(5)
    wider = np.concatenate([outputs, np.full((*targets.shape, 1), -np.inf)], axis=-1)
    assert fit_temperature(wider, targets) == pytest.approx(fit_temperature(outputs, targets), rel=1e-3)


# ----------------------------------------------------------------------------------------------- estimates


def test_an_impossible_truth_leaves_the_nll_unknown_and_says_so() -> None:
    outputs, targets = drawn(6, episodes=4)
    impossible = np.array(outputs)
    impossible[2, 0, targets[2, 0]] = -np.inf
    collector = Collector(CLASSIFICATION, None)
    collector.add(impossible, targets)
    found = estimates(collector.figures(), np.zeros((4, 1), np.int64), CLASSIFICATION)
    assert {name for name, estimate in found.items() if estimate} == {"accuracy", "brier", "ece"}
    assert collector.problems["nll"].startswith("it is not finite in 1 of 4 episodes")
    assert collector.problems["ece_calibrated"].startswith("no temperature")


def test_chunks_and_joined_episodes_give_the_estimates_of_all() -> None:
    """A record grows by joining figures."""
    outputs, targets = drawn(7, episodes=60)
    groups = np.random.default_rng(0).integers(0, 40, (60, WAY))
    whole, parts = Collector(CLASSIFICATION, 2.0), Collector(CLASSIFICATION, 2.0)
    whole.add(outputs, targets)
    for first, last in ((0, 1), (1, 40), (40, 60)):
        parts.add(outputs[first:last], targets[first:last])
    assert estimates(whole.figures(), groups, CLASSIFICATION) == estimates(parts.figures(), groups, CLASSIFICATION)


@pytest.mark.slow
def test_the_bootstrap_covers_the_true_calibration_error() -> None:
    """Of an overconfident method, whose ECE of 100 000 episodes stands for the true one."""
    true = np.mean([value_of("ece", log_probabilities(2 * o), t) for o, t in (drawn(s, 1000) for s in range(50))])
    covered = 0
    for seed in range(200):
        outputs, targets = drawn(1000 + seed, 100)
        collector = Collector(CLASSIFICATION, None)
        collector.add(log_probabilities(2 * outputs), targets)
        estimate = estimates(collector.figures(), np.zeros((100, 1), np.int64), CLASSIFICATION)["ece"]
        assert isinstance(estimate, Estimate)
        covered += abs(estimate.value - true) <= estimate.ci95
    print(f"covered: {covered} of 200")
    assert covered / 200 >= 0.9


class Broken(Metric):
    """Fails in one of its functions."""

    def __init__(self, figures: object, pooled: float = 0.0) -> None:
        self._figures, self._pooled = figures, pooled

    def of_episode(self, outputs: Floats, targets: Ints) -> Floats:
        if isinstance(self._figures, Exception):
            raise self._figures
        return self._figures  # type: ignore[return-value]

    def pooled(self, means: Floats) -> float:
        return self._pooled


@pytest.mark.parametrize(
    ("metric", "problem"),
    [
        (Broken(KeyError("x")), "KeyError: 'x'"),
        (Broken(np.zeros(3)), "of_episode must return [4] or [4, k] figures, not (3,)"),
        (Broken(1.0), "of_episode must return [4] or [4, k] figures, not ()"),
        (Broken(np.ones((4, 2)), math.nan), "pooled returned nan"),
    ],
)
def test_a_broken_metric_is_dropped_with_its_reason(metric: Metric, problem: str) -> None:
    measures = [*CLASSIFICATION, Measure.of(MetricSpec("broken", "a:b", ""), metric)]
    outputs, targets = drawn(8, episodes=4)
    collector = Collector(measures, 1.0)
    collector.add(outputs, targets)
    assert set(collector.figures()) == set(by_name(CLASSIFICATION))
    assert problem in collector.problems["broken"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"name": "No Name"}, "must consist of"), ({"better": "more"}, "'high' or 'low'"), ({"scale": 0}, "positive")],
)
def test_a_declaration_that_cannot_be_used_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MetricSpec(**{"name": "margin", "target": "a:b", "summary": "", **fields})  # type: ignore[arg-type]


def test_metrics_of_10_000_episodes_take_less_than_a_second_of_a_processor() -> None:
    """Measured: docs/performance.md; the limit allows for a busy machine."""
    outputs, targets = drawn(9, episodes=250)
    collector = Collector(CLASSIFICATION, 2.0)
    start = time.process_time()
    for _ in range(40):
        collector.add(outputs, targets)
    estimates(collector.figures(), np.random.default_rng(0).integers(0, 400, (10_000, WAY)), CLASSIFICATION)
    seconds = time.process_time() - start
    print(f"{seconds:.2f} s")
    assert seconds < 1
