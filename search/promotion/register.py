"""A trial's weights as a version of a registered model: what it takes and gives, an example, its origin."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
import numpy as np
import torch
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelOutput
from mlflow.models import Model, ModelSignature
from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec

import vaegan_core
from search.names import Tag
from search.promotion.measure import Bench
from search.tracking.reader import SweepRun, TrialRun, read_config
from vaegan_core.data.batches import to_frames
from vaegan_core.model.saved import Sampler, SavedModel, load_model

SERVED_MODEL_FILE = Path(__file__).with_name("served_model.py")
ARTIFACTS = "artifacts"
"""Folder of a registered model that holds its weights and its frames' size."""
SIZE_FILE = "size.json"
NUM_EXAMPLES = 2
DESCRIPTIONS: dict[Sampler, str] = {
    "fitted": "Mode `sample` draws z from the ex-post density, fitted to z of training frames (`sampler: fitted`, the "
    "default), or from N(0, I) (`sampler: prior`).",
    "prior": "Mode `sample` draws z from N(0, I) (`sampler: prior`); no density was fitted to z of training frames.",
}
"""What a version says about its samples, by the sampler it has by default."""
REQUIREMENTS = ("mlflow", "numpy", "pillow", "pydantic", "pyyaml", "safetensors", "torch", "torchvision")


@dataclass(frozen=True)
class Source:
    """What a version is made of."""

    sweep: SweepRun
    trial: TrialRun
    weights: Path
    """The file downloaded from the trial's run."""
    sha256: str
    bench: Bench | None
    """None: its frames are not here."""


def registered_from(client: MlflowClient, model_name: str, run_id: str, sha256: str) -> str | None:
    """The version of the model that holds these weights of a run; None before there is one."""
    for found in client.search_model_versions(f"name = '{model_name}' and run_id = '{run_id}'"):
        if found.tags.get(Tag.MODEL_SHA, sha256) == sha256:
            return str(found.version)
    return None


def register(client: MlflowClient, model_name: str, source: Source, tags: Mapping[str, str]) -> str:
    """Logs the model to the trial's run, whose status stays as it is, and returns its new version."""
    run_id, sweep = source.trial.run_id, source.sweep
    model = load_model(source.weights)
    logged = client.create_logged_model(
        sweep.experiment_id, f"{sweep.name}-{source.trial.number:03d}", run_id, dict(tags), dict(source.trial.params)
    )
    with TemporaryDirectory() as directory, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path, size = Path(directory) / "model", Path(directory) / SIZE_FILE
        size.write_text(json.dumps({"height": model.size[0], "width": model.size[1]}))
        mlflow.set_tracking_uri(client.tracking_uri)
        mlflow.pyfunc.save_model(
            str(path),
            python_model=str(SERVED_MODEL_FILE),
            artifacts={"weights": str(source.weights), "size": str(size)},
            code_paths=[str(Path(vaegan_core.__file__).parent)],
            signature=signature_of(model),
            input_example=_example(model, source.bench),
            pip_requirements=[f"{package}=={version(package).split('+')[0]}" for package in REQUIREMENTS],
            mlflow_model=Model(artifact_path=logged.artifact_location, run_id=run_id, model_id=logged.model_id),
        )
        client.log_model_artifacts(logged.model_id, str(path))
    client.finalize_logged_model(logged.model_id, "READY")
    step = source.trial.step
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step)])
    _log_dataset(client, source)
    registered = client.create_model_version(
        model_name,
        f"models:/{logged.model_id}",
        run_id,
        tags=dict(tags),
        description=_description(source, model),
        model_id=logged.model_id,
    )
    return str(registered.version)


def signature_of(model: SavedModel) -> ModelSignature:
    """What `predict` takes and gives. Frames and latents differ in rank and type, which one tensor of a signature
    cannot say, so both are "any tensor" here, and the model itself checks what it gets."""
    anything = TensorSpec(np.dtype("O"), (-1,))
    params = [
        ParamSpec("mode", "string", "reconstruct"),
        ParamSpec("count", "long", 0),
        ParamSpec("seed", "long", 0),
        ParamSpec("sampler", "string", model.sampler),
    ]
    return ModelSignature(Schema([anything]), Schema([anything]), ParamSchema(params))


def _example(model: SavedModel, bench: Bench | None) -> np.ndarray:
    """Two test frames; where there are none here, two samples of the model."""
    if bench is not None:
        return np.ascontiguousarray(bench.frame_set.test[:NUM_EXAMPLES])
    noise = torch.randn(NUM_EXAMPLES, model.latent_dim, generator=torch.Generator().manual_seed(0))
    samples: np.ndarray = to_frames(model.sample(noise)).numpy()
    return samples


def _log_dataset(client: MlflowClient, source: Source) -> None:
    """The frame set as a dataset of the trial's run, by its fingerprint."""
    where = read_config(client, source.trial.run_id).frames if source.bench is None else source.bench.config.frames
    profile = {}
    if source.bench is not None:
        frame_set = source.bench.frame_set
        profile = {
            "train": frame_set.num_train,
            "test": len(frame_set) - frame_set.num_train,
            "height": frame_set.manifest.height,
            "width": frame_set.manifest.width,
            "sha256": frame_set.manifest.sha256,
        }
    dataset = Dataset(
        name=Path(where).name,
        digest=source.trial.tags.get(Tag.FRAMES, "unknown"),
        source_type="local",
        source=json.dumps({"uri": str(where)}),
        profile=json.dumps(profile),
    )
    client.log_inputs(source.trial.run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])


def _description(source: Source, model: SavedModel) -> str:
    """What a person reads in the registry: inputs, outputs, what it scores, and where it comes from."""
    height, width = model.size
    confirmation, trial = source.trial.confirmation, source.trial
    scores = (
        confirmation.in_words()
        if confirmation
        else ", ".join(f"{name} {trial.final[name]:.4g}" for name in source.sweep.objectives)
    )
    return (
        f"Trial {trial.number} of sweep {source.sweep.name}: {scores}{'' if confirmation else ' (one seed)'}.\n\n"
        f"`predict` takes frames, uint8 [n, {height}, {width}, 3], and gives reconstructions of the same shape (mode "
        f"`reconstruct`, the default) or float32 posterior means [n, {model.latent_dim}] (`encode`). With mode "
        f"`decode` it takes latents [n, {model.latent_dim}] and gives frames. With mode `sample` it takes an empty "
        f"array (`[[]]` in JSON) and gives `count` samples of `seed`. {DESCRIPTIONS[model.sampler]}"
    )
