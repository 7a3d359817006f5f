"""The validations of a training, of a metric of either direction."""

from __future__ import annotations

import pytest

from metabench.engine.checkpoints import ValidationCurve


@pytest.mark.parametrize(("sign", "best_step", "best"), [(1, 1, 3.0), (-1, 4, 1.0)])
def test_the_best_value_is_kept_and_of_equal_ones_the_last(sign: int, best_step: int, best: float) -> None:
    curve = ValidationCurve()
    assert curve.best is None
    for step, value in ((1, 3.0), (2, 1.0), (3, 2.0), (4, 1.0)):
        curve.note(step, value, sign, {"step": step})
    assert (curve.best_step, curve.best, curve.best_state) == (best_step, best, {"step": best_step})
