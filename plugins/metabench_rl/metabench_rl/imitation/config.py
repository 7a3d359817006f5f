"""Parameters of the demonstrations."""

from __future__ import annotations

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, field_validator

from metabench.api import Config


class DemonstrationsConfig(Config):
    """Parameters of `Demonstrations`.

    Attributes:
        environments: names of Meta-World's environments without their version, e.g. ``reach``.
        horizon: H, steps of a demonstration, and of a test episode.
        demonstrations: D, demonstrations of each task; shots and queries of an episode are different ones.
        train: training tasks of each environment.
        validation: validation tasks of each environment.
        test: test tasks of each environment.
        disturbance: standard deviation of the normal noise that disturbs the actions of the expert, and of learners in
            a test, as a share of the largest action. The recorded actions of the expert are without it.
        episodes: test episodes of each task, with disturbances of their own.
    """

    environments: list[str] = Field(default=["reach"], min_length=1)
    horizon: int = Field(default=100, ge=1, le=500)
    demonstrations: int = Field(default=2, ge=2)
    train: NonNegativeInt = 200
    validation: NonNegativeInt = 20
    test: NonNegativeInt = 50
    disturbance: NonNegativeFloat = 0.1
    episodes: PositiveInt = 3

    @field_validator("environments")
    @classmethod
    def _names_each_once(cls, environments: list[str]) -> list[str]:
        for name in environments:
            if environments.count(name) > 1:
                raise ValueError(f"'{name}' is given twice")
            if name.endswith("-v3"):
                raise ValueError(f"'{name}' has its version: write '{name.removesuffix('-v3')}'")
        return environments

    def tasks(self, split: str) -> int:
        """Return the number of tasks of an environment in a split, ``"train"``, ``"val"`` or ``"test"``."""
        return {"train": self.train, "val": self.validation, "test": self.test}[split]
