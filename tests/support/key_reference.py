"""Writes the tables of all YAML keys in search/sweeps/README.md from the pydantic models.

python tests/support/key_reference.py
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from search.config.sweep_config import SweepConfig
from vaegan_core.config.trial import TrialConfig

README = Path(__file__).parents[2] / "search" / "sweeps" / "README.md"
BEGIN, END = "<!-- keys: made by tests/support/key_reference.py -->\n", "<!-- end of keys -->\n"
OWN_SECTIONS = ("base", "space", "points")
"""Keys of a sweep whose contents the README explains in words."""


class Key(NamedTuple):
    name: str
    values: str
    default: str
    meaning: str


def reference() -> str:
    """Both tables, in Markdown."""
    return f"\n### Keys of a sweep\n\n{_table(SweepConfig)}\n### Keys of a trial\n\n{_table(TrialConfig)}\n"


def written() -> str:
    """The tables as the README has them."""
    return README.read_text().partition(BEGIN)[2].partition(END)[0]


def write() -> None:
    before, _, rest = README.read_text().partition(BEGIN)
    README.write_text(f"{before}{BEGIN}{reference()}{END}{rest.partition(END)[2]}")


def _table(model: type[SweepConfig | TrialConfig]) -> str:
    schema = model.model_json_schema()
    lines = ["| key | values | default | meaning |", "|---|---|---|---|"]
    for key in _keys(schema, schema.get("$defs", {}), ""):
        cells = (f"`{key.name}`", key.values, key.default, key.meaning)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _keys(schema: dict[str, Any], definitions: dict[str, Any], prefix: str) -> Iterator[Key]:
    """Every leaf below an object's schema; the members of a union one after the other, each named by its tag."""
    required = schema.get("required", [])
    for name, inner in schema["properties"].items():
        dotted = f"{prefix}{name}"
        members = [definitions[path.rpartition("/")[2]] for path in _references(inner)]
        meaning = " ".join(inner.get("description", "").split())
        named = inner.get("additionalProperties")
        if isinstance(named, dict) and "$ref" in named:
            yield Key(dotted, "a mapping of names to the keys below", "empty", meaning)
            yield from _keys(definitions[named["$ref"].rpartition("/")[2]], definitions, f"{dotted}.NAME.")
        elif len(members) == 1 and _has_plain(inner):
            default = "required" if name in required else _value(inner.get("default"))
            yield Key(dotted, f"{_values(inner)} or the key below", default, meaning)
            yield from _keys(members[0], definitions, f"{dotted}.")
        elif len(members) == 1:
            if _is_optional(inner):
                yield Key(dotted, "a mapping of the keys below", _value(None), meaning or _description(members[0]))
            yield from _keys(members[0], definitions, f"{dotted}.")
        elif members:
            yield from _union(dotted, inner, members, definitions)
        elif name in OWN_SECTIONS and not prefix:
            yield Key(dotted, "see above", "required" if name in required else "empty", meaning)
        else:
            made = inner.get("type") == "object" and "default" not in inner
            default = "required" if name in required else "empty" if made else _value(inner.get("default"))
            yield Key(dotted, _values(inner), default, meaning)


def _union(
    dotted: str, inner: dict[str, Any], members: list[dict[str, Any]], definitions: dict[str, Any]
) -> Iterator[Key]:
    """The key that tells the members apart, the keys that all of them share, then each with its own."""
    tag = inner["discriminator"]["propertyName"]
    default = inner["default"][tag] if "default" in inner else "required"
    names = [member["properties"].pop(tag)["const"] for member in members]
    yield Key(f"{dotted}.{tag}", ", ".join(f"`{name}`" for name in names), _value(default), "chooses the keys below")
    first, *others = (member["properties"] for member in members)
    shared = {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}
    yield from _keys({"properties": shared}, definitions, f"{dotted}.")
    for name, member in zip(names, members, strict=True):
        yield Key(f"{dotted}.{tag}", f"`{name}`", "", _description(member))
        own = {key: value for key, value in member["properties"].items() if key not in shared}
        yield from _keys(member | {"properties": own}, definitions, f"{dotted}.")


def _references(schema: dict[str, Any]) -> list[str]:
    """The models that this very value may be."""
    found = [schema["$ref"]] if "$ref" in schema else []
    return found + [path for key in ("anyOf", "oneOf") for inner in schema.get(key, []) for path in _references(inner)]


def _has_plain(schema: dict[str, Any]) -> bool:
    """Whether a value may be a mapping or something else, other than null."""
    return any("$ref" not in inner and inner.get("type") != "null" for inner in schema.get("oneOf", []))


def _is_optional(schema: dict[str, Any]) -> bool:
    return any(inner.get("type") == "null" for inner in schema.get("anyOf", []))


def _description(schema: dict[str, Any]) -> str:
    return " ".join(schema.get("description", "").split())


def _values(schema: dict[str, Any]) -> str:
    """What a value may be, in a few words."""
    if choices := schema.get("anyOf", schema.get("oneOf")):
        return " or ".join(_values(inner) for inner in choices if "$ref" not in inner)
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    kind = schema.get("type", "")
    if kind == "array":
        return f"list of {_values(schema['items'])}"
    words = {"integer": "whole number", "boolean": "`true`, `false`", "string": "text", "object": "a mapping"}
    return ", ".join([words.get(kind, kind), *_bounds(schema)])


def _bounds(schema: dict[str, Any]) -> Iterator[str]:
    for key, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<")):
        if key in schema:
            yield f"{sign} {schema[key]:,g}" if schema[key] < 1e6 else f"{sign} {schema[key]}"
    if "multipleOf" in schema:
        yield f"a multiple of {schema['multipleOf']}"


def _value(default: Any) -> str:
    return default if default == "required" else f"`{default if isinstance(default, str) else json.dumps(default)}`"


if __name__ == "__main__":
    write()
