"""The weights that a person names: of a registered model, of a run, or in a file here. Only safetensors are read, so no
code that came with a model runs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException

from search.names import Artifact
from search.promotion.register import ARTIFACTS, SIZE_FILE
from search.redaction import redact
from search.tracking.client import open_existing
from search.tracking.errors import is_refusal
from search.tracking.reader import check_weights, read_artifact, require_run
from vaegan_core.model.saved import SavedModel, load_model
from vaegan_core.spelling import did_you_mean
from vaegan_core.tensor_files import write_atomically

REGISTERED = re.compile(r"models:/(?P<name>[^/@]+)(@(?P<alias>[^/@]+)|/(?P<version>\d+))")
RUN_ID = re.compile(r"[0-9a-f]{32}")


def open_model(name: str, tracking_uri: str) -> SavedModel:
    """The model that `name` names: `models:/NAME@ALIAS` or `models:/NAME/VERSION`, a run's id, or a file or directory.

    Raises ValueError if there is none, or its weights cannot be used; MLflow's errors if its store is away.
    """
    with _weights(name, tracking_uri) as path:
        try:
            return load_model(path, _stored_size(path))
        except ValueError as error:
            raise ValueError(f"{name} cannot be used: {str(error).replace(str(path), path.name)}") from None


@contextmanager
def _weights(name: str, tracking_uri: str) -> Iterator[Path]:
    """The file of the weights; one that is not here is downloaded for as long as the context lasts."""
    if not name.startswith("models:") and Path(name).exists():
        yield _local_weights(Path(name))
        return
    with TemporaryDirectory() as directory:
        if registered := REGISTERED.fullmatch(name):
            yield _download_registered(registered, tracking_uri, directory)
        elif RUN_ID.fullmatch(name):
            yield _download_of_run(name, tracking_uri, directory)
        else:
            raise ValueError(
                "MODEL must be models:/NAME@ALIAS or models:/NAME/VERSION, the id of a run (32 hex digits), or a model "
                f"file or directory, but got {name!r}, which is not here either"
            )


def _local_weights(path: Path) -> Path:
    """A file itself; in a directory, what training or MLflow stores there."""
    if path.is_file():
        return path
    places = (path / Artifact.MODEL, path / ARTIFACTS / Artifact.MODEL)
    for place in places:
        if place.is_file():
            return place
    raise ValueError(f"{path} holds no {Artifact.MODEL}, nor does {ARTIFACTS}/ in it; name another MODEL")


def _download_registered(model: re.Match[str], tracking_uri: str, directory: str) -> Path:
    client = open_existing(tracking_uri)
    name, alias, version = model["name"], model["alias"], model["version"]
    try:
        found = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, version)
    except MlflowException as error:
        if not is_refusal(error):
            raise
        names = sorted(each.name for each in client.search_registered_models())
        known = f"{', '.join(names) or 'none'}{did_you_mean(name, names)}"
        raise ValueError(f"there is no {model[0]} at {redact(tracking_uri)}; models there: {known}") from None
    place = client.get_model_version_download_uri(name, found.version)
    download_artifacts(f"{place}/{ARTIFACTS}", dst_path=directory, tracking_uri=tracking_uri)
    weights = _local_weights(Path(directory))
    check_weights(weights, found.tags, f"version {found.version} of {name}")
    return weights


def _download_of_run(run_id: str, tracking_uri: str, directory: str) -> Path:
    client = open_existing(tracking_uri)
    tags = require_run(client, run_id).data.tags
    weights = Path(directory) / Artifact.MODEL
    try:
        write_atomically(weights, read_artifact(client, run_id, Artifact.MODEL))
    except ValueError as error:
        rule = "a run has weights if it reached its last step and is among the sweep's best tracking.keep_models"
        raise ValueError(f"{error}; {rule}") from None
    check_weights(weights, tags, f"run {run_id}")
    return weights


def _stored_size(weights: Path) -> tuple[int, int] | None:
    """(H, W) that a promoted model has beside its weights; models of versions before 0.2 have it only there."""
    path = weights.with_name(SIZE_FILE)
    if not path.is_file():
        return None
    try:
        size = json.loads(path.read_text())
        return int(size["height"]), int(size["width"])
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{SIZE_FILE} beside it must hold height and width, but does not") from None
