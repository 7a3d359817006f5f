"""Parameters become validated `Config`s, and what is wrong with them becomes a message."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from metabench.errors import nearest

if TYPE_CHECKING:  # imports torch
    from metabench.api import Config


@dataclass(frozen=True)
class ConfigProblem:
    """One thing wrong with the parameters of a plugin's class: where in them, and what."""

    path: tuple[str | int, ...]
    message: str


class InvalidConfig(Exception):
    """Parameters do not fit the `Config` of the class that they are for."""

    def __init__(self, problem: ConfigProblem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def validate_config(model: type[Config], params: Mapping[str, Any]) -> Config:
    """Return `params` as an instance of `model`.

    Raises:
        InvalidConfig: with the place, and the nearest name where a name is unknown.
    """
    try:
        # As JSON, so that a list can be a tuple and a word an enumeration, and nothing else is converted.
        return model.model_validate_json(json.dumps(dict(params)))
    except ValidationError as error:
        raise InvalidConfig(first_problem(error, model)) from error


def first_problem(error: ValidationError, model: type[BaseModel]) -> ConfigProblem:
    """Return the first problem that pydantic found, in the words that metabench uses."""
    details = error.errors(include_url=False)
    # A misspelt key makes a required one missing too: the misspelling is the cause.
    found = next((detail for detail in details if detail["type"] == "extra_forbidden"), details[0])
    path = tuple(found["loc"])
    if found["type"] == "extra_forbidden":
        known = _keys_at(model, path[:-1])
        return ConfigProblem(
            path, f"unknown key '{path[-1]}'{nearest(str(path[-1]), known)}. Known keys: {', '.join(known)}"
        )
    if found["type"] == "missing":
        return ConfigProblem(path[:-1], f"the key '{path[-1]}' is missing")
    message = found["msg"].removeprefix("Value error, ")
    return ConfigProblem(path, f"{message[0].lower()}{message[1:]}, not {short(found['input'])}")


def _keys_at(model: type[BaseModel], path: tuple[str | int, ...]) -> list[str]:
    """Return the keys of the nested model at `path`."""
    current: Any = model
    for step in path:
        if isinstance(current, type) and issubclass(current, BaseModel):
            current = current.model_fields[str(step)].annotation if str(step) in current.model_fields else None
        else:  # the values of a mapping or a list
            arguments = getattr(current, "__args__", ())
            current = arguments[-1] if arguments else None
    if isinstance(current, type) and issubclass(current, BaseModel):
        return list(current.model_fields)
    return []


def short(value: object) -> str:
    """Return a value for a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
