"""Tensors and metadata in one file: whatever was changed in it is noticed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from vaegan_core.tensor_files import DamagedCheckpoint, load_tensors, read_metadata, save_tensors

TENSORS = {"a": torch.arange(6.0).reshape(2, 3)}
METADATA = {"step": 7, "config": {"model": {"latent_dim": 4}}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_tensors(tmp_path / "model.safetensors", TENSORS, METADATA)
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("read", [load_tensors, read_metadata])
@pytest.mark.parametrize(("was", "now"), [(b'step\\": 7', b'step\\": 8'), (b"latent_dim", b"latent_din")])
def test_metadata_that_were_changed_are_damage(path: Path, read: Callable[[Path], Any], was: bytes, now: bytes) -> None:
    """Those beside intact tensors were believed: a step to resume at, a model's activations, a frame set's floor."""
    before = path.read_bytes()
    path.write_bytes(before.replace(was, now))
    assert path.read_bytes() != before
    with pytest.raises(
        DamagedCheckpoint, match=r"model\.safetensors is damaged: its metadata do not match the SHA-256"
    ):
        read(path)


def test_a_file_of_an_earlier_version_has_no_sha256_of_its_metadata_and_is_read(path: Path) -> None:
    with safe_open(path, framework="pt") as file:
        header = {name: file.metadata()[name] for name in ("metadata", "sha256")}
    save_file(TENSORS, path, header)
    tensors, metadata = load_tensors(path)
    assert torch.equal(tensors["a"], TENSORS["a"])
    assert metadata == read_metadata(path) == METADATA
