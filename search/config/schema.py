"""JSON Schemas of the YAML files, for editors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from search.config.sweep_config import SweepConfig
from vaegan_core.config.trial import TrialConfig
from vaegan_core.problems import key_names
from vaegan_core.spelling import did_you_mean

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def write_schema(kind: str) -> str:
    """JSON Schema of `sweep` or `trial` files. Raises ValueError for another kind."""
    if kind == "trial":
        return _text(TrialConfig.model_json_schema(), "A trial of vaegan-search")
    if kind == "sweep":
        return _text(_sweep_schema(), "A sweep of vaegan-search")
    meant = did_you_mean(kind, ("sweep", "trial"))
    raise ValueError(f"the schema must be sweep or trial, but got {kind!r}{meant}")


def _text(schema: dict[str, Any], title: str) -> str:
    return json.dumps({"$schema": DIALECT} | schema | {"title": title}, indent=2)


def _sweep_schema() -> dict[str, Any]:
    """SweepConfig's own schema, made strict where that is loose: the base is a trial of which the space may give any
    part; keys of the space, of points and of what a question changes are the dotted names of its settings."""
    schema, trial = SweepConfig.model_json_schema(), TrialConfig.model_json_schema()
    definitions = schema.pop("$defs", {}) | trial.pop("$defs", {})
    settings = sorted(set(key_names(TrialConfig)))
    definitions |= {name: _all_optional(definitions[name]) for name in definitions_below(trial, definitions)}
    definitions |= {
        "Base": _all_optional(trial),
        "Range": RANGE,
        "Choice": CHOICE,
        "Prior": PRIOR,
        "Searched": SEARCHED,
    }
    question = definitions["QuestionConfig"]
    for part in ("factor", "across", "crossed"):
        given = question["properties"][part]
        question["properties"][part] = given | _object(dict.fromkeys(settings, given["additionalProperties"]))
    point = _object({name: {} for name in settings})
    properties = schema["properties"] | {
        "base": _reference("Base"),
        "space": _object({name: _reference("Searched") for name in settings}),
        "points": {"type": "object", "additionalProperties": point},
        "preset": {"type": "string", "description": "Which of the presets to apply."},
        "presets": {"type": "object", "additionalProperties": {"type": "object"}},
    }
    return schema | {"properties": properties, "$defs": definitions}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _reference(definition: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{definition}"}


def _all_optional(schema: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key != "required"}


RANGE = {
    "type": "object",
    "properties": {
        "low": {"type": "number"},
        "high": {"type": "number"},
        "log": {"type": "boolean"},
        "step": {"type": "number"},
        "prior": {"$ref": "#/$defs/Prior"},
    },
    "required": ["low", "high"],
    "additionalProperties": False,
}
PRIOR = {
    "description": "Where good values are believed to be.",
    "type": "object",
    "properties": {"value": {}, "sure": {"enum": ["low", "medium", "high"]}},
    "required": ["value", "sure"],
    "additionalProperties": False,
}
CHOICE = {
    "type": "object",
    "properties": {"choices": {"type": "array", "minItems": 1}, "prior": {"$ref": "#/$defs/Prior"}},
    "required": ["choices"],
    "additionalProperties": False,
}
SEARCHED = {
    "description": "A fixed value, a list to choose from, a range, a branch, or a mapping of settings below this one.",
    "anyOf": [
        {"type": ["number", "string", "boolean", "null"]},
        {"type": "array", "minItems": 1},
        {"$ref": "#/$defs/Range"},
        {"$ref": "#/$defs/Choice"},
        {
            "type": "object",
            "properties": {
                "one_of": {"type": "object", "minProperties": 1},
                "prior": {"$ref": "#/$defs/Prior"},
            },
            "required": ["one_of"],
            "additionalProperties": False,
        },
        {"type": "object", "not": {"anyOf": [{"required": [key]} for key in ("one_of", "low", "high", "choices")]}},
    ],
}


def definitions_below(schema: dict[str, Any], definitions: dict[str, Any]) -> set[str]:
    """Names of the definitions that a schema refers to at any depth, through other definitions too."""
    names: set[str] = set()
    waiting = [schema]
    while waiting:
        new = set(_references(waiting.pop())) - names
        names |= new
        waiting += [definitions[name] for name in new]
    return names


def _references(tree: Any) -> Iterator[str]:
    """Names of the definitions that a schema itself refers to, at any depth."""
    if isinstance(tree, dict):
        if isinstance(tree.get("$ref"), str):
            yield _definition(tree)
        tree = list(tree.values())
    for inner in tree if isinstance(tree, list) else ():
        yield from _references(inner)


def _definition(schema: dict[str, Any]) -> str:
    name: str = schema["$ref"].removeprefix("#/$defs/")
    return name
