"""YAML in and out: one dialect, in which 1e-4 is a number, `off` is a string and a repeated key is an error."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from vaegan_core.problems import ConfigError, reason
from vaegan_core.spelling import did_you_mean

LARGEST_FILE = 1_000_000
"""Bytes; a sweep's file has some thousand."""
MOST_VALUES = 100_000
"""Keys and values of a file, those behind aliases counted as often as they are used."""
DEEPEST = 50
"""Lists and mappings inside each other."""

_INT, _STR, _NULL = ("tag:yaml.org,2002:" + kind for kind in ("int", "str", "null"))
_FLOAT, _BOOL, _MERGE = ("tag:yaml.org,2002:" + kind for kind in ("float", "bool", "merge"))
_RULES = (
    (_INT, r"^[-+]?(0|[1-9][0-9]*)$", "-+0123456789"),
    (
        _FLOAT,
        r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)$|^[-+]?([0-9]*\.[0-9]+|[0-9]+\.)$|^[-+]?\.inf$|^\.nan$",
        "-+0123456789.",
    ),
    (_BOOL, r"^(true|True|false|False)$", "tTfF"),
    (_NULL, r"^(~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    (_MERGE, r"^<<$", "<"),
)
"""What YAML 1.2 takes for something other than text: tag, pattern, first characters."""
_AMBIGUOUS = re.compile(r"^[-+]?(0[0-9_]+|0[xXoObB][0-9a-fA-F_]+|[0-9][0-9_]*_[0-9_]*|[0-9]+(:[0-5]?[0-9])+)$")
"""Numbers to some readers of YAML, and other numbers, or text, to others."""


class _Loader(yaml.SafeLoader):
    """YAML 1.2 numbers and booleans (1e-4 is a number, `off` and dates are text). What readers of YAML do not agree on
    is an error, and so are a repeated key, a key that is no text, and a file that grows without bounds."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        if self.depth > DEEPEST:
            raise ConstructorError(None, None, f"more than {DEEPEST} levels inside each other", self.get_mark())
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if node is not None:
            _expanded_size(node, {})
        return node


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in _RULES:
    _Loader.add_implicit_resolver(_tag, re.compile(_pattern), list(_first))


def _expanded_size(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node stands for, aliases followed. Raises ConstructorError where there is no end to them."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    key = id(node)
    if key not in known:
        known[key] = MOST_VALUES + 1  # what a node that holds itself counts
        inner = [part for pair in node.value for part in (pair if isinstance(pair, tuple) else (pair,))]
        known[key] = 1 + sum(_expanded_size(each, known) for each in inner)
    if known[key] > MOST_VALUES:
        raise ConstructorError(None, None, f"its aliases stand for more than {MOST_VALUES:,} values", node.start_mark)
    return known[key]


def _text(loader: _Loader, node: yaml.ScalarNode) -> str:
    if node.style is None and _AMBIGUOUS.match(node.value):
        rule = f"{node.value} is a number to some readers of YAML and text to others; quote it, or write it in decimals"
        raise ConstructorError(None, None, rule, node.start_mark)
    return str(loader.construct_scalar(node))


def _whole_number(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(_text(loader, node))


def _unique_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        if key_node.tag == _MERGE:
            continue
        if not isinstance(key_node, yaml.ScalarNode):
            problem = "a key must be a plain value; quote a value that begins with a bracket or brace"
            raise ConstructorError(None, None, problem, key_node.start_mark)
        key = loader.construct_object(key_node)
        if not isinstance(key, str):
            what = f"the key {key_node.value or 'that is empty'} is read as {type(key).__name__}; quote it"
            raise ConstructorError(None, None, what, key_node.start_mark)
        if key in seen:
            raise ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _unique_mapping)
_Loader.add_constructor(_STR, _text)
_Loader.add_constructor(_INT, _whole_number)


_REMEDIES = {
    r"'\t' that cannot start": "; indent with spaces",
    "mapping values are not allowed": "; quote a text that has ': ' in it, and align the keys of one mapping",
    "undefined alias": "; quote a text that begins with *",
    "cannot start any token": "; quote the text",
    "could not determine a constructor": "; tags are not read: quote a text that begins with !",
    "stream end": "; a bracket is not closed",
    "unexpected end of stream": "; a quotation mark is not closed",
    "expected ',' or": "; put a comma between values, or close the bracket",
    "expected <block end>": "; align the keys of one mapping, or quote a text with brackets or quotes in it",
}
"""What to do about problems in PyYAML's words."""


def parse_yaml(text: str, what: str = "YAML") -> Any:
    """Plain data from YAML text. Raises ConfigError with the line of a syntax error."""
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError) as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or reason(error)
        where = f"line {mark.line + 1}" if mark else ""
        remedy = next((remedy for part, remedy in _REMEDIES.items() if part in problem), "")
        opened = getattr(error, "context_mark", None)
        since = f" (in what begins in line {opened.line + 1})" if opened and mark and opened.line != mark.line else ""
        raise ConfigError(what, [(where, f"{problem}{since}{remedy}")]) from None


class _Dumper(yaml.SafeDumper):
    """Quotes every string that a reader of YAML 1.1 or 1.2 would take for something else."""


_Dumper.yaml_implicit_resolvers = {
    first: [*_Loader.yaml_implicit_resolvers.get(first, []), *yaml.SafeLoader.yaml_implicit_resolvers.get(first, [])]
    for first in _Loader.yaml_implicit_resolvers.keys() | yaml.SafeLoader.yaml_implicit_resolvers.keys()
}
_Dumper.add_implicit_resolver("ambiguous", _AMBIGUOUS, list("-+0123456789"))


def dump_yaml(data: Any) -> str:
    """YAML text that `parse_yaml`, and any other reader of YAML, turns back into the same plain data."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False)


def load_yaml(path: Path | str) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ConfigError when it is missing, no file, not YAML or not a mapping."""
    path = Path(path)
    try:
        text = _read(path)
    except (OSError, ValueError) as error:
        raise ConfigError(str(path), [("", f"cannot be read: {reason(error)}{_nearest_file(path)}")]) from None
    data = parse_yaml(text, str(path))
    if not isinstance(data, dict):
        got = "nothing" if data is None else type(data).__name__
        raise ConfigError(str(path), [("", f"must hold a mapping of keys, but got {got}")])
    return data


def _read(path: Path) -> str:
    """Text of a file; of a pipe or a device, which may never end, nothing is read."""
    status = path.stat()
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise ValueError("it is no file, but a device or a pipe")
    if status.st_size > LARGEST_FILE:
        raise ValueError(f"it has {status.st_size:,} bytes, but may have at most {LARGEST_FILE:,}")
    return path.read_text(encoding="utf-8")


def _nearest_file(path: Path) -> str:
    if path.exists() or not path.parent.is_dir():
        return ""
    return did_you_mean(path, (other for other in path.parent.iterdir() if other.suffix in (".yaml", ".yml")))


def set_override(data: dict[str, Any], assignment: str) -> None:
    """Applies `a.b.c=value` (the value is YAML) to nested `data`, in place. Raises ConfigError."""
    what = f"override {assignment}"
    path, separator, text = assignment.partition("=")
    if not separator or not all(path.strip().split(".")) or path.count(".") > DEEPEST:
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
