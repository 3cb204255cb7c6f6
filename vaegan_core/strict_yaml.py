"""YAML in and out: one dialect, in which 1e-4 is a number, `off` is a string and a repeated key is an error."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from vaegan_core.problems import ConfigError


class _Loader(yaml.SafeLoader):
    """YAML 1.2 numbers and booleans (1e-4 is a number, `off` is a string); a repeated key is an error."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern) for tag, pattern in resolvers if tag not in ("tag:yaml.org,2002:float", "tag:yaml.org,2002:bool")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)$|^[-+]?([0-9]*\.[0-9]+|[0-9]+\.)$|^[-+]?\.inf$|^\.nan$"
    ),
    list("-+0123456789."),
)


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|True|false|False)$"), list("tTfF"))


def _unique_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        if not isinstance(key_node, yaml.ScalarNode):
            problem = "a key must be a plain value; quote a value that begins with a bracket or brace"
            raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
        key = loader.construct_object(key_node)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _unique_mapping)


def parse_yaml(text: str, what: str = "YAML") -> Any:
    """Plain data from YAML text. Raises ConfigError with the line of a syntax error."""
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark else ""
        raise ConfigError(what, [(where, getattr(error, "problem", None) or str(error))]) from None


class _Dumper(yaml.SafeDumper):
    """Quotes every string that a reader of YAML 1.1 or 1.2 would take for something else."""


_Dumper.yaml_implicit_resolvers = {
    first: [*_Loader.yaml_implicit_resolvers.get(first, []), *yaml.SafeLoader.yaml_implicit_resolvers.get(first, [])]
    for first in _Loader.yaml_implicit_resolvers.keys() | yaml.SafeLoader.yaml_implicit_resolvers.keys()
}


def dump_yaml(data: Any) -> str:
    """YAML text that `parse_yaml`, and any other reader of YAML, turns back into the same plain data."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False)


def load_yaml(path: Path | str) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ConfigError when it is missing, not YAML or not a mapping."""
    path = Path(path)
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(str(path), [("", f"cannot be read: {reason}")]) from None
    data = parse_yaml(text, str(path))
    if not isinstance(data, dict):
        got = "nothing" if data is None else type(data).__name__
        raise ConfigError(str(path), [("", f"must hold a mapping of keys, but got {got}")])
    return data


def set_override(data: dict[str, Any], assignment: str) -> None:
    """Applies `a.b.c=value` (the value is YAML) to nested `data`, in place. Raises ConfigError."""
    what = f"override {assignment}"
    path, separator, text = assignment.partition("=")
    what = f"override {assignment}"
    if not separator or not all(path.strip().split(".")):
        raise ConfigError(what, [("", "must look like key.subkey=value")])
    set_value(data, path.strip(), parse_yaml(text, what), what)


def set_value(data: dict[str, Any], path: str, value: Any, what: str) -> None:
    """Puts `value` at dotted `path` of nested `data`, in place; `what` is what the error says is wrong.

    A key that itself holds dots (`loss.kl.sigma` under `space`) is matched before a new level is opened.
    """
    parts = path.split(".")
    node: Any = data
    while True:
        if not isinstance(node, dict):
            raise ConfigError(what, [(path, "leads through a value that is not a mapping")])
        match = next((n for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in node), None)
        if match == len(parts) or (match is None and len(parts) == 1):
            node[".".join(parts)] = value
            return
        if match is None:
            node[parts[0]] = {}
            match = 1
        node, parts = node[".".join(parts[:match])], parts[match:]
