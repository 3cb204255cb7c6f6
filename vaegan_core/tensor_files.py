"""Tensors and metadata in one safetensors file: written atomically, verified on reading, unable to execute code."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from vaegan_core.files import sync_directory
from vaegan_core.problems import reason

METADATA_SHA = "metadata_sha256"


class DamagedCheckpoint(ValueError):
    """A checkpoint that cannot be read or is not what was written; the message names the file."""


def write_atomically(path: Path, data: bytes) -> None:
    """Replaces `path` by `data` in one step: whatever happens, it holds its old content or all of the new, and the new
    once this has returned, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        sync_directory(path.parent)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Writes tensors with JSON metadata, a SHA-256 of the tensors' bytes and one of the metadata."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    text = json.dumps(dict(metadata))
    header = {"metadata": text, METADATA_SHA: _sha256(text), "sha256": _digest(plain)}
    write_atomically(path, save(plain, header))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors (on the CPU) and metadata. Raises DamagedCheckpoint when anything differs from what was written."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- not a mapping
        metadata = dict(json.loads(header["metadata"]))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise DamagedCheckpoint(f"{path} is not a readable checkpoint: {reason(error)}") from None
    _check_metadata(path, header)
    if _digest(tensors) != header.get("sha256"):
        raise DamagedCheckpoint(f"{path} is damaged: its tensors do not match the SHA-256 stored with them")
    return tensors, metadata


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata alone, without reading the tensors. Raises DamagedCheckpoint without any, or where they changed."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = file.metadata() or {}
        metadata: dict[str, Any] = json.loads(header["metadata"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise DamagedCheckpoint(f"{path} is not a readable checkpoint: {reason(error)}") from None
    _check_metadata(path, header)
    return metadata


def _check_metadata(path: Path, header: Mapping[str, str]) -> None:
    """Raises DamagedCheckpoint where the metadata are not what was written; earlier versions wrote no hash of them."""
    if METADATA_SHA in header and _sha256(header["metadata"]) != header[METADATA_SHA]:
        raise DamagedCheckpoint(f"{path} is damaged: its metadata do not match the SHA-256 stored with them")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def flatten_state(prefix: str, state: Mapping[Any, Any]) -> dict[str, Tensor]:
    """A nested state_dict as flat names; numbers become 0-d tensors. Lists are not needed and not supported."""
    flat: dict[str, Tensor] = {}
    for key, value in state.items():
        name = f"{prefix}/{key}"
        if isinstance(value, Mapping):
            flat |= flatten_state(name, value)
        elif isinstance(value, Tensor):
            flat[name] = value
    return flat


def strip_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries under `prefix/`, without it."""
    return {name[len(prefix) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(prefix + "/")}
