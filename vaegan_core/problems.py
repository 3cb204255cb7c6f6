"""What is wrong with a configuration: every problem at once, each with its dotted path, rule and value."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator

from vaegan_core.spelling import did_you_mean, right_key

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

    @model_validator(mode="before")
    @classmethod
    def _true_is_no_number(cls, data: Any) -> Any:
        """Text is refused where Python would count true and false as 1 and 0."""
        if not isinstance(data, Mapping):
            return data
        numbers = {name for name, field in cls.model_fields.items() if takes_number_not_bool(field.annotation)}
        return {
            key: str(value).lower() if isinstance(value, bool) and key in numbers else value
            for key, value in data.items()
        }


def _types_in(annotation: Any) -> Iterator[Any]:
    yield annotation
    for inner in get_args(annotation):
        yield from _types_in(inner)


def takes_number_not_bool(annotation: Any) -> bool:
    """Whether a value may be a number, but neither true nor false."""
    types = {*_types_in(annotation)}
    return bool(types & {int, float}) and bool not in types


def key_names(model: type[BaseModel]) -> Iterator[str]:
    """Dotted names of all keys below a model, through any member of a union."""
    for name, field in model.model_fields.items():
        yield name
        for member in _types_in(field.annotation):
            if isinstance(member, type) and issubclass(member, BaseModel):
                yield from (f"{name}.{inner}" for inner in key_names(member))


def exactly_one(config: BaseModel, *names: str) -> None:
    """Raises ValueError unless exactly one of these fields is given."""
    given = [name for name in names if getattr(config, name) is not None]
    if len(given) != 1:
        raise ValueError(f"exactly one of {' and '.join(names)} must be given, but got {' and '.join(given) or 'none'}")


def reason(error: BaseException) -> str:
    """Why a file or a value cannot be used, in one line of at most 300 characters, without a library's dumps."""
    if isinstance(error, ValidationError):
        items = error.errors(include_url=False, include_input=False)[:3]
        said = [(".".join(map(str, item["loc"])), re.sub(r"^\w+ should ", "must ", item["msg"])) for item in items]
        return "; ".join(f"{path}: {message}".removeprefix(": ") for path, message in said)[:300]
    text = f"it has no {error}" if isinstance(error, KeyError) else getattr(error, "strerror", None) or str(error)
    return (text.strip().splitlines() or [type(error).__name__])[0][:300]


def problems_of(error: ValidationError, data: Any, model: type[BaseModel] | None = None) -> list[Problem]:
    """Pydantic's errors about `data`, with paths as in the YAML; `model` is what it should fit, if it is a mapping."""
    rules: dict[tuple[str, str], list[str]] = {}  # The alternatives of a union by (path, what was got)
    words: dict[tuple[str, str], Any] = {}
    for item in error.errors(include_url=False):
        path, context, word = _path_in_yaml(item["loc"], item["type"], data), item.get("ctx", {}), item["input"]
        rule, got = re.sub(r"^\w+ should ", "must ", item["msg"]), f", but got {word!r}"
        match item["type"]:
            case "missing":
                rule, got = "is required, but is not given", ""
            case "extra_forbidden":
                dotted = str(item["loc"][-1])
                meant = _nested(dotted) if "." in dotted else right_key(path, key_names(model) if model else ())
                rule, got = f"is not a key here{meant}", ""
            case "union_tag_not_found":
                path, rule, got = _tag(path, context), "is required, but is not given", ""
            case "union_tag_invalid":
                path, rule, word = _tag(path, context), f"must be one of {context['expected_tags']}", context["tag"]
                got = f", but got {word!r}"
            case "model_type" | "dict_type" | "model_attributes_type":
                rule = "must be a mapping of keys"
            case "value_error":
                rule = item["msg"].removeprefix("Value error, ")
                rule, got = (rule.removesuffix(got), got) if rule.endswith(got) else (rule, "")
        rules.setdefault((path, got), []).append(re.sub(r", (unable to|got a number) .*", "", rule))
        words[(path, got)] = word
    return [(path, _joined(alternatives, got, words[(path, got)])) for (path, got), alternatives in rules.items()]


def _nested(dotted: str) -> str:
    above, last = dotted.split(".")[:-1], dotted.rpartition(".")[2]
    return f"; write it nested: {''.join(f'{{{name}: ' for name in above)}{{{last}: …{'}' * (len(above) + 1)}"


def _tag(path: str, context: Mapping[str, Any]) -> str:
    """Path of the key that tells the members of a union apart."""
    return f"{path}.{context['discriminator']}".replace("'", "")


def _joined(alternatives: list[str], got: str, word: Any) -> str:
    """One message of all that would be right, and the nearest of the words that it has in quotes."""
    first, *others = alternatives
    rule = " or ".join([first, *(other.removeprefix("must be ") for other in others if other != first)])
    return rule + got + (did_you_mean(word, re.findall(r"'([^']*)'", rule)) if got else "")


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
        problems = problems_of(error, data, model)
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
