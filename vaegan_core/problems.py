"""What is wrong with a configuration: every problem at once, each with its dotted path, rule and value."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import InitErrorDetails


class ConfigError(ValueError):
    """Every problem of one configuration at once. `problems` are (dotted path, message) pairs."""

    def __init__(self, what: str, problems: Iterable[tuple[str, str]]) -> None:
        self.what = what
        self.problems = list(problems)
        lines = [f"  {path}: {message}" if path else f"  {message}" for path, message in self.problems]
        count = f"{len(lines)} error" + ("s" if len(lines) != 1 else "")
        super().__init__(f"{what} has {count}:\n" + "\n".join(lines))


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


def refuse(misfits: Iterable[tuple[str, str]]) -> None:
    """Makes each of these (dotted path, message) pairs an error of its own of the model that is being validated."""
    errors = [
        InitErrorDetails(type="value_error", loc=tuple(path.split(".")), input=None, ctx={"error": message})
        for path, message in misfits
    ]
    if errors:
        raise ValidationError.from_exception_data("misfits", errors)


def exactly_one(config: BaseModel, *names: str) -> None:
    given = [name for name in names if getattr(config, name) is not None]
    if len(given) != 1:
        raise ValueError(f"exactly one of {' and '.join(names)} must be given, but got {' and '.join(given) or 'none'}")


def problems_of(error: ValidationError, data: Any) -> list[tuple[str, str]]:
    """Pydantic's findings about `data` as (dotted path, message that shows the value) pairs."""
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


def problems_and_misfits(
    error: ValidationError, model: type[Config], data: Any, fits_all: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """The findings of `error` about `data`, and the misfits between those parts of it that are right by themselves.

    In place of the other parts stand those of `fits_all`, which have no misfit with anything, or the defaults.
    """
    problems = problems_of(error, data)
    wrong = {item["loc"][0] for item in error.errors(include_url=False) if item["loc"]}
    if not wrong:
        return problems
    parts = {key: value for key, value in data.items() if key in model.model_fields and key not in wrong}
    try:
        model.model_validate(parts | {key: value for key, value in fits_all.items() if key in wrong})
    except ValidationError as misfits:
        problems += problems_of(misfits, data)
    return problems


def _path_in_yaml(location: tuple[int | str, ...], kind: str, data: Any) -> str:
    """Pydantic's location as a user wrote it: the members of unions that pydantic names are no keys of `data`."""
    path, node = [], data
    for index, part in enumerate(location):
        known = part in node if isinstance(node, Mapping) else isinstance(node, list | tuple) and isinstance(part, int)
        if known:
            path.append(str(part))
            node = node[part]
        elif kind == "missing" and index == len(location) - 1:
            path.append(str(part))
    return ".".join(path)
