"""Dotted names looked up in TrialConfig: what type a parameter has."""

from __future__ import annotations

from functools import cache, reduce
from operator import or_
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from vaegan_core.config.trial import TrialConfig


@cache
def annotation_of(name: str) -> Any | None:
    """Type, with its constraints, of the field at a dotted name of TrialConfig; None where there is none.

    A name may lead through any member of a union.
    """
    candidates: list[Any] = [TrialConfig]
    for part in name.split("."):
        fields = [model.model_fields[part] for model in candidates if part in model.model_fields]
        if not fields:
            return None
        types = [Annotated[f.annotation, *f.metadata] if f.metadata else f.annotation for f in fields]
        annotation = reduce(or_, types)
        candidates = models_of(annotation)
    return annotation


def models_of(annotation: Any) -> list[type[BaseModel]]:
    """The models that a mapping at this annotation may be; empty where it must not be a mapping of keys."""
    plain = _plain(annotation)
    if isinstance(plain, type) and issubclass(plain, BaseModel):
        return [plain]
    if is_union(plain):
        inner = [m for m in get_args(plain) if m is not type(None)]
        if len(inner) == 1:
            return models_of(inner[0])
    return list(union_of(annotation)[1].values())


def _plain(annotation: Any) -> Any:
    """The type inside any `Annotated`."""
    return _plain(get_args(annotation)[0]) if get_origin(annotation) is Annotated else annotation


def union_of(annotation: Any) -> tuple[str, dict[str, type[BaseModel]]]:
    """(tag field, {tag value: model}) of a union of models told apart by a literal field; else ("", {})."""
    plain = _plain(annotation)
    models = [m for m in get_args(plain) if isinstance(m, type) and issubclass(m, BaseModel)] if is_union(plain) else []
    for field in models[0].model_fields if models else ():
        literals = [get_args(m.model_fields[field].annotation) for m in models if field in m.model_fields]
        if len(literals) == len(models) and all(len(literal) == 1 for literal in literals):
            return field, {literal[0]: model for literal, model in zip(literals, models, strict=True)}
    return "", {}


def is_union(annotation: Any) -> bool:
    """Whether an annotation allows several types."""
    return get_origin(annotation) in (Union, UnionType)


def _leaf_types(annotation: Any) -> set[Any]:
    plain = _plain(annotation)
    if is_union(plain):
        return set().union(*(_leaf_types(member) for member in get_args(plain)))
    return {"literal"} if get_origin(plain) is Literal else {plain}


def is_number(annotation: Any) -> bool:
    """Whether every type of an annotation is a number."""
    return bool({int, float} & _leaf_types(annotation))


def is_integer(annotation: Any) -> bool:
    """Whether every type of an annotation is an integer."""
    return float not in _leaf_types(annotation)
