"""The parts of a trial's training with one configuration each, as population based training makes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vaegan_core.config.trial import TrialConfig, parse_trial
from vaegan_core.strict_yaml import dump_yaml, parse_yaml


@dataclass(frozen=True)
class Stretch:
    """A part of a trial's training with one configuration."""

    step: int
    """Step that it begins at."""
    donor: int | None
    """Trial from whose state, as it was at that step, it goes on; None for the beginning."""
    config: TrialConfig


def lineage_yaml(stretches: Sequence[Stretch]) -> str:
    """The stretches as YAML: a list of `step`, `donor` and `config`."""
    return dump_yaml([{"step": s.step, "donor": s.donor, "config": s.config.dump()} for s in stretches])


def parse_lineage(text: str, what: str) -> tuple[Stretch, ...]:
    """The stretches that `lineage_yaml` wrote. Raises ConfigError, which calls the file `what`."""
    return tuple(
        Stretch(each["step"], each["donor"], parse_trial(each["config"], what)) for each in parse_yaml(text, what)
    )
