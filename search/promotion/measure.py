"""Stored weights measured here, on the frames that the trial was trained on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from mlflow import MlflowClient

from search.names import Artifact, Tag
from search.provenance import DECIDED, decided_in, describe_environment, moved
from search.tracking.reader import SweepRun, TrialRun, open_frames, read_artifact, read_config
from vaegan_core.config.trial import TrialConfig
from vaegan_core.data.frames import FrameSet
from vaegan_core.metrics.evaluator import Evaluator
from vaegan_core.metrics.frame_features import ensure_features
from vaegan_core.model.saved import load_model
from vaegan_core.training.machine import decided
from vaegan_core.training.resolve import resolve_again
from vaegan_core.training.runtime import runtime


@dataclass(frozen=True)
class Bench:
    """A trial's configuration for this machine, and its frames."""

    config: TrialConfig
    """Resolved: what the trial's machine decided is kept wherever this one can."""
    frame_set: FrameSet
    moved: str
    """How this machine computes otherwise than the trial's, in words; "" where it computes the same."""


def set_up(client: MlflowClient, sweep: SweepRun, trial: TrialRun, frames: str | None) -> Bench:
    """What a trial is measured with here; `frames` says where its frame set is now.

    Raises ValueError if the frames are not here, are others, or are damaged.
    """
    config = read_config(client, trial.run_id)
    frame_set = open_frames(str(frames or config.frames), trial.run_id, trial.tags.get(Tag.FRAMES))
    missing = config.evaluate.inception_weights and not Path(config.evaluate.inception_weights).is_file()
    evaluate = config.evaluate.model_copy(update={"inception_weights": None} if missing else {})
    facts = decided_in(trial.tags) or decided(config)
    here_now = config.model_copy(update={"frames": str(frames or config.frames), "evaluate": evaluate})
    resolved = resolve_again(here_now, decided_in(trial.tags), {"device": "auto"})
    here = describe_environment(resolved)
    there = {Tag.DEVICE: trial.tags.get(Tag.DEVICE, here["device"]), DECIDED: json.dumps(facts)}
    words = [moved(there, here), _other_torch(client, sweep, here["torch"])]
    return Bench(resolved, frame_set, ", ".join(filter(None, words)))


def _other_torch(client: MlflowClient, sweep: SweepRun, here: str) -> str:
    """How the version of torch differs from the sweep's, in words; "" for the same."""
    try:
        packages = read_artifact(client, sweep.run_id, Artifact.ENVIRONMENT).decode().splitlines()
    except ValueError:
        return "the sweep's packages are not known"
    there = next((line.removeprefix("torch==") for line in packages if line.startswith("torch==")), "")
    return "" if there == here else f"torch {here} instead of {there}"


def measure(weights: Path, bench: Bench) -> dict[str, float]:
    """Every validation metric of stored weights that needs no discriminator, by key."""
    config, frame_set = bench.config, bench.frame_set
    device = torch.device(config.train.device)
    features = ensure_features(frame_set)
    with runtime(config.train):
        model = load_model(weights, (frame_set.manifest.height, frame_set.manifest.width)).autoencoder
        model.to(device).requires_grad_(False)
        model.to(memory_format=torch.channels_last if config.train.channels_last else torch.contiguous_format)
        autocast = partial(torch.autocast, device.type, torch.bfloat16, enabled=config.train.precision == "bfloat16")
        evaluator = Evaluator(config.evaluate, frame_set, features, config.model.latent_dim, device, autocast)
        return evaluator.model_metrics(model)


def features_differ(bench: Bench, baselines: Mapping[str, float]) -> str:
    """Says so where the frame set's feature network is another one here than the sweep's; "" for the same."""
    here = ensure_features(bench.frame_set).baselines
    apart = [key for key, value in here.items() if key in baselines and baselines[key] != value]
    if not apart:
        return ""
    key = apart[0]
    return f"the frames' feature network here is another one: {key} {here[key]:.6g}, {baselines[key]:.6g} in the sweep"
