"""A JSON schema of suites, for editors; `resolve` checks what no schema can say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metabench.planning.suite import Suite

#: JSON schema of a plugin's parameters by its name.
Parameters = Mapping[str, Mapping[str, Any]]
#: The sections of a suite whose entries have parameters, and the model of their entries.
SECTIONS = {"datasets": "DatasetEntry", "backbones": "Entry", "algorithms": "AlgorithmEntry"}
_PROFILE = "-in-profile"


def suite_schema(parameters: Mapping[str, Parameters]) -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of a suite of the few-shot engine.

    Args:
        parameters: by section of `SECTIONS`, the schemas of parameters (``Config.model_json_schema()``) by plugin name.
            Parameters of classes in files are not checked.
    """
    schema = Suite.model_json_schema()
    defs: dict[str, Any] = schema.pop("$defs")
    del schema["properties"]["profile"]  # a key of resolved suites
    for owner in (schema, defs["AlgorithmEntry"]):
        owner["properties"]["train"] = _word_for_nothing(owner["properties"]["train"])
    for section, model in SECTIONS.items():
        known = {name: f"{section}:{name}" for name in parameters.get(section, {})}
        for name, key in known.items():
            defs.update(_with_grids(parameters[section][name], key))
        # `Entry` is that of backbones only.
        defs[model]["allOf"] = [
            {"if": {"properties": {"use": {"const": name}}, "required": ["use"]}, "then": _params(key)}
            for name, key in known.items()
        ]
        schema["properties"][section]["properties"] = {
            name: {
                "allOf": [{"$ref": f"#/$defs/{model}"}, {"if": {"required": ["use"]}, "else": _params(key)}],
            }
            for name, key in known.items()
        }
    required = schema.pop("required")
    relaxed = _relaxed(schema)
    defs.update({f"{name}{_PROFILE}": _relaxed(part) for name, part in defs.items()})
    defs[f"Suite{_PROFILE}"] = relaxed
    schema["properties"]["profiles"] = {
        "type": "object",
        "description": "changed settings by name of a profile",
        "additionalProperties": {"anyOf": [{"$ref": f"#/$defs/Suite{_PROFILE}"}, {"type": "null"}]},
    }
    schema["properties"]["default_profile"] = {"type": ["string", "null"]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "a suite of metabench",
        "required": ["name"],
        # What a suite lacks, its profiles may have.
        "if": {"required": ["profiles"]},
        "else": {"required": required},
        "$defs": defs,
    }


def _params(key: str) -> dict[str, Any]:
    return {"properties": {"params": {"$ref": f"#/$defs/{key}"}}}


def _word_for_nothing(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of training settings, which may be the word none, and not YAML's null."""
    parts = [{"const": "none"} if part == {"type": "null"} else part for part in section["anyOf"]]
    return {**section, "anyOf": parts}


def _with_grids(config: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return the definitions of a plugin's parameters, each of which may be a grid.

    Args:
        config: the schema of its `Config`.
        key: name of the definition.
    """
    config = dict(_renamed(config, f"{key}:"))
    parts = {f"{key}:{name}": part for name, part in config.pop("$defs", {}).items()}
    config["properties"] = {
        name: {
            "anyOf": [
                value,
                {
                    "type": "object",
                    "properties": {"grid": {"type": "array", "items": value, "minItems": 1}},
                    "required": ["grid"],
                    "additionalProperties": False,
                },
            ],
            **({"description": value["description"]} if "description" in value else {}),
        }
        for name, value in config.get("properties", {}).items()
    }
    return {key: config, **parts}


def _renamed(schema: Any, prefix: str, suffix: str = "") -> Any:
    """Return a schema whose references have other names."""
    if isinstance(schema, dict):
        return {
            key: f"#/$defs/{prefix}{value.removeprefix('#/$defs/')}{suffix}"
            if key == "$ref"
            else _renamed(value, prefix, suffix)
            for key, value in schema.items()
        }
    return [_renamed(part, prefix, suffix) for part in schema] if isinstance(schema, list) else schema


def _relaxed(schema: Any) -> Any:
    """Return the schema of what a profile changes: no key is required, and mappings may be empty."""
    schema = _renamed(schema, "", _PROFILE)
    return {key: value for key, value in schema.items() if key not in ("required", "minProperties")}
