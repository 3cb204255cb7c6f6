"""Promotions of a sweep that was planted in a store: every gate, the registry, and what stays as it was."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from promotable import OBJECTIVES, TWO_SEEDS, Planted, dump, failing
from trials import tiny

from search.names import Tag
from search.promotion import promote as module
from search.promotion import register as registering
from search.promotion.alias import Alias
from search.promotion.errors import PromotionLost
from search.promotion.stored_model import open_model
from search.tracking.reader import read_artifact
from vaegan_core.evaluation import PIXEL_MSE
from vaegan_core.problems import ConfigError


def champion(planted: Planted, model: str = "vaegan-toy", alias: str = "champion") -> str | None:
    found = Alias(planted.client, model, alias).holder()
    return None if found is None else str(found.version)


def gates_of(lines: list[str]) -> dict[str, str]:
    """What each gate said, by name: its verdict."""
    return {line[10:].partition(":")[0]: line[2:10].strip() for line in lines if line.startswith("  ")}


# --- What passes ------------------------------------------------------------------------------------------------------


def test_a_sound_trial_is_registered_with_all_that_is_known_of_it(planted: Planted) -> None:
    run_id = planted.trial(planted.sweep(), 0)
    before = planted.client.get_run(run_id).info
    said: list[str] = []
    promoted = planted.promote("toy", said)
    assert set(gates_of(said).values()) == {"pass"}
    assert list(gates_of(said)) == [
        *("completed", "weights", "diagnoses", "reproduces", "confirmed", "constraints", "baseline", "holder")
    ]
    assert "bit for bit" in next(line for line in said if "reproduces" in line)
    assert (promoted.version, promoted.moved, promoted.size) == ("1", True, (17, 31))
    version = planted.client.get_model_version_by_alias("vaegan-toy", "champion")
    assert version.run_id == run_id
    assert (
        version.tags
        | {
            "sweep": "toy",
            "vaegan.trial": "0",
            "frames": planted.trained.fingerprint,
            "objectives": ",".join(OBJECTIVES),
            "confirmed": "no",
            "forced": "no",
        }
        == version.tags
    )
    assert "Trial 0 of sweep toy" in version.description
    mlflow.set_tracking_uri(planted.uri)
    info = mlflow.models.get_model_info("models:/vaegan-toy@champion")
    assert [param.name for param in info.signature.params] == ["mode", "count", "seed", "sampler"]
    assert info.signature.inputs
    assert info.signature.outputs
    [dataset] = planted.client.get_run(run_id).inputs.dataset_inputs
    assert dataset.dataset.digest == planted.trained.fingerprint
    assert json.loads(dataset.dataset.profile)["train"] == 240
    after = planted.client.get_run(run_id).info
    assert (after.status, after.end_time) == (before.status, before.end_time)


LOAD = """
import sys
import mlflow, numpy as np
uri, frames, out = sys.argv[1:]
mlflow.set_tracking_uri(uri)
model = mlflow.pyfunc.load_model("models:/vaegan-toy@champion")
frames = np.ascontiguousarray(np.load(frames, mmap_mode="r")[-3:])
recon = model.predict(frames)
z = model.predict(frames, params={"mode": "encode"})
samples = model.predict(np.array([]), params={"mode": "sample", "count": 5, "seed": 1})
np.savez(out, recon=recon, z=z, decoded=model.predict(z, params={"mode": "decode"}), samples=samples,
         from_json=model.predict(frames.astype(int)), example=model.predict(model.input_example))
others = {name.partition(".")[0] for name in sys.modules} & {"search", "ray", "optuna"}
assert not others, others
"""


def test_the_model_loads_where_there_is_nothing_else_with_pickle_disallowed(planted: Planted, tmp_path: Path) -> None:
    planted.trial(planted.sweep(), 0)
    planted.promote("toy")
    arguments = [planted.uri, str(planted.trained.frames / "frames.npy"), str(tmp_path / "out.npz")]
    done = subprocess.run(
        [sys.executable, "-I", "-c", LOAD, *arguments],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    out = np.load(tmp_path / "out.npz")
    assert out["recon"].shape == out["decoded"].shape == (3, 17, 31, 3)
    assert np.array_equal(out["recon"], out["decoded"]), "a reconstruction is the decoded posterior mean"
    assert np.array_equal(out["recon"], out["from_json"])
    assert out["samples"].shape == (5, 17, 31, 3)
    assert out["example"].shape == (2, 17, 31, 3)
    registered = planted.client.get_model_version_download_uri("vaegan-toy", "1")
    files = Path(mlflow.artifacts.download_artifacts(registered, tracking_uri=planted.uri)).rglob("*")
    assert not [file for file in files if file.suffix in (".pkl", ".pickle", ".pt", ".pth", ".bin")]


def test_twice_changes_nothing(planted: Planted) -> None:
    planted.trial(planted.sweep(), 0)
    planted.promote("toy")
    before = dump(planted.uri)
    said: list[str] = []
    again = planted.promote("toy", said)
    assert (again.version, again.moved, again.failed) == ("1", False, [])
    assert dump(planted.uri) == before


@pytest.mark.parametrize("data", [{}, TWO_SEEDS])
def test_a_dry_run_says_all_and_changes_nothing(planted: Planted, data: dict[str, Any], tmp_path: Path) -> None:
    planted.trial(planted.sweep(**data), 0)
    before = dump(planted.uri)
    said: list[str] = []
    promoted = planted.promote("toy", said, dry_run=True)
    assert (promoted.version, promoted.failed) == (None, [])
    assert gates_of(said)["confirmed"] == ("later" if data else "pass")
    assert ("Training 2 replicates of 12 steps here" in "".join(said)) == bool(data)
    assert dump(planted.uri) == before
    assert not (tmp_path / "runs").exists()


def test_another_alias_and_model_are_moved_alone(planted: Planted) -> None:
    planted.trial(planted.sweep(), 0)
    planted.promote("toy/0", model="mine", alias="staging")
    assert champion(planted, "mine", "staging") == "1"
    assert champion(planted, "mine") is None
    assert planted.promote("toy/0", model="mine").version == "1", "the same version, since it is the same model"


@pytest.mark.parametrize("alias", ["latest", "v3", "V3", "", "a b", "a/b"])
def test_an_alias_that_mlflow_does_not_take_is_refused_first(alias: str) -> None:
    with pytest.raises(ValueError, match="--alias must be made of"):
        module.check_names(None, alias)


# --- What does not ----------------------------------------------------------------------------------------------------


def test_each_gate_that_fails_moves_nothing_and_force_says_what_it_overrode(planted: Planted) -> None:
    sweep = planted.sweep(promote={"seeds": 2, "baseline": 1e-6}, constraints=["val/kl_per_dim <= 0"])
    run_id = planted.trial(sweep, 0)
    planted.tag(run_id, mode_collapse="true", feasible="false")
    planted.client.log_metric(run_id, "final/val/ssim", 0.5, step=13)
    failed = failing(planted, "toy/0")
    assert set(failed) == {"diagnoses", "reproduces", "confirmed", "constraints", "baseline"}
    assert failed["confirmed"] == "0 of 2 fresh seeds; not trained, because a gate above has failed"
    assert failed["constraints"] == "violates val/kl_per_dim <= 0"
    assert "val/ssim" in failed["reproduces"]
    assert planted.promote("toy/0", force=True, confirm=False).version == "1"
    forced = planted.client.get_model_version("vaegan-toy", "1").tags["forced"]
    for name in failed:
        assert f"{name}: " in forced


def test_a_trial_that_did_not_complete_has_no_model_to_force(planted: Planted) -> None:
    run_id = planted.trial(planted.sweep(), 0, "diverged")
    planted.tag(run_id, reason="loss is nan at step 7")
    assert failing(planted, "toy/0", force=True) == {"completed": "diverged (loss is nan at step 7) at step 0"}


def test_damaged_and_exchanged_weights_are_refused_by_their_hash_whatever_is_forced(planted: Planted) -> None:
    run_id = planted.trial(planted.sweep(), 0)
    planted.tag(run_id, model_sha256="0" * 64)
    assert "they were damaged or exchanged" in failing(planted, force=True)["weights"]
    stored = Path(planted.client.get_run(run_id).info.artifact_uri.removeprefix("file://")) / "model.safetensors"
    stored.write_bytes(stored.read_bytes()[:-1] + b"\x00")
    assert "they were damaged or exchanged" in failing(planted, force=True)["weights"]


def test_images_are_made_of_no_weights_but_those_that_were_logged_and_registered(planted: Planted) -> None:
    run_id = planted.trial(planted.sweep(), 0)
    planted.promote("toy")
    version = planted.client.get_model_version_by_alias("vaegan-toy", "champion").version
    names = {run_id: f"run {run_id}", "models:/vaegan-toy@champion": f"version {version} of vaegan-toy"}
    for name in names:
        open_model(name, planted.uri)
    planted.tag(run_id, model_sha256="0" * 64)  # as if another trial's had taken their place, sound in themselves
    planted.client.set_model_version_tag("vaegan-toy", version, "model_sha256", "0" * 64)
    for name, whose in names.items():
        with pytest.raises(ValueError, match=f"the weights of {whose} are not those that were logged"):
            open_model(name, planted.uri)


def test_a_run_whose_weights_were_not_kept_says_which_are(planted: Planted) -> None:
    planted.trial(planted.sweep(), 0, weights=False)
    with pytest.raises(ValueError, match=r"no artifact model\.safetensors.*best tracking\.keep_models"):
        planted.promote("toy")


def test_weights_of_a_run_without_a_hash_are_not_known(planted: Planted) -> None:
    planted.client.delete_tag(planted.trial(planted.sweep(), 0), Tag.MODEL_SHA)
    assert "nobody knows whether these are its weights" in failing(planted)["weights"]


def test_without_its_frames_it_says_which_gates_that_closes_and_what_to_give(planted: Planted, tmp_path: Path) -> None:
    run_id = planted.trial(planted.sweep(**TWO_SEEDS), 0)
    planted.client.log_text(run_id, tiny(frames=str(tmp_path / "moved")).to_yaml(), "config.yaml")
    failed = failing(planted)
    place = (
        f"was trained on frames {planted.trained.fingerprint}, but there are none at {tmp_path / 'moved'}; say with "
        "--frames DIR where they are now"
    )
    assert place in failed["reproduces"]
    assert "cannot be trained without the frames" in failing(planted, force=True, dry_run=True)["confirmed"]
    assert planted.promote("toy", frames=str(planted.trained.frames), dry_run=True).failed == []
    assert planted.promote("toy", force=True).version == "1"
    mlflow.set_tracking_uri(planted.uri)
    example = mlflow.pyfunc.load_model("models:/vaegan-toy/1").input_example
    assert np.asarray(example).shape == (2, 17, 31, 3), "samples of the model's own"


def test_other_frames_and_other_bytes_under_the_same_fingerprint_are_named(planted: Planted, tmp_path: Path) -> None:
    planted.trial(planted.sweep(), 0)
    copy = tmp_path / "copy"
    shutil.copytree(planted.trained.frames, copy)
    frames = np.load(copy / "frames.npy")
    frames[3, 2, 1, 0] ^= 1
    np.save(copy / "frames.npy", frames)
    assert "frames.npy was changed or damaged" in failing(planted, frames=str(copy))["reproduces"]
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(manifest | {"sha256": _digest(frames)}))
    assert (
        f"was trained on frames {planted.trained.fingerprint}, but {copy} holds "
        in (failing(planted, frames=str(copy))["reproduces"])
    )


def _digest(frames: np.ndarray) -> str:
    import hashlib

    return hashlib.sha256(frames.tobytes()).hexdigest()


def test_mistakes_in_the_thresholds_of_a_sweep_are_named(planted: Planted) -> None:
    planted.trial(planted.sweep(promote={"seed": 3, "diagnoses": ["mode_colapse"]}), 0)
    with pytest.raises(ConfigError) as error:
        planted.promote("toy")
    assert "promote.seed: is not a key here; did you mean seeds?" in str(error.value)
    assert "did you mean mode_collapse?" in str(error.value)


# --- The holder -------------------------------------------------------------------------------------------------------


def better_by(planted: Planted, gain: float, name: str = "toy", **sweep: Any) -> str:
    """A confirmed trial that is better by `gain` on both objectives, each known to ± 0.01."""
    run_id = planted.trial(planted.sweep(name, **sweep), 0)
    planted.confirm(run_id, pixel_mse=(0.5 - gain, 0.01), layout_fd=(0.5 - gain, 0.01))
    return run_id


def test_the_holder_goes_only_for_one_that_is_better_by_more_than_noise(planted: Planted) -> None:
    for name, gain in (("first", 0.0), ("equal", 0.002), ("better", 0.1)):
        better_by(planted, gain, name)
    assert planted.promote("first", model="m").version == "1"
    assert "no more than noise from version 1" in failing(planted, "equal", model="m")["holder"]
    assert planted.promote("better", model="m").version == "2"
    assert "worse than version 2" in failing(planted, "first", model="m")["holder"]
    assert planted.promote("first", model="m", force=True).version == "1", "it is registered already"
    tags = planted.client.get_model_version("m", "1").tags
    assert tags["forced"].startswith("holder: worse than version 2")
    assert Alias(planted.client, "m", "champion").history() == ["1", "2", "1"]


def test_what_cannot_be_compared_is_left_to_a_person(planted: Planted) -> None:
    better_by(planted, 0.0, "first")
    planted.promote("first", model="m")
    better_by(planted, 0.3, "others", objectives=[PIXEL_MSE])
    assert "objectives of its sweep are others" in failing(planted, "others", model="m")["holder"]
    planted.tag(holder := planted.client.get_model_version_by_alias("m", "champion").run_id, frames="0" * 16)
    second = better_by(planted, 0.3, "second")
    assert f"it was measured on frames {'0' * 16}, this one on" in failing(planted, "second", model="m")["holder"]
    planted.tag(holder, frames=planted.client.get_run(second).data.tags["frames"], features="0" * 16)
    planted.tag(second, features="1" * 16)
    assert f"in features {'0' * 16}, this one in features 1" in failing(planted, "second", model="m")["holder"]
    planted.tag(holder, features="1" * 16)
    config = read_artifact(planted.client, holder, "config.yaml").decode()
    planted.client.log_text(holder, re.sub(r"num_samples: \d+", "num_samples: 7", config), "config.yaml")
    assert "with evaluate.num_samples 7, this one with" in failing(planted, "second", model="m")["holder"]
    planted.client.delete_run(holder)
    assert f"its run {holder} is not there any more" in failing(planted, "second", model="m")["holder"]
    assert planted.promote("second", model="m", force=True).version == "2"
    better_by(planted, 0.0, "third", promote={"seeds": 0, "baseline": None, "holder": "any"})
    assert planted.promote("third", model="m").version == "3"


def test_an_alias_that_moves_meanwhile_is_not_moved_over(planted: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    better_by(planted, 0.0)
    better_by(planted, 0.3, "other")
    planted.promote("toy", model="m", alias="first")
    register = registering.register

    def slow(*arguments: Any) -> str:
        planted.client.set_registered_model_alias("m", "champion", "1")
        return register(*arguments)

    monkeypatch.setattr(module, "register", slow)
    with pytest.raises(PromotionLost, match="moved from no version to version 1 meanwhile"):
        planted.promote("other", model="m")
    assert champion(planted, "m") == "1"
