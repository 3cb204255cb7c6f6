"""The Ray trainable: an assigned configuration in, reports out. Runs in a worker process that serves many trials."""

from __future__ import annotations

import json
import platform
import shutil
import traceback
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ray
import torch
import yaml
from ray import tune

from search.names import MODEL_ARTIFACT
from search.scheduler import CRASHED, ENVIRONMENT, ERROR, EVALUATION, EVENT, PAYLOAD, RESOLVED, STARTED
from vaegan_core.config import TrialConfig, parse_trial
from vaegan_core.evaluation import Evaluation
from vaegan_core.features import FrameFeatures
from vaegan_core.frames import FrameSet
from vaegan_core.hardware import cpu_name
from vaegan_core.trainer import Trainer, resolve

CHECKPOINT_FILE = "checkpoint.safetensors"
REPORTED_VERSIONS = ("torch", "torchvision", "numpy", "ray", "optuna", "mlflow")


def run_trial(assignment: dict[str, Any], *, frame_set: FrameSet, features: FrameFeatures, threads: int) -> None:
    """Trains the assigned trial, from its checkpoint where there is one; an exception is reported, never raised.

    `frame_set` and `features` come from the node's object store; `threads` is this trial's share of the cores.
    """
    directory = Path(assignment["directory"])
    try:
        config = resolve(parse_trial(yaml.safe_load(assignment["config"]), "config.yaml"), threads=threads)
        environment = json.dumps({**describe_environment(config), "node": ray.get_runtime_context().get_node_id()})
        tune.report({EVENT: STARTED, RESOLVED: config.to_yaml(), ENVIRONMENT: environment})
        train(config, frame_set, features, directory)
    except Exception:
        tune.report({EVENT: CRASHED, ERROR: traceback.format_exc()})
    finally:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def train(config: TrialConfig, frame_set: FrameSet, features: FrameFeatures, directory: Path) -> None:
    """The training itself, with its files in `directory`."""
    trainer = Trainer(config, frame_set, features)

    def report(evaluation: Evaluation) -> None:
        if evaluation.outcome == "completed":
            trainer.save_model(directory / MODEL_ARTIFACT)
        tune.report({EVENT: EVALUATION, PAYLOAD: evaluation.to_bytes()})

    trainer.run(report, checkpoint=directory / CHECKPOINT_FILE)


def describe_environment(config: TrialConfig) -> dict[str, str]:
    """Where a trial runs: host, device and the versions that its numbers depend on."""
    cuda = config.train.device == "cuda"
    device = torch.cuda.get_device_name() if cuda else cpu_name()
    versions = {package: version(package) for package in REPORTED_VERSIONS}
    return {"host": platform.node(), "device": device, "python": platform.python_version(), **versions}


def discard_checkpoint(directory: Path) -> None:
    """Frees the disk of a trial that will not go on; its model, where it has one, stays."""
    (directory / CHECKPOINT_FILE).unlink(missing_ok=True)


def discard_trial(directory: Path) -> None:
    """Removes everything of a trial that nobody will ask for again."""
    shutil.rmtree(directory, ignore_errors=True)
