"""The curves of two trainings, compared point by point."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Curves = Mapping[tuple[str, int], float]
"""Values by (key, step)."""

COMPUTED = (
    *("latent/", "train/discriminator_", "train/r1", "train/r2"),
    *("weighted/discriminator_", "weighted/r1", "weighted/r2", "train/discriminator", "discriminator/"),
    *("train/generator_", "train/feature_", "train/pixel", "train/kl", "weighted/", "train/autoencoder"),
    *("kl/", "generator/", "gradient/", "val/"),
)
"""Beginnings of keys in the order in which a step computes them: the encoder's output, the discriminator's terms and
verdicts, the autoencoder's terms, what controls and gradients make of them, and the validation after the step."""


@dataclass(frozen=True)
class Difference:
    """The earliest curve point whose values differ; None: one training has no such point."""

    key: str
    step: int
    before: float | None
    now: float | None

    def in_words(self) -> str:
        then, now = ("no value" if value is None else f"{value:.9g}" for value in (self.before, self.now))
        return f"step {self.step}, {self.key}: {then} then, {now} now"


@dataclass(frozen=True)
class CurveDifference:
    """How one curve differs."""

    key: str
    first: int
    """The first step at which it does."""
    points: int
    """Number of its points that do."""
    largest: float
    """Largest relative difference, |now - before| / max(|now|, |before|), from 0 to 2; 0 where points are only
    missing."""
    at: int
    """Step of that."""


@dataclass(frozen=True)
class Comparison:
    """Two trainings, as far as both went."""

    until: int
    """Last step that is compared."""
    compared: int
    """Number of points of the first training up to there."""
    differing: int
    first: Difference | None
    """None: identical."""
    curves: tuple[CurveDifference, ...]
    """Those that differ, the earliest first, and of one step in the order of computation."""
    others: tuple[str, ...] = ()
    """Keys that only one of them has, because another version made it; not compared."""


def compare(before: Curves, now: Curves, reached: int) -> Comparison:
    """Compares the curves of two trainings from where the first has any up to the step that both have come to;
    `reached`: by the second."""
    steps = [step for _, step in before]
    begun, until = min(steps, default=0), min(max(steps, default=0), reached)
    then, again = ({point: v for point, v in curves.items() if begun <= point[1] <= until} for curves in (before, now))
    keys, now_keys = ({key for key, _ in curves} for curves in (then, again))
    if then and again:
        then, again = ({p: v for p, v in curves.items() if p[0] in keys & now_keys} for curves in (then, again))
    differing = sorted(
        (point for point in then.keys() | again.keys() if then.get(point) != again.get(point)), key=_computed
    )
    first = None
    if differing:
        point = differing[0]
        first = Difference(*point, then.get(point), again.get(point))
    return Comparison(
        until, len(then), len(differing), first, _by_curve(differing, then, again), tuple(sorted(keys ^ now_keys))
    )


def _computed(point: tuple[str, int]) -> tuple[int, int, str]:
    """Sorts points by step, and those of a step in the order of computation."""
    key, step = point
    place = next(
        (index for index, begins in enumerate(COMPUTED) if key == begins or _below(key, begins)), len(COMPUTED)
    )
    return step, place, key


def _below(key: str, begins: str) -> bool:
    return key.startswith(begins) and (begins.endswith(("/", "_")) or begins in ("train/kl", "train/r1", "train/r2"))


def _by_curve(differing: list[tuple[str, int]], then: Curves, now: Curves) -> tuple[CurveDifference, ...]:
    steps: dict[str, list[int]] = {}
    for key, step in differing:
        steps.setdefault(key, []).append(step)
    curves = []
    for key, at_steps in steps.items():
        sizes = {
            step: relative_difference(then[key, step], now[key, step])
            for step in at_steps
            if (key, step) in then and (key, step) in now
        }
        at = max(sizes, key=lambda step: sizes[step], default=at_steps[0])
        curves.append(CurveDifference(key, at_steps[0], len(at_steps), sizes.get(at, 0.0), at))
    return tuple(curves)


def relative_difference(a: float, b: float) -> float:
    """|a - b| / max(|a|, |b|), from 0 to 2; 0 for equal values."""
    return 0.0 if a == b else abs(a - b) / max(abs(a), abs(b))
