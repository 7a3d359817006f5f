"""The suite of `engine: meta-rl`, validated; every error names file, line and key."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError

from metabench.contracts import Gate, SuiteFile, first_problem, nearest, validated, with_profile
from metabench_rl.configs import ALGORITHMS, Config
from metabench_rl.environments.names import FAMILIES, family_of

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
    if len(set(suite.seeds)) < len(suite.seeds):
        raise resolved.error(("seeds",), "a training seed is given twice")
    return suite, {label: _params(label, entry, resolved) for label, entry in suite.algorithms.items()}


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
