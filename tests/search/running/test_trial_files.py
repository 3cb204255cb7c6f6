"""The state that an attempt continues from is its trial's own, or was given to it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from trials import tiny

from search.running.trial_files import adopt_state, set_aside_foreign
from vaegan_core.tensor_files import load_tensors, save_tensors


def save(path: Path, weight: float, *evaluations: int, seed: int = 0) -> None:
    tensors = {"w": torch.tensor(weight), **{f"evaluations/{step}": torch.tensor(weight) for step in evaluations}}
    save_tensors(path, tensors, {"step": 80, "config": tiny(train__seed=seed).dump()})


@pytest.mark.parametrize("own", [(), (40, 80)])
def test_another_trials_state_is_adopted_without_its_reports(own: tuple[int, ...], tmp_path: Path) -> None:
    donor, checkpoint, config = tmp_path / "adopted", tmp_path / "checkpoint", tiny(train__seed=1)
    save(donor, 2.0, 40, 60, 80)
    if own:
        save(checkpoint, 1.0, *own, seed=1)
    adopt_state(donor, checkpoint, config)
    tensors, metadata = load_tensors(checkpoint)
    assert {name: float(tensor) for name, tensor in tensors.items()} == {
        "w": 2.0,
        **{f"evaluations/{step}": 1.0 for step in own},
    }
    assert metadata["config"] == config.dump()
    assert not donor.exists()


@pytest.mark.parametrize("there", ["nothing", "its own", "another trial's", "damaged"])
def test_a_first_attempt_begins_beside_a_checkpoint_that_is_not_its_own(there: str, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    if there == "damaged":
        checkpoint.write_bytes(b"torn")
    elif there != "nothing":
        save(checkpoint, 1.0, 40, seed=1 if there == "another trial's" else 0)
    before = checkpoint.read_bytes() if checkpoint.exists() else b""
    set_aside_foreign(checkpoint, tiny())
    foreign = there in ("another trial's", "damaged")
    assert checkpoint.exists() == (there == "its own")
    aside = tmp_path / "other-checkpoint.safetensors"
    assert (aside.read_bytes() if aside.exists() else None) == (before if foreign else None), "kept"
