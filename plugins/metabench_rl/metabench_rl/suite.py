"""The suite of `engine: meta-rl`, validated; every error names file, line and key."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError

from metabench.contracts import Gate, SuiteFile, first_problem, nearest, validated, with_profile
from metabench_rl.configs import ALGORITHMS, Config, OuterConfig
from metabench_rl.environments.names import ENVIRONMENTS, FAMILIES, META_WORLD_STEPS, family_of, longest_of

#: Names of suites are also names of directories.
_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
#: A label of a table.
_Label = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f-\x9f]+$", max_length=160)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class TaskEntry(_Section):
    """A task family of a suite; its key is its label.

    Attributes:
        use: name of the family; None means the label.
        horizon: most steps of an episode; None takes the family's own.
        train: number of training tasks; ``any`` draws new ones for each update.
        validation: number of validation tasks.
        test: number of test tasks.
    """

    use: str | None = None
    horizon: PositiveInt | None = None
    train: PositiveInt | Literal["any"] = "any"
    validation: Annotated[int, Field(ge=2)] = 20
    test: Annotated[int, Field(ge=2)] = 40


class Adapt(_Section):
    """How much of a task a method may see before it is tested on it.

    Attributes:
        episodes: episodes of a round.
        rounds: rounds; a test measures before the first one and after each.
    """

    episodes: PositiveInt = 20
    rounds: PositiveInt = 1


class Train(_Section):
    """The budget of a training.

    Attributes:
        env_steps: most environment steps, those of inner loops and validations included.
        validations: number of validations, spread over the budget; with any, the weights that are best in validation
            are tested, else the last ones.
    """

    env_steps: PositiveInt
    validations: NonNegativeInt = 0


class Eval(_Section):
    """The test.

    Attributes:
        episodes: test episodes of a task in each round; the method does not learn from them.
        actions: whether actions are drawn from their distribution, or are its mean.
        seed: seed of the noise of actions.
    """

    episodes: PositiveInt = 10
    actions: Literal["stochastic", "greedy"] = "stochastic"
    seed: NonNegativeInt = 0


class AlgorithmEntry(_Section):
    """An algorithm of a suite; its key is its label.

    Attributes:
        use: name of the algorithm; None means the label.
        params: its parameters (`metabench_rl.configs`).
    """

    use: str | None = None
    params: dict[str, Any] = Field(default_factory=dict)


class Suite(_Section):
    """All settings of a benchmark of meta-reinforcement learning."""

    name: Annotated[str, Field(pattern=_NAME)]
    version: Annotated[int, Field(ge=1)] | None = None
    description: str = ""
    engine: Literal["meta-rl"]
    tasks: Annotated[dict[_Label, TaskEntry], Field(min_length=1)]
    adapt: Adapt = Adapt()
    train: Train
    eval: Eval = Eval()
    algorithms: Annotated[dict[_Label, AlgorithmEntry], Field(min_length=1)]
    seeds: Annotated[list[NonNegativeInt], Field(min_length=1)] = [0]
    gate: Gate = Gate()
    profile: str = ""


def read(file: SuiteFile, profile: str | None) -> tuple[Suite, dict[str, Config]]:
    """Apply a profile, and validate the suite.

    Returns:
        The suite, and the parameters of its algorithms by label.

    Raises:
        SuiteError: with file, line, key path and nearest known key.
    """
    resolved = with_profile(file, profile, ("tasks", "algorithms"))
    suite = validated(resolved, Suite)
    for label, entry in suite.tasks.items():
        name = entry.use or label
        if family_of(name) is None:
            place = ("tasks", label, "use") if entry.use else ("tasks", label)
            raise resolved.error(
                place, f"no task family '{name}'{nearest(name, FAMILIES)}. Known: {', '.join(FAMILIES)}"
            )
        _check_environment(label, entry, resolved)
    if len(set(suite.seeds)) < len(suite.seeds):
        raise resolved.error(("seeds",), "a training seed is given twice")
    params = {label: _params(label, entry, resolved) for label, entry in suite.algorithms.items()}
    for label, config in params.items():
        if isinstance(config, OuterConfig):
            _check_training(label, config, suite, resolved)
    return suite, params


def updates_of(config: OuterConfig, tasks: TaskEntry, horizon: int, adapt: Adapt, train: Train, test: Eval) -> int:
    """Return the number of updates that a budget pays, beside the validations; 0 or less if it pays none.

    Args:
        config: parameters of the algorithm.
        tasks: settings of the task family.
        horizon: most steps of an episode.
        adapt: the rounds of adaptation.
        train: the budget.
        test: the test, whose episodes a validation has, too.
    """
    validation = tasks.validation * (adapt.rounds * adapt.episodes + test.episodes) * horizon
    return (train.env_steps - train.validations * validation) // _steps_of_update(config, horizon)


def _steps_of_update(config: OuterConfig, horizon: int) -> int:
    return config.tasks * config.episodes_per_task * horizon


def _check_environment(label: str, entry: TaskEntry, file: SuiteFile) -> None:
    """Check that Meta-World has the environment of a family, and episodes as long.

    Raises:
        SuiteError: it has not.
    """
    name = entry.use or label
    if not name.startswith("ml1-"):
        return
    environment = name.removeprefix("ml1-")
    if environment not in ENVIRONMENTS:
        place = ("tasks", label, "use") if entry.use else ("tasks", label)
        near = nearest(environment, ENVIRONMENTS)
        raise file.error(
            place, f"Meta-World has no environment '{environment}'{near}. Known: {', '.join(ENVIRONMENTS)}"
        )
    if entry.horizon is not None and entry.horizon > META_WORLD_STEPS:
        message = f"an episode of Meta-World has at most {META_WORLD_STEPS} steps, not {entry.horizon}"
        raise file.error(("tasks", label, "horizon"), message)


def _check_training(label: str, config: OuterConfig, suite: Suite, file: SuiteFile) -> None:
    """Check that a training has tasks enough for an update, and steps enough.

    Raises:
        SuiteError: it has not.
    """
    for tasks_label, tasks in suite.tasks.items():
        if tasks.train != "any" and tasks.train < config.tasks:
            message = f"an update of '{label}' takes {config.tasks} tasks, and there are {tasks.train}"
            raise file.error(("tasks", tasks_label, "train"), message)
        horizon = tasks.horizon or longest_of(tasks.use or tasks_label)
        if updates_of(config, tasks, horizon, suite.adapt, suite.train, suite.eval) < 1:
            raise file.error(
                ("train", "env_steps"),
                f"{suite.train.env_steps:,} steps pay no update of '{label}' on {tasks_label}, which takes "
                f"{_steps_of_update(config, horizon):,}, beside {suite.train.validations} validations: raise "
                "train.env_steps, or lower train.validations, or tasks or episodes of the algorithm",
            )


def _params(label: str, entry: AlgorithmEntry, file: SuiteFile) -> Config:
    name = entry.use or label
    if name not in ALGORITHMS:
        place = ("algorithms", label, "use") if entry.use else ("algorithms", label)
        raise file.error(place, f"no algorithm '{name}'{nearest(name, ALGORITHMS)}. Known: {', '.join(ALGORITHMS)}")
    model, _ = ALGORITHMS[name]
    try:
        return model.model_validate(entry.params)
    except ValidationError as error:
        problem = first_problem(error, model)
        raise file.error(("algorithms", label, "params", *problem.path), problem.message) from error
