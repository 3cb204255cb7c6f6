"""Every `auto` of a configuration decided for this machine; and what to measure a machine with."""

from __future__ import annotations

import os

import torch

from vaegan_core.config import TrialConfig
from vaegan_core.hardware import cpu_has_bfloat16


def resolve(config: TrialConfig, *, threads: int | None = None) -> TrialConfig:
    """The same configuration with every `auto` decided for this machine: the one that is recorded and rerun.

    `threads` replaces `auto` threads (a trial's share in a sweep); None: one per core. Raises ValueError for
    `device: cuda` without a CUDA device.
    """
    train = config.train
    device = ("cuda" if torch.cuda.is_available() else "cpu") if train.device == "auto" else train.device
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("train.device is cuda, but torch finds no CUDA device here; set it to cpu or auto")
    bfloat16 = torch.cuda.is_bf16_supported() if device == "cuda" else cpu_has_bfloat16()
    decided = {
        "device": device,
        "threads": (threads or os.cpu_count() or 1) if train.threads == "auto" else train.threads,
        "precision": ("bfloat16" if bfloat16 else "float32") if train.precision == "auto" else train.precision,
        "channels_last": True if train.channels_last == "auto" else train.channels_last,
        "compile": False if train.compile == "auto" else train.compile,
    }
    return config.model_copy(update={"train": train.model_copy(update=decided)})


def at_full_cost(config: TrialConfig) -> TrialConfig:
    """The same configuration with its GAN terms from the first step on: what time and memory of a step are measured
    with, since steps before `loss.start` take less of both."""
    return config.model_copy(update={"loss": config.loss.model_copy(update={"start": 0.0})})
