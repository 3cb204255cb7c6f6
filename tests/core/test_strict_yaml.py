from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from vaegan_core.problems import ConfigError
from vaegan_core.strict_yaml import dump_yaml, load_yaml, parse_yaml, set_override


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("-2E+3", -2000.0),
        ("1.5", 1.5),
        (".5", 0.5),
        ("3.", 3.0),
        ("-.inf", -float("inf")),
        ("12", 12),
        ("true", True),
        ("False", False),
        ("null", None),
        ("off", "off"),
        ("yes", "yes"),
        ("none", "none"),
        ("2019-06-06", "2019-06-06"),
        ("1:99", "1:99"),
        ("'064'", "064"),
        ("0", 0),
        ("1e", "1e"),
        ("e4", "e4"),
        ("instance", "instance"),
    ],
)
def test_yaml_scalars_are_what_they_look_like(text: str, value: Any) -> None:
    parsed = parse_yaml(text)
    assert parsed == value
    assert type(parsed) is type(value)


ALIASES = "a0: &a0 [x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 12)}]\n" for level in range(1, 30)
)
"""Thirty lines that stand for 12^29 values."""


def test_yaml_anchors_and_merges() -> None:
    assert parse_yaml("a: &x {p: 1, q: 2}\nb: {<<: *x, q: 3}") == {"a": {"p": 1, "q": 2}, "b": {"p": 1, "q": 3}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "line 4: key 'c' is given twice"),
        ("a: 1\nb: [1, 2\nc: 3\n", "line 3: "),
        ("a: {{b}}\n", "line 1: a key must be a plain value"),
        ("a: !python/object:os.system x\n", "tags are not read: quote a text that begins with !"),
        ("a: 1\nb:\n  c: [1,\n  d: 2\n", "(in what begins in line 3); a bracket is not closed"),
        ("a: 1\n\tb: 2\n", "line 2: found character '\\t' that cannot start any token; indent with spaces"),
        ("a: b: c\n", "line 1: mapping values are not allowed here; quote a text that has ': ' in it"),
        ('a: 1\nb: "c\n', "line 3: found unexpected end of stream (in what begins in line 2); a quotation mark is not"),
        ("a: 1\nb: 064\n", "line 2: 064 is a number to some readers"),
        ("0411: 1\n", "line 1: 0411 is a number to some readers"),
        ("a: [1:30]\n", "line 1: 1:30 is a number to some readers"),
        ("a: 1_000\n", "line 1: 1_000 is a number to some readers"),
        ("1e5: 1\n", "line 1: the key 1e5 is read as float; quote it"),
        ("null: 1\n", "line 1: the key null is read as NoneType; quote it"),
        ("[" * 3000, "line 1: more than 50 levels inside each other"),
        ("a: &a [*a]\n", "line 1: its aliases stand for more than 100,000 values"),
        (ALIASES, "line 6: its aliases stand for more than 100,000 values"),
    ],
)
def test_yaml_errors_show_their_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "some.yaml")
    assert str(caught.value).startswith("some.yaml has 1 error:\n  ")
    assert message in str(caught.value)


def test_load_yaml_refuses_what_is_not_a_mapping_in_a_file(tmp_path: Path) -> None:
    for content, message in [("[1]", "must hold a mapping of keys, but got list"), ("", "but got nothing")]:
        (tmp_path / "x.yaml").write_text(content)
        with pytest.raises(ConfigError, match=message):
            load_yaml(tmp_path / "x.yaml")
    with pytest.raises(ConfigError, match=r"missing\.yaml has 1 error:\n  cannot be read: No such file or directory"):
        load_yaml(tmp_path / "missing.yaml")
    with pytest.raises(ConfigError, match=r"No such file or directory; did you mean .*x\.yaml\?"):
        load_yaml(tmp_path / "y.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_yaml(tmp_path)
    os.mkfifo(tmp_path / "pipe.yaml")
    for endless in (tmp_path / "pipe.yaml", Path("/dev/zero")):
        with pytest.raises(ConfigError, match="cannot be read: it is no file, but a device or a pipe"):
            load_yaml(endless)
    (tmp_path / "x.yaml").write_bytes(b"#" * 2_000_000)
    with pytest.raises(ConfigError, match="it has 2,000,000 bytes, but may have at most 1,000,000"):
        load_yaml(tmp_path / "x.yaml")
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ConfigError, match=r"cannot be read: .*utf-8"):
        load_yaml(tmp_path / "x.yaml")


AMBIGUOUS = (
    "1e3",
    "1.5",
    "off",
    "yes",
    "true",
    "null",
    "~",
    "1_000",
    "0o17",
    "0x1f",
    "1:30",
    "2026-01-01",
    ".inf",
    "<<",
    "=",
    "",
)


@pytest.mark.parametrize("load", [yaml.safe_load, parse_yaml])
def test_what_is_written_is_read_back_as_it_was_by_readers_of_either_yaml(load: Callable[[str], Any]) -> None:
    data = {text: [text, {"frames": text}] for text in AMBIGUOUS} | {"numbers": [1e-7, 1e30, 3, True, None, 0.1]}
    assert load(dump_yaml(data)) == data


# --- Overrides --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("a.b=2", {"a": {"b": 2}, "space": {"loss.kl": {"x.y": 1}}}),
        ("a.c.d=1e-3", {"a": {"b": 1, "c": {"d": 1e-3}}, "space": {"loss.kl": {"x.y": 1}}}),
        ("a=", {"a": None, "space": {"loss.kl": {"x.y": 1}}}),
        ("new={p: [1, off]}", {"a": {"b": 1}, "space": {"loss.kl": {"x.y": 1}}, "new": {"p": [1, "off"]}}),
        ("space.loss.kl=5", {"a": {"b": 1}, "space": {"loss.kl": 5}}),
        ("space.loss.kl.x.y=5", {"a": {"b": 1}, "space": {"loss.kl": {"x.y": 5}}}),
        ("space.loss.kl.x.z=5", {"a": {"b": 1}, "space": {"loss.kl": {"x.y": 1, "x": {"z": 5}}}}),
        ("space.lr.x=5", {"a": {"b": 1}, "space": {"loss.kl": {"x.y": 1}, "lr": {"x": 5}}}),
        ("a.b=x=y", {"a": {"b": "x=y"}, "space": {"loss.kl": {"x.y": 1}}}),
    ],
)
def test_set_override(assignment: str, expected: dict[str, Any]) -> None:
    data: dict[str, Any] = {"a": {"b": 1}, "space": {"loss.kl": {"x.y": 1}}}
    set_override(data, assignment)
    assert data == expected


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("a.b", "must look like key.subkey=value"),
        ("=3", "must look like key.subkey=value"),
        ("a..b=3", "must look like key.subkey=value"),
        ("a.b.c=3", "a.b.c: leads through a value that is not a mapping"),
        ("a.b=[1", "line 1: "),
    ],
)
def test_set_override_refuses(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        set_override({"a": {"b": 1}}, assignment)
    assert str(caught.value).startswith(f"override {assignment} has 1 error:\n  {message}")
