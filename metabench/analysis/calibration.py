"""Fit a temperature to scores (Guo et al. 2017)."""

from __future__ import annotations

import numpy as np

from metabench.analysis.stats import Floats, Ints

#: Largest and smallest temperature, in standard deviations of a query's scores.
_BOUNDS = 1e-3, 1e3
#: Steps of the search; each at least halves the interval of 1 / T, so that the last is below 1e-9 of the first.
_STEPS = 60


def fit_temperature(scores: Floats, targets: Ints) -> float | None:
    """Return the temperature T that minimises the NLL of softmax(scores / T).

    A share of 1 / (queries + 2) of each query's target is spread over its possible classes (Platt 1999), without which
    T would be 0 where every query is right.

    Args:
        scores: [..., N] scores, finite or -inf for impossible classes.
        targets: [...] labels.

    Returns:
        The temperature; None where a true class is impossible. Scores that are equal for all classes keep theirs, 1.
    """
    rows, labels = scores.reshape(-1, scores.shape[-1]), targets.reshape(-1)
    shifted = rows - rows.max(axis=1, keepdims=True)
    possible = np.isfinite(shifted)
    finite = np.where(possible, shifted, 0.0)
    spread = float(np.sqrt((finite**2).sum() / possible.sum()))
    true = shifted[np.arange(len(labels)), labels]
    if not np.isfinite(true).all():
        return None
    if spread == 0:
        return 1.0
    smoothing = 1 / (len(labels) + 2)
    # The planes of memory are classes, as in `metabench.analysis.metrics.log_probabilities`.
    planes = np.ascontiguousarray(finite.T) / spread
    of_target = (1 - smoothing) * float(true.mean()) / spread
    of_target += smoothing * float((finite.sum(axis=1) / possible.sum(axis=1)).mean()) / spread
    impossible = ~possible.T

    def slope(beta: float) -> tuple[float, float]:
        """Return first and second derivative of the mean NLL by 1 / T: it is convex."""
        weights = np.exp(beta * planes)
        weights[impossible] = 0.0
        weights /= weights.sum(axis=0)
        means = (weights * planes).sum(axis=0)
        variances = (weights * planes**2).sum(axis=0) - means**2
        return float(means.mean()) - of_target, float(variances.mean())

    low, high = 1 / _BOUNDS[1], 1 / _BOUNDS[0]
    beta = 1.0
    for _ in range(_STEPS):
        first, second = slope(beta)
        low, high = (beta, high) if first < 0 else (low, beta)
        newton = beta - first / second if second > 0 else low
        step = newton if low < newton < high else (low * high) ** 0.5
        if abs(step - beta) <= 1e-9 * beta:
            break
        beta = step
    return spread / beta
