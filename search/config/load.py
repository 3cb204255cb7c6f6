"""From YAML to a Sweep: a user's file with its presets and overrides, or what a journal keeps; every error at once."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from search.config import problems, question_problems, sweep_config
from search.config.problems import parts_of_base, parts_of_space, setting
from search.config.question_problems import parts_of_questions
from search.config.space_parser import parse_space
from search.config.sweep import Sweep
from search.config.sweep_config import SweepConfig
from vaegan_core.problems import ConfigError, Problem, valid_parts, violations
from vaegan_core.spelling import ANOTHER_CHOICE, did_you_mean
from vaegan_core.strict_yaml import load_yaml, parse_yaml, set_override, set_value

EVERY_RULE = (*problems.RULES, *problems.FILES, *question_problems.RULES)


def load_sweep(path: Path | str, overrides: Iterable[str] = (), *, need_frames: bool = False) -> Sweep:
    """A sweep from its YAML file with `a.b=c` overrides. Raises ConfigError with every error of the file.

    With `need_frames` a missing frame set, or a missing file of Inception weights, is one of the errors.
    """
    data, overrides = load_yaml(path), list(overrides)
    for assignment in overrides:
        _check_is_of_no_preset(assignment, data.get("presets"))
        if _chooses_preset(assignment):
            set_override(data, assignment)
            if data["preset"] is None:
                raise ConfigError(str(path), [("preset", f"is given without a value (--set {assignment})")])
    _apply_preset(data, str(path))
    for assignment in overrides:
        if not _chooses_preset(assignment):
            _override(data, assignment)
    _make_weights_absolute(data.get("base"))
    try:
        found = parse_sweep(data, str(path), need_frames=need_frames, comments=Path(path).read_text(encoding="utf-8"))
    except ConfigError as error:
        raise ConfigError(str(path), [_with_remedy(problem, overrides) for problem in error.problems]) from None
    if not overrides:  # what they say may go with the chosen preset alone
        _check_presets(path)
    return found


def _chooses_preset(assignment: str) -> bool:
    key, separator, _ = assignment.partition("=")
    return bool(separator) and key.strip() == "preset"


def _with_remedy(problem: Problem, overrides: Iterable[str]) -> Problem:
    """Where an override made another choice, but the file's keys of the one before stayed: what replaces them too."""
    where, message = problem
    parent = where.rpartition(".")[0]
    for override in overrides if ANOTHER_CHOICE in message else ():
        chosen, _, value = override.partition("=")
        if chosen.strip().rpartition(".")[0] == parent:
            key = chosen.strip().rpartition(".")[2]
            return where, f"{message}; --set '{parent}={{{key}: {value.strip()}}}' replaces the whole of it"
    return problem


def _check_presets(path: Path | str) -> None:
    """Raises ConfigError with what is wrong with the presets of a file, whether one of them is chosen or none."""
    problems: list[Problem] = []
    for name in load_yaml(path).get("presets", {}):
        data = load_yaml(path) | {"preset": name}
        try:
            _apply_preset(data, str(path))
            parse_sweep(data, str(path))
        except ConfigError as error:
            problems += [(f"presets.{name}: {where}", message) for where, message in error.problems]
    if problems:
        raise ConfigError(str(path), problems)


def _check_is_of_no_preset(assignment: str, presets: Any) -> None:
    """Raises ConfigError, with what to type instead, for an override below `presets`, which are applied before it."""
    key, _, value = (part.strip() for part in assignment.partition("="))
    first, _, below = key.partition(".")
    if first != "presets":
        return
    known = list(presets) if isinstance(presets, Mapping) else []
    if not known:
        raise ConfigError(f"override {assignment}", [(key, "is part of a preset, but this file has no presets")])
    name = next((each for each in known if f"{below}.".startswith(f"{each}.")), below.partition(".")[0])
    changed = below[len(name) + 1 :]
    typed = f"--set {shlex.quote(f'{changed}={value}') if changed else 'KEY=VALUE'}"
    if name in known:
        typed = f"--set {shlex.quote(f'preset={name}')} {typed}"
    elif name:
        typed += f" (this file has the presets {', '.join(known)}{did_you_mean(name, known)})"
    rule = f"is part of a preset, and --set replaces the key that a preset changes instead: {typed}"
    raise ConfigError(f"override {assignment}", [(key, rule)])


def _override(data: dict[str, Any], assignment: str) -> None:
    """Like `set_override`; the settings of a point are dotted names and no levels."""
    path, separator, text = assignment.partition("=")
    given = data.get("points")
    points: dict[str, Any] = given if isinstance(given, dict) else {}
    for name in sorted(points, key=len, reverse=True):
        setting_of_point = path.strip().removeprefix(f"points.{name}.")
        if separator and setting_of_point not in ("", path.strip()) and isinstance(points[name], dict):
            points[name] = points[name] | {setting_of_point: parse_yaml(text, f"override {assignment}")}
            return
    set_override(data, assignment)


def _apply_preset(data: dict[str, Any], what: str) -> None:
    """Puts the values of the chosen one of `presets` (dotted keys) into the rest of the file, in place."""
    presets, chosen = data.pop("presets", {}), data.pop("preset", None)
    if not isinstance(presets, dict) or not all(isinstance(values, dict) for values in presets.values()):
        raise ConfigError(what, [("presets", "must map names to mappings of dotted keys to values")])
    if chosen is None:
        return
    if not isinstance(chosen, str) or chosen not in presets:
        rule = f"must be one of {', '.join(presets)}, but got {chosen!r}{did_you_mean(str(chosen), presets)}"
        raise ConfigError(what, [("preset", rule if presets else f"this file has no presets, but got {chosen!r}")])
    for key, value in presets[chosen].items():
        set_value(data, str(key), value, what)


def _make_weights_absolute(base: Any) -> None:
    """Makes the path valid for workers, which run in other directories than the command; in place."""
    weights = setting(base, "evaluate.inception_weights")
    if isinstance(weights, str):
        base["evaluate"]["inception_weights"] = str(Path(weights).absolute())


def parse_sweep(data: Any, what: str, *, need_frames: bool = False, comments: str = "") -> Sweep:
    """A sweep from plain data. Raises ConfigError with every problem; `what` names the data there. `comments` of its
    file may name the command that makes its frames."""
    fields, wrong = valid_parts(SweepConfig, data)
    wrong += violations(sweep_config.RULES, fields)
    parts = fields | parts_of_base(fields.get("base"), EVERY_RULE) | {"comments": comments}
    questions = data.get("questions") if isinstance(data, Mapping) else None
    if isinstance(questions, Mapping):
        of_questions, wrong_in_questions = parts_of_questions(questions)
        parts |= of_questions
        wrong = [problem for problem in wrong if not problem[0].startswith("questions.")] + wrong_in_questions
    if "space" in fields:
        of_space, wrong_in_space = parts_of_space(fields["space"])
        parts |= of_space
        wrong += wrong_in_space
    wrong += violations(problems.RULES, parts)
    wrong += violations(question_problems.RULES, parts)
    if need_frames:
        wrong += violations(problems.FILES, parts)
    if wrong:
        raise ConfigError(what, wrong)
    return Sweep(SweepConfig.model_construct(**fields), parts["whole space"])


def read_sweep(text: str, what: str) -> Sweep:
    """A sweep from the YAML that a journal keeps: the rules between its parts were checked before it was kept, and are
    not checked again. Raises ConfigError."""
    fields, wrong = valid_parts(SweepConfig, parse_yaml(text, what))
    space, wrong_in_space = parse_space(fields.get("space", {}))
    if wrong or wrong_in_space:
        raise ConfigError(what, wrong + wrong_in_space)
    return Sweep(SweepConfig.model_construct(**fields), space)
