"""The next parameters, and the rule that ends trainings."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from metabench.errors import UsageError
from metabench.specs import Float, Integer, OneOf
from metabench.tuning.proposals import check_optuna, propose
from metabench.tuning.pruning import MedianRule
from metabench.tuning.searches import Search
from metabench.tuning.trials import Trial

SEARCH = Search(
    "method",
    {"rate": Float(1e-3, 1, log=True), "steps": Integer(1, 9), "kind": OneOf(["a", "b", None])},
    {"rate": 5.0, "steps": 2, "kind": None},
)


def made(count: int, seed: int = 0) -> list[Trial]:
    """Return trials as a search makes them; a rate of .1 is best."""
    trials: list[Trial] = []
    while len(trials) < count:
        params = propose(SEARCH, trials, seed, 1)
        value = 1 - abs(params["rate"] - 0.1)
        state: Any = "failed" if params["kind"] == "b" else "complete"
        trials.append(Trial(params=params, state=state, values=[] if state == "failed" else [value, value]))
    return trials


def test_parameters_are_within_their_ranges_after_the_own_ones() -> None:
    pytest.importorskip("optuna", reason="the extra tune is not installed")
    first, *others = made(25)
    assert first.params == SEARCH.own
    for trial in others:
        assert all(SEARCH.space[name].contains(value) for name, value in trial.params.items()), trial.params
        assert float(f"{trial.params['rate']:.3g}") == trial.params["rate"]
    assert len({trial.params["rate"] for trial in others}) > 20
    later = [abs(trial.params["rate"] - 0.1) for trial in others[-8:]]
    assert sorted(later)[4] < 0.1, "half of the last trials are near the best"


def test_a_proposal_is_a_function_of_seed_and_earlier_trials() -> None:
    pytest.importorskip("optuna", reason="the extra tune is not installed")
    trials = made(14)
    assert [trial.params for trial in made(14)] == [trial.params for trial in trials]
    assert propose(SEARCH, trials[:13], 0, 1) == trials[13].params, "as a search that goes on"
    assert propose(SEARCH, trials[:13], 1, 1) != trials[13].params


def test_a_search_without_optuna_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UsageError, match=r"pip install 'metabench\[tune\]'"):
        check_optuna()


def trial(*values: float, state: Any = "complete") -> Trial:
    curve = [(10 * number, value) for number, value in enumerate(values, 1)]
    return Trial(params={}, state=state, values=[values[-1]] * 2, curves=[curve])


def test_a_training_ends_where_its_best_is_below_the_median_of_complete_trials() -> None:
    trials = [trial(i / 8, i / 8 + 0.25) for i in range(1, 6)]  # medians .375 and .625
    rule = MedianRule.of(trials, 0, 1)
    assert rule([(10, 0.37)])
    assert not rule([(10, 0.375)])
    assert not rule([(10, 0.7), (20, 0.5)]), "its best so far counts"
    assert not rule([(30, 0.0)]), "no other trial had this step"
    assert not MedianRule.of(trials[:4], 0, 1)([(10, 0.0)]), "four are too few"
    assert not MedianRule.of([*trials[:4], trial(0.5, state="pruned")], 0, 1)([(10, 0.0)])
    assert not MedianRule.of(trials, 1, 1)([(10, 0.0)]), "another training of the trial"
    errors = MedianRule.of(trials, 0, -1)
    assert errors([(10, 0.38)])
    assert not errors([(10, 0.375)])
