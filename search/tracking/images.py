"""Image grids in MLflow, under names that follow from run, key, step and time."""

from __future__ import annotations

import io
import uuid
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow import MlflowClient
from mlflow.tracking.multimedia import compress_image_size
from PIL import Image


def log_png(client: MlflowClient, run_id: str, png: bytes, key: str, step: int, timestamp: int) -> None:
    """Writes what MlflowClient.log_image writes (the PNG and a small copy, by key and step), but under names without
    anything random, so that logging an image again overwrites it. The run needs the tag `mlflow.loggedImages`.

    `timestamp` is Unix time in milliseconds.
    """
    same = uuid.uuid5(uuid.NAMESPACE_OID, f"{run_id} {key} {step} {timestamp}")
    stem = f"{key.replace('/', '~')}+step+{step}+timestamp+{timestamp}+{same}"
    with TemporaryDirectory() as directory:
        full, small = Path(directory) / f"{stem}.png", Path(directory) / f"{stem}+compressed.webp"
        full.write_bytes(png)
        compress_image_size(Image.open(io.BytesIO(png))).save(small)
        for path in (full, small):
            client.log_artifact(run_id, str(path), "images")
