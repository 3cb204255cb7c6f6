"""From a YAML file to a Sweep: presets, overrides, files; every error at once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from search.config.problems import (
    problems_of_base,
    problems_of_grid,
    problems_of_points,
    problems_of_points_alone,
    problems_of_population,
    problems_of_scheduler,
)
from search.config.space import Problems
from search.config.space_parser import parse_space
from search.config.sweep import Sweep
from search.config.sweep_config import FITS_ALL, SweepConfig
from vaegan_core.data.frames import MANIFEST_FILE
from vaegan_core.problems import ConfigError, problems_and_misfits
from vaegan_core.strict_yaml import load_yaml, set_override, set_value


def load_sweep(path: Path | str, overrides: Iterable[str] = (), *, need_frames: bool = False) -> Sweep:
    """A sweep from its YAML file with `a.b=c` overrides. Raises ConfigError with every error of the file.

    With `need_frames` a frame set, or a file of Inception weights, that is not there is one of them.
    """
    data, overrides = load_yaml(path), list(overrides)
    for assignment in overrides:
        if assignment.startswith("preset="):
            set_override(data, assignment)
    _apply_preset(data, str(path))
    for assignment in overrides:
        if not assignment.startswith("preset="):
            set_override(data, assignment)
    _make_weights_absolute(data.get("base"))
    missing = _problems_of_files(data.get("base")) if need_frames else []
    try:
        sweep = parse_sweep(data, str(path))
    except ConfigError as error:
        raise ConfigError(str(path), error.problems + missing) from None
    if missing:
        raise ConfigError(str(path), missing)
    return sweep


def _apply_preset(data: dict[str, Any], what: str) -> None:
    """Puts the values of the chosen one of `presets` (dotted keys) into the rest of the file, in place."""
    presets, chosen = data.pop("presets", {}), data.pop("preset", None)
    if not isinstance(presets, dict) or not all(isinstance(values, dict) for values in presets.values()):
        raise ConfigError(what, [("presets", "must map names to mappings of dotted keys to values")])
    if chosen is None:
        return
    if chosen not in presets:
        raise ConfigError(what, [("preset", f"must be one of {', '.join(presets) or 'presets'}, but got {chosen!r}")])
    for key, value in presets[chosen].items():
        set_value(data, str(key), value, what)


def _make_weights_absolute(base: Any) -> None:
    """Workers, which read the file themselves, may run elsewhere than the command; in place."""
    weights = _inception_weights(base)
    if weights is not None:
        base["evaluate"]["inception_weights"] = str(Path(weights).absolute())


def _inception_weights(base: Any) -> str | None:
    evaluate = base.get("evaluate") if isinstance(base, dict) else None
    weights = evaluate.get("inception_weights") if isinstance(evaluate, dict) else None
    return weights if isinstance(weights, str) else None


def _problems_of_files(base: Any) -> Problems:
    """Files that the base names and that are not there."""
    problems: Problems = []
    frames, weights = base.get("frames") if isinstance(base, dict) else None, _inception_weights(base)
    if isinstance(frames, str) and not (Path(frames) / MANIFEST_FILE).is_file():
        problems.append(("base.frames", f"no frame set at {frames}; make one with: vaegan data doom -o {frames}"))
    if weights is not None and not Path(weights).is_file():
        rule = f"no file at {weights}; download it (README says from where) or leave the key away"
        problems.append(("base.evaluate.inception_weights", rule))
    return problems


def parse_sweep(data: dict[str, Any], what: str) -> Sweep:
    """A sweep from plain data; raises ConfigError with every problem."""
    problems: Problems = []
    config: SweepConfig | None = None
    try:
        config = SweepConfig.model_validate(data)
    except ValidationError as error:
        problems += problems_and_misfits(error, SweepConfig, data, FITS_ALL)
    raw_space, base = data.get("space", {}), data.get("base")
    if isinstance(raw_space, dict):
        space, found = parse_space(raw_space)
        problems += found
        if isinstance(base, dict):
            problems += problems_of_base(base, space, [path for path, _ in found])
        if raw_space:
            problems += problems_of_points(data.get("points"), space, [path for path, _ in found])
        else:
            problems += problems_of_points_alone(data, [path for path, _ in problems])
        problems += problems_of_grid(data, space)
        problems += problems_of_population(data, space, [path for path, _ in found])
    problems += problems_of_scheduler(data.get("scheduler"), base)
    if problems or config is None:
        raise ConfigError(what, problems)
    return Sweep(config, space)
