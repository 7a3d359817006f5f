"""Which parameters are tried next: a function of the search, its seed and the trials before."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from metabench.errors import UsageError
from metabench.machine.reproducible import derive_seed
from metabench.specs import Float, Integer, OneOf, SearchRange
from metabench.tuning.searches import Search
from metabench.tuning.trials import Trial

if TYPE_CHECKING:  # takes seconds
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

#: Trainings of a trial follow each other on Optuna's one axis of steps: that of each begins at a multiple of this.
_STEPS = 10**9


def check_optuna() -> None:
    """Check that Optuna is installed.

    Raises:
        UsageError: it is not.
    """
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise UsageError("metabench tune needs Optuna: pip install 'metabench[tune]'") from error


def propose(search: Search, trials: Sequence[Trial], seed: int, sign: int) -> dict[str, Any]:
    """Return the parameters of the next trial; those of the first are the suite's own.

    The sampler is Optuna's TPE (Bergstra et al. 2011), of which the first ten trials are random. A resumed study of
    Optuna would draw other numbers than one that was not interrupted: here, each trial has a sampler with a seed of its
    own, and a study that is made of the trials before.

    Args:
        search: the search.
        trials: the trials so far.
        seed: seed of the search.
        sign: 1 where high values are better, -1 where low ones are.
    """
    if not trials:
        return dict(search.own)
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {name: _distribution(searched) for name, searched in search.space.items()}
    own_seed = derive_seed(seed, f"tune {search.label} {len(trials)}") % 2**32
    with warnings.catch_warnings():
        # Independent parameters are no default of all versions, and where they are not, asking for them warns.
        warnings.simplefilter("ignore")
        sampler = optuna.samplers.TPESampler(seed=own_seed, multivariate=False)
    study = optuna.create_study(direction="maximize" if sign > 0 else "minimize", sampler=sampler)
    for trial in trials:
        study.add_trial(_as_optuna_has_it(trial, search, distributions))
    found = study.ask(distributions).params
    return {name: _rounded(found[name], searched) for name, searched in search.space.items()}


def _distribution(searched: SearchRange) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(searched, OneOf):
        return CategoricalDistribution(list(searched.values))
    if isinstance(searched, Integer):
        return IntDistribution(searched.low, searched.high, log=searched.log)
    return FloatDistribution(searched.low, searched.high, log=searched.log)


def _rounded(value: Any, searched: SearchRange) -> Any:
    """Return a number in three digits, as people write it in a suite."""
    return min(max(float(f"{value:.3g}"), searched.low), searched.high) if isinstance(searched, Float) else value


def _as_optuna_has_it(trial: Trial, search: Search, distributions: dict[str, BaseDistribution]) -> FrozenTrial:
    """Return a trial for a study, without parameters outside of their range: the suite's own may be."""
    from optuna.trial import TrialState, create_trial

    states = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
    within = {
        name: value
        for name, value in trial.params.items()
        if name in search.space and search.space[name].contains(value)
    }
    return create_trial(
        state=states[trial.state],
        value=trial.value,
        params=within,
        distributions={name: distributions[name] for name in within},
        intermediate_values={
            number * _STEPS + step: value for number, curve in enumerate(trial.curves) for step, value in curve
        },
    )
