"""What is wrong with a configuration: every problem at once, each with its dotted path, rule and value."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

Problem = tuple[str, str]
"""Dotted path, and a message that states the rule and shows the value."""


class ConfigError(ValueError):
    """Every problem of the configuration `what` at once."""

    def __init__(self, what: str, problems: Iterable[Problem]) -> None:
        self.what = what
        self.problems = list(problems)
        lines = [f"  {path}: {message}" if path else f"  {message}" for path, message in self.problems]
        count = f"{len(lines)} error" + ("s" if len(lines) != 1 else "")
        super().__init__(f"{what} has {count}:\n" + "\n".join(lines))


class Config(BaseModel):
    """A frozen part of a configuration; an unknown key is an error, and so are infinity and NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


def exactly_one(config: BaseModel, *names: str) -> None:
    """Raises ValueError unless exactly one of these fields is given."""
    given = [name for name in names if getattr(config, name) is not None]
    if len(given) != 1:
        raise ValueError(f"exactly one of {' and '.join(names)} must be given, but got {' and '.join(given) or 'none'}")


def problems_of(error: ValidationError, data: Any) -> list[Problem]:
    """Pydantic's errors about `data`, with paths as in the YAML."""
    rules: dict[tuple[str, str], list[str]] = {}  # The alternatives of a union by (path, what was got)
    for item in error.errors(include_url=False):
        path, context = _path_in_yaml(item["loc"], item["type"], data), item.get("ctx", {})
        tag = f"{path}.{context.get('discriminator', '')}".replace("'", "")
        rule, got = re.sub(r"^\w+ should ", "must ", item["msg"]), f", but got {item['input']!r}"
        match item["type"]:
            case "missing":
                rule, got = "is required, but is not given", ""
            case "extra_forbidden":
                rule, got = "is not a key here; check its spelling", ""
            case "union_tag_not_found":
                path, rule, got = tag, "is required, but is not given", ""
            case "union_tag_invalid":
                path, rule = tag, f"must be one of {context['expected_tags']}"
                got = f", but got {context['tag']!r}"
            case "model_type" | "dict_type" | "model_attributes_type":
                rule = "must be a mapping of keys"
            case "value_error":
                rule, got = item["msg"].removeprefix("Value error, "), ""
        rules.setdefault((path, got), []).append(re.sub(r", (unable to|got a number) .*", "", rule))
    return [
        (path, " or ".join([first, *(rule.removeprefix("must be ") for rule in others if rule != first)]) + got)
        for (path, got), (first, *others) in rules.items()
    ]


def _path_in_yaml(location: tuple[int | str, ...], kind: str, data: Any) -> str:
    """Pydantic's location as the user wrote it, without the names of union members, which are not keys of `data`."""
    path, node = [], data
    for index, part in enumerate(location):
        known = part in node if isinstance(node, Mapping) else isinstance(node, list | tuple) and isinstance(part, int)
        if known:
            path.append(str(part))
            node = node[part]
        elif kind == "missing" and index == len(location) - 1:
            path.append(str(part))
    return ".".join(path)


# --- Rules between parts ----------------------------------------------------------------------------------------------


def valid_parts(model: type[Config], data: Any) -> tuple[dict[str, Any], list[Problem]]:
    """The fields of `model` that are valid by themselves, typed, defaults included; and the problems of the others.

    What a field demands must be in its annotation: a `field_validator` of the model is not run for a part.
    """
    try:
        return dict(model.model_validate(data)), []
    except ValidationError as error:
        problems = problems_of(error, data)
        wrong = {item["loc"][0] for item in error.errors(include_url=False) if item["loc"]}
    if not isinstance(data, Mapping):
        return {}, problems
    types, fields = _types_of_parts(model), model.model_fields
    parts = {
        name: types[name].validate_python(data[name])
        if name in data
        else fields[name].get_default(call_default_factory=True)
        for name in fields
        if name not in wrong
    }
    return parts, problems


@cache
def _types_of_parts(model: type[Config]) -> dict[str, TypeAdapter[Any]]:
    annotations: dict[str, Any] = {
        name: Annotated[field.annotation, field] for name, field in model.model_fields.items()
    }
    return {name: TypeAdapter(annotation) for name, annotation in annotations.items()}


Check = Callable[..., Iterable[Problem]]


@dataclass(frozen=True)
class Rule:
    """What must hold between parts of a configuration. `check` takes the parts named in `needs`, each valid by itself,
    and yields a problem for each violation."""

    needs: tuple[str, ...]
    check: Check


def rule(rules: list[Rule], *needs: str) -> Callable[[Check], Check]:
    """Adds the function below, which takes the parts of these names, to `rules`."""

    def add(check: Check) -> Check:
        rules.append(Rule(needs, check))
        return check

    return add


def violations(rules: Iterable[Rule], parts: Mapping[str, Any]) -> list[Problem]:
    """Problems in the order of the rules; a rule is skipped unless `parts` holds everything it needs."""
    return [
        problem
        for rule in rules
        if all(name in parts for name in rule.needs)
        for problem in rule.check(*(parts[name] for name in rule.needs))
    ]
