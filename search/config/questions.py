"""Questions of a sweep: a factor, its levels, one outcome; asked in blocks of trials that differ in nothing else."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from vaegan_core.config.ranges import Steps
from vaegan_core.evaluation import METRICS, VALIDATION_METRICS
from vaegan_core.problems import Config
from vaegan_core.spelling import did_you_mean

Scale = Literal["ratio", "difference"]


def _is_measured(key: str) -> str:
    if key not in VALIDATION_METRICS:
        meant = did_you_mean(key, VALIDATION_METRICS)
        raise ValueError(f"must be one of {', '.join(VALIDATION_METRICS)}, but got {key!r}{meant}")
    return key


Measured = Annotated[str, AfterValidator(_is_measured), Field(json_schema_extra={"enum": list(VALIDATION_METRICS)})]
"""Key of a validation metric."""
Values = Annotated[tuple[Any, ...], Field(min_length=2)]
"""Values of one setting."""


class SlopeConfig(Config):
    """How a metric grows: the slope of its logarithm on the logarithm of the step over the last half of a trial."""

    slope: Measured


def _kind_of_outcome(outcome: Any) -> str:
    return "growth" if isinstance(outcome, Mapping | SlopeConfig) else "value"


def _one_setting(across: Mapping[str, tuple[float, ...]]) -> Mapping[str, tuple[float, ...]]:
    if len(across) > 1:
        raise ValueError(f"must be one setting, but got {', '.join(across)}")
    for name, values in across.items():
        if not all(value > 0 and math.isfinite(value) for value in values) or len(set(values)) < len(values):
            raise ValueError(f"must have different values above 0, which the slope is over, but {name} has {values}")
    return across


class QuestionConfig(Config):
    """What a factor does to an outcome. Everything but `spread` is the question: changed, it is a new one."""

    factor: Annotated[dict[str, Values], Field(min_length=1)]
    """By dotted name of a setting, its value at each level; the first level is the reference. Settings with several
    names change together. A value may also be a mapping, which replaces all that the base has there."""
    labels: tuple[Annotated[str, Field(min_length=1)], ...] | None = None
    """What the levels are called; null: after their values."""
    outcome: Annotated[
        Annotated[Measured, Tag("value")] | Annotated[SlopeConfig, Tag("growth")], Discriminator(_kind_of_outcome)
    ]
    """The one primary outcome: a validation metric at the last step, or `{slope: METRIC}`."""
    smallest_effect: Annotated[float, Field(gt=0)]
    """Effect below which nobody cares: a ratio (> 1) of outcomes; or a difference (> 0) of slopes, and of outcomes that
    may be 0 or less: val/ssim, val/active_units, val/diversity, val/duplicates, val/nearest_train, val/samples_kid and
    the val/auc ones."""
    across: Annotated[dict[str, Annotated[tuple[float, ...], Field(min_length=2)]], AfterValidator(_one_setting)] = (
        Field(default_factory=dict)
    )
    """A setting with values (> 0) at each of which every level runs; the effect is then on the slope of the outcome's
    logarithm over the setting's."""
    crossed: dict[str, Values] = Field(default_factory=dict)
    """Settings at each of whose values every level runs, too; the effect is the mean over them."""
    alone: bool = False
    """Whether the question has trials of its own also where it could share them with others of two levels."""
    spread: Annotated[float, Field(gt=0)] | None = None
    """Standard deviation of one block's effect (of log ratios, or of differences), from which `vaegan check` forecasts
    as long as the sweep has no blocks; null: 0.35 for ratios, and no forecast for differences."""

    @property
    def num_levels(self) -> int:
        return len(next(iter(self.factor.values())))

    @property
    def scale(self) -> Scale:
        """What an effect is: a ratio of outcomes, or a difference of slopes, or of outcomes that have no logarithm."""
        return "ratio" if not self._is_slope and METRICS[self.metric].positive else "difference"

    @property
    def _is_slope(self) -> bool:
        return bool(self.across) or isinstance(self.outcome, SlopeConfig)

    @property
    def metric(self) -> str:
        """The validation metric that the outcome is made of."""
        return self.outcome.slope if isinstance(self.outcome, SlopeConfig) else self.outcome

    @property
    def outcome_in_words(self) -> str:
        return f"the slope of {self.metric}" if isinstance(self.outcome, SlopeConfig) else self.metric

    @property
    def level_names(self) -> tuple[str, ...]:
        """Words for each level."""
        return self.labels or tuple(self._in_words(level) for level in range(self.num_levels))

    def _in_words(self, level: int) -> str:
        told = {name: values[level] for name, values in self.factor.items() if len({*map(_key, values)}) > 1}
        return ", ".join(f"{'.'.join(name.split('.')[-2:])} {_text(value)}" for name, value in told.items())

    def settings(self) -> list[str]:
        """Every setting that the question gives, by dotted name."""
        return [*self.factor, *self.across, *self.crossed]

    def covers(self, name: str) -> bool:
        """Whether the question gives the setting of this name, or one above it."""
        return covered(name, self.settings())

    @property
    def text(self) -> dict[str, Any]:
        """The question as plain data, without what may change."""
        return self.model_dump(mode="json", exclude={"spread"}, exclude_defaults=True)

    @property
    def hash(self) -> str:
        """SHA-256 of the text, in hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.text, sort_keys=True).encode()).hexdigest()

    @model_validator(mode="after")
    def _levels_are_complete_and_differ(self) -> Self:
        counts = {name: len(values) for name, values in self.factor.items()}
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{name} has {count}" for name, count in counts.items())
            raise ValueError(f"factor must give every setting as many levels, but {told}")
        levels = [_key([values[level] for values in self.factor.values()]) for level in range(self.num_levels)]
        if len(set(levels)) < len(levels):
            raise ValueError("factor must have different levels, but two are the same")
        for name, values in self.crossed.items():
            if len({_key(value) for value in values}) < len(values):
                raise ValueError(f"crossed must have different values, but {name} has {list(values)}")
        return self

    @model_validator(mode="after")
    def _labels_name_the_levels(self) -> Self:
        if self.labels and (len(self.labels) != self.num_levels or len(set(self.labels)) < len(self.labels)):
            raise ValueError(
                f"labels must be {self.num_levels} different words, one for each level, but got {list(self.labels)}"
            )
        return self

    @model_validator(mode="after")
    def _settings_are_given_once(self) -> Self:
        names = self.settings()
        for name in names:
            above = [other for other in names if name.startswith(f"{other}.")] + [name] * (names.count(name) - 1)
            if above:
                raise ValueError(f"gives {name} twice, by {above[0]} in factor, across or crossed")
        return self

    @model_validator(mode="after")
    def _slopes_are_of_logarithms(self) -> Self:
        if self._is_slope and not METRICS[self.metric].positive:
            raise ValueError(
                f"outcome must be above 0 for a slope of its logarithm, but {self.metric} may be 0 or less; ask about "
                "its value, without slope and across"
            )
        return self

    @model_validator(mode="after")
    def _effect_is_on_its_scale(self) -> Self:
        if self.scale == "ratio" and self.smallest_effect <= 1:
            raise ValueError(
                f"smallest_effect must be a ratio above 1, such as 1.25 for 25 %, but got {self.smallest_effect:g}"
            )
        return self


class BlocksConfig(Config):
    """How questions are answered: in blocks, each with one draw of everything else that the space searches. After
    the first look they come eight at a time, until every question that shares them is answered."""

    at_least: Annotated[int, Field(ge=2, le=10**5)] = 8
    """Blocks of each question before the first look at the answers."""
    at_most: Annotated[int, Field(ge=2, le=10**5)] = 48
    """Blocks of each question at most."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of new trials that belong to blocks, as long as the sampler has some to draw, too."""
    steps: Steps | None = None
    """Steps of a block's trials, which are never stopped early; null: base.train.steps."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Decides what is drawn for each block, and the order of its trials."""

    @model_validator(mode="after")
    def _least_is_below_most(self) -> Self:
        if self.at_least > self.at_most:
            raise ValueError(f"at_least <= at_most must hold, but got {self.at_least} and {self.at_most}")
        return self


def covered(name: str, given: Iterable[str]) -> bool:
    """Whether a setting, or one above it, is among those that are given."""
    return any(name == each or name.startswith(f"{each}.") for each in given)


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _text(value: Any) -> str:
    """A setting's value, for people."""
    if isinstance(value, Mapping):
        return " ".join(f"{key} {_text(inner)}" for key, inner in value.items())
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def changes(question: QuestionConfig) -> Iterator[tuple[int, dict[str, float], dict[str, Any]]]:
    """(level, value by name of `across`, all settings that the question gives) of each of its trials in a block."""
    across = [{name: value} for name, values in question.across.items() for value in values] or [{}]
    for level in range(question.num_levels):
        given = {name: values[level] for name, values in question.factor.items()}
        for value in across:
            for crossed in _products(question.crossed):
                yield level, value, given | value | crossed


def _products(settings: Mapping[str, tuple[Any, ...]]) -> list[dict[str, Any]]:
    products: list[dict[str, Any]] = [{}]
    for name, values in settings.items():
        products = [product | {name: value} for product in products for value in values]
    return products
