"""Wishes and facts: what a machine decides, what it keeps of another one's decisions, and states that move."""

from pathlib import Path
from typing import Any

import pytest
import torch
from trials import tiny

from vaegan_core import hardware
from vaegan_core.data.frames import FrameSet
from vaegan_core.evaluation import Evaluation
from vaegan_core.metrics import source_classifier
from vaegan_core.metrics.frame_features import FrameFeatures
from vaegan_core.tensor_files import load_tensors, save_tensors
from vaegan_core.training.machine import DECIDED, decided, differences, wishing
from vaegan_core.training.resolve import resolve
from vaegan_core.training.trainer import Trainer

WISHING = wishing(tiny(), {})
GPU = {"device": "cuda", "threads": 3, "precision": "bfloat16", "channels_last": False, "compile": True}


def with_gpu(monkeypatch: pytest.MonkeyPatch, *, bfloat16: bool) -> None:
    """A GPU that has bfloat16, or one that PyTorch emulates it on, as on a V100 or T4."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: bfloat16 or including_emulation
    )
    monkeypatch.setattr(hardware, "cpu_has_bfloat16", lambda: False)


@pytest.mark.parametrize("bfloat16", [True, False])
def test_bfloat16_is_never_emulated(monkeypatch: pytest.MonkeyPatch, bfloat16: bool) -> None:
    with_gpu(monkeypatch, bfloat16=bfloat16)
    assert resolve(WISHING).train.precision == ("bfloat16" if bfloat16 else "float32")
    assert source_classifier._fast(torch.device("cuda"))._enabled == bfloat16


@pytest.mark.parametrize(
    ("gpu", "bfloat16", "before", "expected"),
    [
        (True, True, GPU, GPU),
        (True, False, GPU, GPU | {"precision": "float32"}),
        (False, False, GPU, GPU | {"device": "cpu", "precision": "float32"}),
        (True, True, GPU | {"device": "cpu", "precision": "float32"}, GPU | {"device": "cpu", "precision": "float32"}),
    ],
)
def test_decisions_of_before_are_kept_where_this_machine_can(
    monkeypatch: pytest.MonkeyPatch, gpu: bool, bfloat16: bool, before: dict[str, Any], expected: dict[str, Any]
) -> None:
    with_gpu(monkeypatch, bfloat16=bfloat16)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert decided(resolve(WISHING, before=before)) == expected
    assert len(differences(before, expected)) == sum(before[name] != expected[name] for name in DECIDED)


def test_what_was_asked_for_is_not_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpu(monkeypatch, bfloat16=True)
    asked = wishing(tiny(), {"device": "cpu", "threads": 2, "precision": "float32", "compile": False})
    assert decided(resolve(asked, threads=7, before=GPU)) == {
        "device": "cpu",
        "threads": 2,
        "precision": "float32",
        "channels_last": False,
        "compile": False,
    }
    assert wishing(resolve(WISHING, before=GPU), {}) == WISHING


def test_a_state_moves_to_another_device(frame_set: FrameSet, frame_features: FrameFeatures, tmp_path: Path) -> None:
    """A state as a GPU leaves it: its decisions, and a generator of 16 bytes. Two trainings go on from it alike."""
    path = tmp_path / "checkpoint.safetensors"
    stop_at_first(tiny(), frame_set, frame_features, path)
    tensors, metadata = load_tensors(path)
    metadata["config"]["train"] |= GPU
    tensors["generator"] = torch.zeros(16, dtype=torch.uint8)
    ends = []
    for _ in range(2):
        save_tensors(path, tensors, metadata)
        trainer = Trainer(tiny(), frame_set, frame_features)
        trainer.run(lambda _evaluation: None, checkpoint=path)
        assert trainer.step == trainer.config.train.steps
        ends.append(trainer.averaged.state_dict())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def stop_at_first(config: Any, frame_set: FrameSet, features: FrameFeatures, path: Path) -> None:
    class Stopped(Exception):
        pass

    def report(_evaluation: Evaluation) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        Trainer(config, frame_set, features).run(report, checkpoint=path)
