from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from asked import NORM
from sweeps import sweep_data, trial_data

from search.config.schema import definitions_below, write_schema
from vaegan_core.strict_yaml import load_yaml

SWEEPS = sorted((Path(__file__).parents[3] / "search" / "sweeps").glob("*.yaml"))


def errors(kind: str, data: dict[str, Any]) -> list[str]:
    schema = json.loads(write_schema(kind))
    validator = jsonschema.Draft202012Validator(schema)
    jsonschema.Draft202012Validator.check_schema(schema)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in validator.iter_errors(data)]


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_what_ships_fits_its_schema(path: Path) -> None:
    data = load_yaml(path)
    assert errors("sweep" if "base" in data else "trial", data) == []


def test_trials_fit_the_schema() -> None:
    assert errors("trial", trial_data()) == []
    assert errors("sweep", sweep_data()) == []


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("nmae", "x", "nmae"),
        ("space", {"model.wdith": [8]}, "model.wdith"),
        ("space", {"model.width": {"low": 8, "hgih": 16}}, "space.model.width"),
        ("points", {"p": {"model.wdith": 8}}, "model.wdith"),
        ("sampler", {"name": "tep"}, "tep"),
        ("scheduler", {"name": "asha"}, "scheduler"),
        ("base", trial_data() | {"model": {"latent_dmi": 3}}, "latent_dmi"),
        ("budget", {}, "trials"),
        ("questions", {"q": NORM | {"factor": {"model.encoder.nrm": [1, 2]}}}, "model.encoder.nrm"),
        ("questions", {"q": NORM | {"outcome": "val/pixel"}}, "questions.q.outcome"),
    ],
)
def test_what_a_person_mistypes_is_seen(key: str, value: Any, found: str) -> None:
    [*messages] = errors("sweep", sweep_data() | {key: value})
    assert any(found in message for message in messages), messages


def test_other_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="the schema must be sweep or trial, but got 'frames'"):
        write_schema("frames")


DEFINITIONS: dict[str, Any] = {
    "Tree": {"type": "object", "properties": {"left": {"$ref": "#/$defs/Tree"}, "leaf": {"$ref": "#/$defs/Leaf"}}},
    "Leaf": {"type": "object", "properties": {"color": {"enum": ["#/$defs/Trap"]}, "$ref": {"type": "string"}}},
    "Pot": {"type": "object", "properties": {"plants": {"type": "array", "items": {"$ref": "#/$defs/Tree"}}}},
    "Trap": {"type": "object"},
}


@pytest.mark.parametrize(
    ("schema", "names"),
    [
        ({"type": "string"}, set()),
        ({"$ref": "#/$defs/Leaf"}, {"Leaf"}),
        ({"anyOf": [{"type": "null"}, {"$ref": "#/$defs/Tree"}]}, {"Tree", "Leaf"}),
        ({"properties": {"pot": {"oneOf": [{"$ref": "#/$defs/Pot"}]}}}, {"Pot", "Tree", "Leaf"}),
        ({"description": "a '#/$defs/Trap' in words", "default": {"name": "Trap"}}, set()),
    ],
)
def test_definitions_below_a_schema_are_those_it_leads_to(schema: dict[str, Any], names: set[str]) -> None:
    assert definitions_below(schema, DEFINITIONS) == names


def test_only_the_trial_inside_a_sweep_may_be_partial() -> None:
    definitions = json.loads(write_schema("sweep"))["$defs"]
    assert "required" not in definitions["Base"]
    assert "required" not in definitions["EvaluateConfig"]
    assert definitions["BudgetConfig"]["required"] == ["trials"]
