"""The trials of a tuning, and the file that keeps them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from metabench.errors import StoreError
from metabench.records.measured import Declaration
from metabench.records.store import Store
from metabench.records.values import Cost


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Trial(_Part):
    """Parameters of a method, and how they did on validation episodes.

    Attributes:
        params: the searched parameters.
        state: complete; pruned, if it ended early because others were better at the same step; or failed.
        values: the metric that ranks in each validation episode, mean over the method's cells; none if it is not
            complete.
        curves: the validations of each of its trainings, as pairs of a step and a value.
        trainings: ids of its trainings.
        reason: why it failed; empty if it did not.
        seconds: its time.
    """

    params: dict[str, Any]
    state: Literal["complete", "pruned", "failed"]
    values: list[float] = []
    curves: list[list[tuple[int, float]]] = []
    trainings: list[str] = []
    reason: str = ""
    seconds: Cost = 0.0

    @property
    def value(self) -> float | None:
        """Return the mean over the validation episodes; None if the trial is not complete."""
        return sum(self.values) / len(self.values) if self.values else None


class Method(_Part):
    """The trials of one method.

    Attributes:
        origin: hash of its cells, data and code; trials of another origin do not count.
        trials: its trials, in order; the first has the suite's own parameters.
    """

    origin: str
    trials: list[Trial] = []


class Tuning(_Part):
    """The content of ``tuning.json``.

    Attributes:
        version: version of the file.
        suite: the resolved suite.
        only: the filters of its cells.
        seed: seed of the search.
        methods: the methods, by label.
    """

    version: Literal[1] = 1
    suite: dict[str, Any]
    only: dict[str, list[str]] = {}
    seed: int = Field(ge=0)
    methods: dict[str, Method] = {}


def best_of(trials: Sequence[Trial], metric: Declaration) -> Trial | None:
    """Return the complete trial with the best value, of equal ones the first; None if none is complete."""
    complete = [trial for trial in trials if trial.value is not None]
    return max(complete, key=lambda trial: metric.sign * (trial.value or 0.0), default=None)


class TuningFile:
    """The file ``tuning.json`` of an output directory.

    Args:
        store: the output directory.
    """

    NAME = "tuning.json"

    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def path(self) -> Path:
        """Return its place."""
        return self._store.path / self.NAME

    def begin(self, asked: Tuning) -> Tuning:
        """Return the earlier trials of the same search, or the new one.

        Raises:
            StoreError: the directory holds another search, or a run; or the file is damaged.
        """
        advice = "give another --output"
        if not os.path.exists(self.path):
            self._store.check_no_run()
            return asked
        try:
            kept = Tuning.model_validate_json(self.path.read_bytes())
        except (ValidationError, OSError) as error:
            raise StoreError(f"{self.path} is damaged: delete it, and the tuning begins again; or {advice}") from error
        if kept.suite != asked.suite:
            name = "these settings" if kept.suite.get("name") == asked.suite.get("name") else "this suite"
            raise StoreError(f"{self.path} is the tuning of {kept.suite.get('name')}, not of {name}: {advice}")
        if kept.seed != asked.seed:
            raise StoreError(f"{self.path} was searched with --seed {kept.seed}, not {asked.seed}: {advice}")
        if kept.only != asked.only:
            raise StoreError(f"{self.path} was searched with other --only: give the same, or {advice}")
        return kept

    def write(self, tuning: Tuning) -> None:
        """Write all trials, whole or not at all.

        Raises:
            StoreError: the directory cannot be written.
        """
        self._store.write_text(self.NAME, tuning.model_dump_json(indent=1) + "\n")
