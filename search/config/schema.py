"""JSON Schemas of the YAML files, for editors."""

from __future__ import annotations

import json
from typing import Any

from search.config.sweep_config import SweepConfig
from vaegan_core.config import TrialConfig

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def write_schema(kind: str) -> str:
    """Of `sweep` or `trial` files, as JSON. Raises ValueError for another kind."""
    if kind == "trial":
        return _text(TrialConfig.model_json_schema(), "A trial of vaegan-search")
    if kind == "sweep":
        return _text(_sweep_schema(), "A sweep of vaegan-search")
    raise ValueError(f"there are schemas of sweep and trial, but got {kind!r}")


def _text(schema: dict[str, Any], title: str) -> str:
    return json.dumps({"$schema": DIALECT} | schema | {"title": title}, indent=2)


def _sweep_schema() -> dict[str, Any]:
    """SweepConfig's own, with what is loose there made strict: the base is a trial of which the space may give any
    part, keys of space and points are the dotted names of its settings."""
    schema = SweepConfig.model_json_schema()
    trial = TrialConfig.model_json_schema()
    definitions = schema.setdefault("$defs", {}) | trial.pop("$defs", {})
    settings = sorted(dotted_names(trial, definitions))
    definitions["Base"] = _all_optional(trial)
    definitions |= {
        name: _all_optional(each) for name, each in definitions.items() if name in _used_by(trial, definitions)
    }
    definitions["Range"] = RANGE
    definitions["Searched"] = SEARCHED
    properties = schema["properties"]
    properties["base"] = {"$ref": "#/$defs/Base"}
    searched = {name: {"$ref": "#/$defs/Searched"} for name in settings}
    properties["space"] = {"type": "object", "properties": searched, "additionalProperties": False}
    point = {"type": "object", "properties": {name: {} for name in settings}, "additionalProperties": False}
    properties["points"] = {"type": "object", "additionalProperties": point}
    properties["preset"] = {"type": "string", "description": "Which of the presets to apply."}
    properties["presets"] = {"type": "object", "additionalProperties": {"type": "object"}}
    schema["$defs"] = definitions
    return schema


RANGE = {
    "type": "object",
    "properties": {
        "low": {"type": "number"},
        "high": {"type": "number"},
        "log": {"type": "boolean"},
        "step": {"type": "number"},
    },
    "required": ["low", "high"],
    "additionalProperties": False,
}
SEARCHED = {
    "description": "A fixed value, a list to choose from, a range, a branch, or a mapping of settings below this one.",
    "anyOf": [
        {"type": ["number", "string", "boolean", "null"]},
        {"type": "array", "minItems": 1},
        {"$ref": "#/$defs/Range"},
        {
            "type": "object",
            "properties": {"one_of": {"type": "object", "minProperties": 1}},
            "required": ["one_of"],
            "additionalProperties": False,
        },
        {"type": "object", "not": {"anyOf": [{"required": ["one_of"]}, {"required": ["low"]}, {"required": ["high"]}]}},
    ],
}


def dotted_names(schema: dict[str, Any], definitions: dict[str, Any], prefix: str = "") -> set[str]:
    """Names of all settings below an object's schema, through any member of a union."""
    names: set[str] = set()
    for reference in _references(schema):
        names |= dotted_names(definitions[reference], definitions, prefix)
    for name, inner in schema.get("properties", {}).items():
        names.add(f"{prefix}{name}")
        names |= dotted_names({"anyOf": [inner]}, definitions, f"{prefix}{name}.")
    return names


def _references(schema: dict[str, Any]) -> list[str]:
    """Definitions that this very value may be."""
    found = [schema["$ref"].rpartition("/")[2]] if "$ref" in schema else []
    for key in ("anyOf", "oneOf", "allOf"):
        for inner in schema.get(key, []):
            found += _references(inner)
    return found


def _used_by(schema: dict[str, Any], definitions: dict[str, Any]) -> set[str]:
    text, names = json.dumps(schema), set[str]()
    for name in definitions:
        if f'"#/$defs/{name}"' in text and name not in names:
            names |= {name} | _used_by(definitions[name], {k: v for k, v in definitions.items() if k != name})
    return names


def _all_optional(schema: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key != "required"}
