"""Registers the best full-fidelity trial of a sweep in the MLflow registry and moves the alias to it."""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
import numpy as np
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec

import vaegan_core
from search.names import CHAMPION_ALIAS, Artifact, Tag
from search.tracking.errors import is_refusal
from search.tracking.reader import SweepRun, TrialRun, find_sweep, read_artifact, read_config
from vaegan_core.data.frames import FrameSet
from vaegan_core.model.saved import Sampler, load_model
from vaegan_core.tensor_files import write_atomically

SERVED_MODEL_FILE = Path(__file__).with_name("served_model.py")
ARTIFACTS = "artifacts"
"""Folder of a registered model that holds its weights and its frames' size."""
SIZE_FILE = "size.json"
DESCRIPTIONS: dict[Sampler, str] = {
    "fitted": "Mode `sample` draws z from the ex-post density, fitted to z of training frames (`sampler: fitted`, the "
    "default), or from N(0, I) (`sampler: prior`).",
    "prior": "Mode `sample` draws z from N(0, I) (`sampler: prior`); no density was fitted to z of training frames.",
}
"""What a version says about its samples, by the sampler it has by default."""
REQUIREMENTS = ("mlflow", "numpy", "pillow", "pydantic", "pyyaml", "safetensors", "torch", "torchvision")


@dataclass(frozen=True)
class Promotion:
    """A model version, and the trial it comes from."""

    model: str
    """Name of the registered model."""
    version: int
    trial: TrialRun
    size: tuple[int, int]
    """(H, W) of its frames."""
    changed: bool
    """False: it was the champion already."""


def promote(client: MlflowClient, sweep_name: str, *, model_name: str | None = None) -> Promotion:
    """Promotes the trial that ranks first. Promoting the same trial again only moves the alias.

    Raises ValueError if the model's name is not usable, no feasible trial was completed, or its weights are not in
    MLflow.
    """
    if model_name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", model_name):
        raise ValueError(f"--model must be made of letters, digits, '.', '_' and '-', but got {model_name!r}")
    sweep = find_sweep(client, sweep_name)
    model_name = model_name or f"vaegan-{sweep.name}"
    trial = best_trial(sweep)
    number = _registered(client, model_name, trial.run_id)
    changed = number is None or number != _champion(client, model_name)
    if number is None:
        number = _register(client, model_name, sweep, trial)
    if changed:
        client.set_registered_model_alias(model_name, CHAMPION_ALIAS, str(number))
    mlflow.set_tracking_uri(client.tracking_uri)
    signature = mlflow.models.get_model_info(f"models:/{model_name}/{number}").signature
    _, height, width, _ = signature.inputs.inputs[0].shape
    return Promotion(model_name, number, trial, (height, width), changed)


def best_trial(sweep: SweepRun) -> TrialRun:
    """The trial that ranks first. Raises ValueError if there is none, or none that is feasible."""
    ranked = sweep.ranked
    if not ranked:
        raise ValueError(f"no trial of {sweep.name} reached full fidelity, so there is nothing to promote")
    if not ranked[0].feasible:
        raise ValueError(f"every completed trial of {sweep.name} violates a constraint, so there is nothing to promote")
    return ranked[0]


def _champion(client: MlflowClient, model_name: str) -> int | None:
    """Version that the alias leads to; None before it does."""
    try:
        return int(client.get_model_version_by_alias(model_name, CHAMPION_ALIAS).version)
    except MlflowException as error:
        if not is_refusal(error):
            raise
        return None


def _registered(client: MlflowClient, model_name: str, run_id: str) -> int | None:
    """Version of the model that came from a run; None before there is one."""
    versions = client.search_model_versions(f"name = '{model_name}' and run_id = '{run_id}'")
    return int(versions[0].version) if versions else None


def _register(client: MlflowClient, model_name: str, sweep: SweepRun, trial: TrialRun) -> int:
    """Logs the model to the trial's run, whose status stays as it was, and returns its new version."""
    config = read_config(client, trial.run_id)
    frame_set = FrameSet.open(config.frames)
    height, width = frame_set.manifest.height, frame_set.manifest.width
    with TemporaryDirectory() as directory, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        weights, size = Path(directory) / Artifact.MODEL, Path(directory) / SIZE_FILE
        write_atomically(weights, read_artifact(client, trial.run_id, Artifact.MODEL))
        sampler = load_model(weights, (height, width)).sampler
        size.write_text(json.dumps({"height": height, "width": width}))
        mlflow.set_tracking_uri(client.tracking_uri)
        ended = client.get_run(trial.run_id).info
        with mlflow.start_run(run_id=trial.run_id, log_system_metrics=False):
            info = mlflow.pyfunc.log_model(
                name="model",
                python_model=str(SERVED_MODEL_FILE),
                artifacts={"weights": str(weights), "size": str(size)},
                code_paths=[str(Path(vaegan_core.__file__).parent)],
                signature=_signature(height, width, sampler),
                pip_requirements=_pinned(),
            )
        client.set_terminated(trial.run_id, ended.status, ended.end_time)
        if not client.search_registered_models(f"name = '{model_name}'"):
            client.create_registered_model(model_name)
        registered = client.create_model_version(
            model_name,
            info.model_uri,
            trial.run_id,
            tags={Tag.SWEEP_ID: sweep.name},
            description=DESCRIPTIONS[sampler],
            model_id=info.model_id,
        )
    return int(registered.version)


def _signature(height: int, width: int, sampler: Sampler) -> ModelSignature:
    frames = TensorSpec(np.dtype(np.uint8), (-1, height, width, 3))
    params = [
        ParamSpec("mode", "string", "reconstruct"),
        ParamSpec("seed", "long", 0),
        ParamSpec("sampler", "string", sampler),
    ]
    return ModelSignature(inputs=Schema([frames]), params=ParamSchema(params))


def _pinned() -> list[str]:
    """What serving needs, at the versions installed here."""
    return [f"{package}=={version(package).split('+')[0]}" for package in REQUIREMENTS]
