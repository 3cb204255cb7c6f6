"""What a rerun is going to do, decided and checked before it starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mlflow import MlflowClient
from mlflow.entities import Run

from search.config.stretches import Stretch
from search.local.compare import Curves
from search.local.differences import Change, changes, origin_here, origin_of, verdict
from search.local.find import find_run
from search.local.kept import Kept, find_kept
from search.local.replay import FROM_WEIGHTS, Part, parts, read_lineages, with_configs
from search.names import DERIVED_PREFIXES, UNREPEATABLE_PREFIXES, Kind, Outcome, Prefix, Tag
from search.provenance import decided_in
from search.tracking.reader import open_frames, read_curve
from vaegan_core.config.trial import TrialConfig, parse_trial
from vaegan_core.data.frames import FrameSet
from vaegan_core.evaluation import METRICS
from vaegan_core.metrics.frame_features import FrameFeatures, ensure_features
from vaegan_core.strict_yaml import set_override
from vaegan_core.training.resolve import resolve_again


@dataclass(frozen=True)
class Wanted:
    """What a person asks of a rerun."""

    run: str
    """Run id, the beginning of one, or SWEEP/NUMBER."""
    frames: str | None = None
    """Where the frame set is now."""
    inception_weights: str | None = None
    """Where the Inception weights are now."""
    device: str | None = None
    """`auto`, `cpu` or `cuda` in the place of what the run has."""
    steps: int | None = None
    """Where to stop; None: where the run did."""
    overrides: tuple[str, ...] = ()
    """`a.b=c`, which make it a variant."""
    debug: bool = False
    """Whether to stop at the first value that is not finite."""
    from_checkpoint: bool = False
    """Whether to continue from what the run kept."""


@dataclass(frozen=True)
class Plan:
    """A rerun, ready to start."""

    run: Run
    """The original."""
    parts: tuple[Part, ...]
    """What is trained, in order."""
    frame_set: FrameSet
    features: FrameFeatures
    before: Curves
    """Every repeatable curve point of the original from where the rerun begins."""
    last: int
    """Step that the original came to."""
    variant: str = ""
    """What differs on purpose; "" for the same training again."""
    changes: tuple[Change, ...] = ()
    """What differs in code, packages, device and decisions."""
    notes: tuple[str, ...] = ()
    """What else to say before it starts."""
    kept: Kept | None = None
    seed: int = 0
    """The original's."""
    debug: bool = False
    params: Mapping[str, Any] = field(default_factory=dict)
    """Parameters that the variant sets, by dotted name."""

    @property
    def config(self) -> TrialConfig:
        """The configuration of the run itself, in its last part."""
        return self.parts[-1].config

    @property
    def until(self) -> int:
        return self.parts[-1].until

    @property
    def steps(self) -> int:
        """Number of steps to train in all."""
        return sum(part.steps for part in self.parts) - (self.kept.step if self.kept and self.kept.whole else 0)


def make_plan(
    client: MlflowClient, wanted: Wanted, directory: Path, update: Callable[[str], None] = lambda _: None
) -> Plan:
    """Everything read, checked and decided; what has to be downloaded goes into `directory`. Calls `update` with words
    about what takes long.

    Raises ValueError if the run is unknown, its frames are not here, or what is asked cannot be done.
    """
    run = find_run(client, wanted.run)
    number, lineages = read_lineages(client, run)
    params = _params(wanted.overrides)
    changed = with_configs(lineages, _override(wanted))
    variant = ", ".join(f"{key}={value}" for key, value in params.items()) if changed != lineages else ""
    moved = with_configs(changed, lambda config: _moved(config, wanted))
    where, trained_on = moved[number][-1].config.frames, run.data.tags.get(Tag.FRAMES)
    frame_set = open_frames(where, run.info.run_id, trained_on, others="frames" in params)
    resolved = with_configs(moved, lambda config: resolved_here(run, config, wanted))
    config, kept = resolved[number][-1].config, None
    if wanted.from_checkpoint:
        kept = find_kept(client, run, directory)
        variant = variant if kept.whole else ", ".join(filter(None, (variant, f"{FROM_WEIGHTS} {kept.step}")))
        resolved = {number: (Stretch(0, None, config),)}
    before = read_points(client, run)
    last = max((step for _, step in before), default=0)
    to_the_end = bool(kept) or "train.steps" in params
    until = config.train.steps if to_the_end else _until(run, config, last, bool(variant))
    until = _stopped_at(wanted.steps, config) or until
    if kept and kept.whole:
        _check_continues(kept, config, until)
        before = {point: value for point, value in before.items() if point[1] > kept.step}
    features = ensure_features(
        frame_set, lambda done, of: update(f"Training the frame set's feature network: {done} of {of} steps")
    )
    return Plan(
        run=run,
        parts=tuple(parts(resolved, number, until)),
        frame_set=frame_set,
        features=features,
        before=before,
        last=last,
        variant=variant,
        changes=changes(origin_of(client, run), origin_here(config, features.fingerprint)),
        notes=tuple(_notes(run, resolved[number], last, until, bool(variant))),
        kept=kept,
        seed=lineages[number][-1].config.train.seed,
        debug=wanted.debug,
        params=params,
    )


def in_words(plan: Plan) -> list[str]:
    """What a person should know before it starts, a line each."""
    name = f"{plan.run.info.run_name} ({plan.run.info.run_id[:8]})"
    own = plan.until - (plan.kept.step if plan.kept and plan.kept.whole else 0)
    extra = plan.steps - own
    to = f", to step {plan.until}" if own != plan.until else ""
    donors = f", and {extra} of the trials that it went on from" if extra else ""
    lines = [f"{'A variant of' if plan.variant else 'Repeating'} {name}: {own} steps{to}{donors}."]
    if plan.variant:
        lines.append(f"Different on purpose: {plan.variant}.")
    if plan.kept:
        lines.append(plan.kept.in_words())
    lines += [f"  {change.in_words()} ({change.bits})" for change in plan.changes]
    return [*lines, *([] if plan.variant else [verdict(plan.changes)]), *plan.notes]


# --- The configuration ------------------------------------------------------------------------------------------------


def _params(overrides: tuple[str, ...]) -> dict[str, Any]:
    """The overrides as dotted names and values."""
    params = {}
    for assignment in overrides:
        nested: dict[str, Any] = {}
        set_override(nested, assignment)
        name = assignment.partition("=")[0].strip()
        value: Any = nested
        for part in name.split("."):
            value = value[part]
        params[name] = value
    return params


def _override(wanted: Wanted) -> Callable[[TrialConfig], TrialConfig]:
    def override(config: TrialConfig) -> TrialConfig:
        if not wanted.overrides:
            return config
        data = config.dump()
        for assignment in wanted.overrides:
            set_override(data, assignment)
        return parse_trial(data, f"the variant of {wanted.run}")

    return override


def _moved(config: TrialConfig, wanted: Wanted) -> TrialConfig:
    """The configuration with its files where they are now."""
    if wanted.frames is not None:
        config = config.model_copy(update={"frames": wanted.frames})
    if wanted.inception_weights is not None and config.evaluate.inception_weights is not None:
        evaluate = config.evaluate.model_copy(update={"inception_weights": wanted.inception_weights})
        config = config.model_copy(update={"evaluate": evaluate})
    return config


def resolved_here(run: Run, config: TrialConfig, wanted: Wanted) -> TrialConfig:
    """The configuration resolved as it was wherever this machine can.

    Raises ValueError for a device that is asked for and not here.
    """
    if wanted.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda needs a CUDA device, but torch finds none here; leave it out, or give cpu")
    asked = any(each.partition("=")[0].strip() == "train.device" for each in wanted.overrides)
    device = wanted.device or (config.train.device if asked else "auto")
    wishes = {"device": device} | ({"compile": False} if wanted.debug else {})
    return resolve_again(config, decided_in(run.data.tags), wishes)


# --- How far ----------------------------------------------------------------------------------------------------------


def read_points(client: MlflowClient, run: Run) -> dict[tuple[str, int], float]:
    """Every repeatable curve point of a run: what the trainer computed, not what was derived from it. Of one that is
    running, up to the last validation that all curves have come to."""
    others = (*DERIVED_PREFIXES, *UNREPEATABLE_PREFIXES, Prefix.PARAM)
    keys = [key for key in run.data.metrics if not key.startswith(others)]
    curves = {key: {point.step: point.value for point in read_curve(client, run.info.run_id, key)} for key in keys}
    points = {(key, step): value for key, curve in curves.items() for step, value in curve.items()}
    if run.data.tags.get(Tag.OUTCOME) != Outcome.RUNNING:
        return points
    reached = min(map(max, filter(None, curves.values())), default=0)
    last = max((step for key, step in points if key in METRICS and step <= reached), default=0)
    return {point: value for point, value in points.items() if point[1] <= last}


def _stopped_at(steps: int | None, config: TrialConfig) -> int | None:
    """Where a person wants to stop. Raises ValueError for a step beyond the schedules."""
    if steps is not None and steps > config.train.steps:
        raise ValueError(
            f"--steps must be at most train.steps, where the schedules end, which is {config.train.steps}, but got "
            f"{steps}; --set train.steps={steps} trains longer, as a variant with stretched schedules"
        )
    return steps


def _until(run: Run, config: TrialConfig, last: int, variant: bool) -> int:
    """The step that the original came to; for a variant of one that ended by itself, the last."""
    end, outcome = config.train.steps, run.data.tags.get(Tag.OUTCOME)
    if last == 0 or (variant and outcome in (Outcome.COMPLETED, Outcome.DIVERGED)):
        return end
    if outcome == Outcome.DIVERGED:  # which was found when the next point was to be made
        return next((step for step in range(last + 1, end) if _makes_point(config, step)), end)
    return min(last, end)


def _makes_point(config: TrialConfig, step: int) -> bool:
    return step % config.train.log_every == 0 or config.evaluates(step)


def _check_continues(kept: Kept, config: TrialConfig, until: int) -> None:
    if kept.step >= until:
        raise ValueError(
            f"the training is at step {kept.step} already, but would continue to step {until}; train longer with "
            f"--set train.steps={max(2 * kept.step, config.train.steps)}, which stretches its schedules"
        )


def _notes(run: Run, stretches: Sequence[Stretch], last: int, until: int, variant: bool) -> list[str]:
    """What is special about the original, in words."""
    tags, notes = run.data.tags, []
    if last == 0:
        notes.append(f"The original ({tags.get(Tag.OUTCOME)}) has no curves, so there is nothing to compare with.")
    elif tags.get(Tag.OUTCOME) == Outcome.RUNNING and tags.get(Tag.KIND) != Kind.RERUN:
        notes.append(f"The original is still running, or its sweep was cut off; MLflow has it up to step {last}.")
    elif until < last:
        notes.append(f"Stops at step {until} of {last}{'' if variant else '; compared up to there'}.")
    elif until > last and tags.get(Tag.OUTCOME) != Outcome.DIVERGED:
        notes.append(f"The original stopped at step {last} ({tags.get(Tag.OUTCOME)}); goes on to step {until}.")
    if len(stretches) > 1:
        from_whom = "; ".join(f"trial {s.donor} at step {s.step}" for s in stretches[1:])
        notes.append(f"Population based training had it go on from {from_whom}: their trainings are replayed too.")
    if moved := tags.get(Tag.MOVED):
        notes.append(f"The original moved to other hardware, so it can be repeated up to there at best: {moved}.")
    if mismatch := tags.get(Tag.MISMATCH):
        notes.append(f"The original did not repeat itself when it was resumed: {mismatch}.")
    return notes
