from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import pytest
from pydantic import AfterValidator, Field

from vaegan_core.problems import Config, Problem, Rule, key_names, rule, valid_parts, violations
from vaegan_core.spelling import right_key


class Circle(Config):
    shape: Literal["circle"]
    radius: Annotated[float, Field(gt=0)]


class Square(Config):
    shape: Literal["square"]
    side: Annotated[float, Field(gt=0)] = 1.0


def not_odd(number: int) -> int:
    if number % 2:
        raise ValueError(f"must be even, but got {number}")
    return number


class Drawing(Config):
    form: Annotated[Circle | Square, Field(discriminator="shape")]
    copies: Annotated[int, AfterValidator(not_odd)]
    room: Annotated[float, Field(ge=0)] = 10.0
    tags: dict[str, str] = Field(default_factory=dict)


RULES: list[Rule] = []


@rule(RULES, "form", "room")
def fits(form: Circle | Square, room: float) -> Iterator[Problem]:
    if isinstance(form, Circle) and form.radius > room:
        yield "form.radius", f"must be at most room, but got {form.radius} and {room}"


@rule(RULES, "copies")
def not_too_many(copies: int) -> Iterator[Problem]:
    if copies > 10:
        yield "copies", f"must be at most 10, but got {copies}"
        yield "copies", "is far too many"


def test_valid_data_gives_every_part_typed_with_defaults() -> None:
    parts, problems = valid_parts(Drawing, {"form": {"shape": "square"}, "copies": "4"})
    assert problems == []
    assert parts == {"form": Square(shape="square"), "copies": 4, "room": 10.0, "tags": {}}


def test_valid_parts_are_there_beside_invalid_ones() -> None:
    parts, problems = valid_parts(Drawing, {"form": {"shape": "circle", "radius": "2"}, "copies": 3, "rom": 1})
    assert parts == {"form": Circle(shape="circle", radius=2.0), "room": 10.0, "tags": {}}
    assert problems == [("copies", "must be even, but got 3"), ("rom", "is not a key here; did you mean room?")]


@pytest.mark.parametrize("data", [None, 3, [1]])
def test_data_that_is_no_mapping_has_no_parts(data: Any) -> None:
    parts, [(path, message)] = valid_parts(Drawing, data)
    assert parts == {}
    assert path == ""
    assert message == f"must be a mapping of keys, but got {data!r}"


@pytest.mark.parametrize(
    ("parts", "paths"),
    [
        ({"form": Circle(shape="circle", radius=3), "room": 2.0, "copies": 12}, ["form.radius", "copies", "copies"]),
        ({"form": Circle(shape="circle", radius=3), "copies": 12}, ["copies", "copies"]),
        ({"form": Circle(shape="circle", radius=3), "room": 2.0}, ["form.radius"]),
        ({"form": Circle(shape="circle", radius=3), "room": 4.0, "copies": 2}, []),
        ({}, []),
    ],
)
def test_a_rule_is_skipped_unless_all_that_it_needs_is_valid(parts: dict[str, Any], paths: list[str]) -> None:
    assert [path for path, _ in violations(RULES, parts)] == paths


def test_a_part_may_be_valid_and_null() -> None:
    rules = [Rule(("limit",), lambda limit: [("limit", f"got {limit}")])]
    assert violations(rules, {"limit": None}) == [("limit", "got None")]


def test_errors_of_parts_and_of_rules_between_the_valid_ones_come_together_in_a_stable_order() -> None:
    data = {"copies": "many", "form": {"shape": "circle", "radius": 20}, "tags": {"a": 3}}
    for given in (data, dict(reversed(data.items()))):
        parts, problems = valid_parts(Drawing, given)
        assert [path for path, _ in problems + violations(RULES, parts)] == ["copies", "tags.a", "form.radius"]


def test_keys_lead_through_every_member_of_a_union() -> None:
    assert {*key_names(Drawing)} == {"form", "form.shape", "form.radius", "form.side", "copies", "room", "tags"}


@pytest.mark.parametrize(
    ("data", "path", "message"),
    [
        ({"coppies": 2}, "coppies", "is not a key here; did you mean copies?"),
        ({"radius": 2}, "radius", "is not a key here; did you mean form.radius?"),
        ({"form": {"shape": "circle", "radius": 1, "Raduis": 2}}, "form.Raduis", "did you mean radius?"),
        ({"form": {"shape": "circle", "radius": 1, "side": 2}}, "form.side", "it belongs to another choice of form"),
        ({"form.radius": 2}, "form.radius", "is not a key here; write it nested: {form: {radius: …}}"),
        ({"zebra": 2}, "zebra", "is not a key here; the keys here are form, copies, room, tags"),
        ({"form": {"shape": "sqare"}}, "form.shape", "but got 'sqare'; did you mean square?"),
        ({"copies": True}, "copies", "must be a valid integer, but got 'true'"),
    ],
)
def test_each_mistake_comes_with_the_nearest_right_spelling(data: dict[str, Any], path: str, message: str) -> None:
    given = {"form": {"shape": "square"}, "copies": 2} | data
    [(where, said)] = valid_parts(Drawing, given)[1]
    assert where == path
    assert said.endswith(message)


def test_a_path_whose_middle_is_mistyped_leads_to_the_key_that_it_resembles_most() -> None:
    keys = ("loss", "loss.discriminator.recon", "loss.generator.recon", "loss.feature.recon", "model.width")
    assert right_key("loss.featur.recon", keys) == "; did you mean loss.feature.recon?"
    assert right_key("loss.genrator.recn", keys) == "; did you mean loss.generator.recon?"
