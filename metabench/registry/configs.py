"""Validate parameters into a `Config`, with readable error messages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import GenericAlias, NoneType
from typing import TYPE_CHECKING, Any, TypeGuard, get_args

from pydantic import BaseModel, ValidationError

from metabench.errors import PluginError, PluginExited, in_one_line, nearest, shown
from metabench.specs import SearchRange

if TYPE_CHECKING:  # imports torch
    from metabench.api import Config


@dataclass(frozen=True)
class ConfigProblem:
    """One mistake in parameters.

    Attributes:
        path: the keys that lead to the wrong value.
        message: what is wrong with it.
    """

    path: tuple[str | int, ...]
    message: str


class InvalidConfig(Exception):
    """Parameters do not fit the `Config` of their class."""

    def __init__(self, problem: ConfigProblem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def validate_config(model: type[Config], params: Mapping[str, Any]) -> Config:
    """Return `params` as an instance of `model`.

    Raises:
        InvalidConfig: with the path of the wrong value; for an unknown key, with the nearest known one.
        PluginExited: a validator exits.
    """
    try:
        # JSON mode accepts lists for tuples and strings for enumerations, and converts nothing else.
        return model.model_validate_json(json.dumps(dict(params)))
    except ValidationError as error:
        raise InvalidConfig(first_problem(error, model)) from error
    except Exception as error:  # a validator of a plugin may raise anything
        raise InvalidConfig(ConfigProblem((), f"its Config failed: {in_one_line(error)}")) from error
    except SystemExit as error:
        raise PluginExited(f"the Config of {model.__module__} ended: {in_one_line(error)}") from error


def complete_params(model: type[Config], params: Mapping[str, Any]) -> dict[str, Any]:
    """Return `params` with all defaults, as plain data.

    Raises:
        InvalidConfig: as `validate_config`, or a value has no form as JSON.
    """
    config = validate_config(model, params)
    try:
        return config.model_dump(mode="json")
    except Exception as error:  # pydantic's, or that of a plugin's serializer
        raise InvalidConfig(ConfigProblem((), f"its Config has no form as JSON: {in_one_line(error)}")) from error


def with_params(config: Config, params: Mapping[str, Any]) -> Config:
    """Return a `Config` with some other parameters, as plain data.

    Raises:
        InvalidConfig: as `validate_config`.
    """
    return validate_config(type(config), {**config.model_dump(mode="json"), **params}) if params else config


def test_time_names(model: type[Config]) -> frozenset[str]:
    """Return the names of the parameters that only a test uses (`metabench.api.at_test`)."""
    extras = {name: field.json_schema_extra for name, field in model.model_fields.items()}
    return frozenset(name for name, extra in extras.items() if isinstance(extra, dict) and extra.get("test_time"))


def search_space(model: type[Config]) -> dict[str, SearchRange]:
    """Return what is searched for each parameter of a `Config` (`metabench.api.Config.search_space`).

    Raises:
        PluginError: it names no parameter, or has no range for one.
    """
    space = dict(getattr(model, "search_space", {}))
    for name, searched in space.items():
        if name not in model.model_fields:
            raise PluginError(
                f"search_space of {model.__name__} has '{shown(name)}', which is none of its parameters"
                f"{nearest(str(name), model.model_fields)}"
            )
        if not isinstance(searched, SearchRange):
            raise PluginError(
                f"search_space of {model.__name__}: '{name}' must be a Float, an Integer or OneOf, "
                f"not {short(searched)}"
            )
    return space


def first_problem(error: ValidationError, model: type[BaseModel]) -> ConfigProblem:
    """Return the first pydantic error in metabench's words."""
    details = error.errors(include_url=False)
    # A misspelt key also leaves a required key missing: report the misspelling, which is the cause.
    first = next((detail for detail in details if detail["type"] == "extra_forbidden"), details[0])
    path = tuple(first["loc"])
    if first["type"] == "extra_forbidden":
        known = _keys_at(model, path[:-1])
        return ConfigProblem(
            path, f"unknown key '{shown(path[-1])}'{nearest(str(path[-1]), known)}. Known keys: {', '.join(known)}"
        )
    if first["type"] == "missing":
        return ConfigProblem(path[:-1], f"the key '{path[-1]}' is missing")
    message = first["msg"].removeprefix("Value error, ")
    message = f"{message[0].lower()}{message[1:]}"
    if first["type"] == "value_error" and isinstance(first["input"], dict):  # of a whole section
        return ConfigProblem(path, message)
    return ConfigProblem(path, f"{message}, not {short(first['input'])}")


def _keys_at(model: type[BaseModel], path: tuple[str | int, ...]) -> list[str]:
    """Return the keys of the nested model at `path`."""
    current: Any = model
    for key in path:
        if is_class(current) and issubclass(current, BaseModel):
            field = current.model_fields.get(str(key))
            current = _without_none(field.annotation) if field else None
        else:  # a mapping or list: continue with the type of its values
            arguments = getattr(current, "__args__", ())
            current = arguments[-1] if arguments else None
    if is_class(current) and issubclass(current, BaseModel):
        return list(current.model_fields)
    return []


def _without_none(annotation: Any) -> Any:
    """Return the type of an optional value."""
    arguments = get_args(annotation)
    return next(part for part in arguments if part is not NoneType) if NoneType in arguments else annotation


def is_class(thing: object) -> TypeGuard[type]:
    """Return whether the object is a class, and no `list[int]`.

    Python 3.10 takes `list[int]` for a class, but `issubclass` refuses it.
    """
    return isinstance(thing, type) and not isinstance(thing, GenericAlias)


def short(value: object) -> str:
    """Return the value's repr, cut to 60 characters."""
    try:
        text = repr(value)
    except BaseException:  # an object of a plugin
        text = f"an object of {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."
