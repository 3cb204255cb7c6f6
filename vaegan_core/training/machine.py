"""What of a configuration the machine decides: the wish is `auto` or a value, the fact is what it became there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vaegan_core.config.trial import TrialConfig

DECIDED = ("device", "threads", "precision", "channels_last", "compile")
"""Keys of `train` that change how numbers are computed, and not which numbers are meant."""


def decided(config: TrialConfig) -> dict[str, Any]:
    """The facts in a resolved configuration, by key of `train`."""
    return {name: getattr(config.train, name) for name in DECIDED}


def wishing(config: TrialConfig, wishes: Mapping[str, Any]) -> TrialConfig:
    """The same configuration with these wishes, and `auto` for everything else that the machine decides."""
    update = {name: wishes.get(name, "auto") for name in DECIDED}
    return config.model_copy(update={"train": config.train.model_copy(update=update)})


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between the facts of two trainings, in words; a fact that only one of them has does not count."""
    return [
        f"{name} {now[name]} instead of {before[name]}"
        for name in before
        if now.get(name, before[name]) != before[name]
    ]
