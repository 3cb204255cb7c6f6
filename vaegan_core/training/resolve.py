"""Every `auto` of a configuration decided for this machine; and what to measure a machine with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch

from vaegan_core.config.trial import TrialConfig
from vaegan_core.hardware import has_bfloat16
from vaegan_core.training.machine import decided, wishing


def resolve(config: TrialConfig, *, threads: int | None = None, before: Mapping[str, Any] | None = None) -> TrialConfig:
    """The same configuration with every `auto` decided for this machine.

    `threads` replaces `auto` threads (a trial's share in a sweep); None: one per core. `before`, the facts of an
    earlier training (machine.py), are kept wherever `auto` allows and this machine can. bfloat16 is taken where the
    hardware has it, never emulated. Raises ValueError for `device: cuda` without a CUDA device.
    """
    train, facts = config.train, before or {}
    cuda = torch.cuda.is_available()
    device = train.device
    if device == "auto":
        device = "cuda" if cuda and facts.get("device") != "cpu" else "cpu"
    if device == "cuda" and not cuda:
        raise ValueError("train.device is cuda, but torch finds no CUDA device here; set it to cpu or auto")
    precision = train.precision
    if precision == "auto":
        precision = "bfloat16" if has_bfloat16(device) and facts.get("precision") != "float32" else "float32"
    made = {
        "device": device,
        "threads": facts.get("threads") or threads or os.cpu_count() or 1,
        "channels_last": facts.get("channels_last", True),
        "compile": facts.get("compile", False),
    }
    wishes = {name: getattr(train, name) for name in made}
    chosen = {name: made[name] if wish == "auto" else wish for name, wish in wishes.items()}
    return config.model_copy(update={"train": train.model_copy(update=chosen | {"precision": precision})})


def resolve_again(config: TrialConfig, facts: Mapping[str, Any], wishes: Mapping[str, Any]) -> TrialConfig:
    """The configuration of an earlier training, resolved as it was wherever this machine can.

    `facts` is what that training's machine decided; empty for a version before 0.3, whose configuration has the facts
    in the place of wishes. `wishes` go before those of the configuration. Raises ValueError for `device: cuda` without
    a CUDA device.
    """
    kept = decided(config) if facts else {}
    return resolve(wishing(config, {**kept, **wishes}), before=facts or decided(config))


def at_full_cost(config: TrialConfig) -> TrialConfig:
    """The same configuration with its GAN terms from the first step on: what time and memory of a step are measured
    with, since steps before `loss.start` take less of both."""
    return config.model_copy(update={"loss": config.loss.model_copy(update={"start": 0.0})})
