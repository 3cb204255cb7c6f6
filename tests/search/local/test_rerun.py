"""What a rerun on another machine can keep, and what it says."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from trials import tiny

from search.local import rerun
from search.provenance import DECIDED, describe_environment
from vaegan_core.config import TrialConfig
from vaegan_core.data.frames import FrameSet
from vaegan_core.training.machine import decided, wishing

HERE = describe_environment(tiny())["device"]
GPU = {"device": "cuda", "threads": 3, "precision": "bfloat16", "channels_last": False, "compile": False}


def prepared(
    monkeypatch: pytest.MonkeyPatch, frame_set: FrameSet, config: TrialConfig, device: str, facts: dict[str, Any] | None
) -> tuple[TrialConfig, str]:
    """Configuration and words of the rerun of a run with these tags."""
    tags = {"device": device, "frames": frame_set.fingerprint} | ({DECIDED: json.dumps(facts)} if facts else {})
    data = SimpleNamespace(tags=tags, metrics={})
    monkeypatch.setattr(rerun, "read_config", lambda *_: config)
    client: Any = SimpleNamespace(get_run=lambda _: SimpleNamespace(data=data))
    resolved, _, moved = rerun.prepare_rerun(client, "run", str(frame_set.path), None)
    return resolved, moved


@pytest.mark.parametrize(
    ("config", "facts"),
    [
        (wishing(tiny(), {}), GPU),
        (wishing(tiny(), {"device": "cuda"}), GPU),
        (wishing(tiny(), GPU), None),
    ],
    ids=["wished auto", "wished cuda", "of an older version"],
)
def test_a_trial_of_a_gpu_is_trained_again_without_one(
    monkeypatch: pytest.MonkeyPatch, frame_set: FrameSet, config: TrialConfig, facts: dict[str, Any] | None
) -> None:
    monkeypatch.setattr("vaegan_core.hardware.cpu_has_bfloat16", lambda: False)
    resolved, moved = prepared(monkeypatch, frame_set, config, "NVIDIA A100", facts)
    assert decided(resolved) == GPU | {"device": "cpu", "precision": "float32"}
    assert moved == (
        f"device name {HERE} instead of NVIDIA A100, device cpu instead of cuda, precision float32 instead of bfloat16"
    )


def test_on_the_same_machine_everything_is_as_it_was(monkeypatch: pytest.MonkeyPatch, frame_set: FrameSet) -> None:
    facts = GPU | {"device": "cpu", "precision": "float32"}
    for config, known in ((wishing(tiny(), {}), facts), (wishing(tiny(), facts), None)):
        resolved, moved = prepared(monkeypatch, frame_set, config, HERE, known)
        assert (decided(resolved), moved) == (facts, "")
