"""The trainer: who gets which gradient, exactness, resuming, divergence, cost."""

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from trials import tiny

from vaegan_core.config.trial import TrialConfig
from vaegan_core.data.batches import as_tensor, to_images
from vaegan_core.data.frames import FrameSet
from vaegan_core.evaluation import Evaluation
from vaegan_core.metrics.frame_features import FrameFeatures
from vaegan_core.model.saved import load_model
from vaegan_core.model.sizes import check_size
from vaegan_core.tensor_files import DamagedCheckpoint, load_tensors, save_tensors
from vaegan_core.training.curves import IMAGES_PER_SECOND, LOSS_TERMS
from vaegan_core.training.resolve import resolve
from vaegan_core.training.trainer import UPDATES, Trainer

CONTROLS = {
    "fixed": {"control": "fixed", "sigma": 0.3},
    "capacity": {"control": "capacity", "gamma": 0.01, "capacity_max": 20.0, "ramp": 0.5},
    "adaptive": {"control": "adaptive", "target": 5.0, "rate": 0.1},
    "full covariance": {"control": "adaptive", "target": 5.0, "rate": 0.1, "estimator": "full_batch", "momentum": 0.5},
    "moving moments": {"control": "fixed", "beta": 0.01, "warmup": 0.5, "estimator": "batch", "momentum": 0.9},
}


def run(
    config: TrialConfig, frame_set: FrameSet, features: FrameFeatures, **options: Any
) -> tuple[Trainer, list[Evaluation]]:
    evaluations: list[Evaluation] = []
    trainer = Trainer(config, frame_set, features)
    trainer.run(evaluations.append, **options)
    return trainer, evaluations


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    modules = {"autoencoder": trainer.autoencoder, "discriminator": trainer.discriminator, "averaged": trainer.averaged}
    return {f"{name}.{key}": t for name, module in modules.items() for key, t in module.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def curve(evaluations: list[Evaluation], key: str) -> dict[int, float]:
    return {p.step: p.value for evaluation in evaluations for p in evaluation.points if p.key == key}


def points(evaluations: list[Evaluation]) -> dict[tuple[str, int], float]:
    """All that must repeat: every point but the speed."""
    found = {(p.key, p.step): p.value for e in evaluations for p in e.points}
    return {key: value for key, value in found.items() if key[0] != IMAGES_PER_SECOND}


# --- What comes out -------------------------------------------------------------------------------------------------


def test_a_training_reports_every_curve_metric_and_grid(frame_set: FrameSet, frame_features: FrameFeatures) -> None:
    _, evaluations = run(tiny(), frame_set, frame_features)
    assert [(e.step, e.outcome) for e in evaluations] == [(6, "running"), (12, "completed")]
    for term in LOSS_TERMS:
        assert list(curve(evaluations, term)) == [3, 6, 9, 12], term
    for evaluation in evaluations:
        assert {"val/pixel_mse", "val/samples_fd", "val/kl", "val/kl_per_dim"} < set(evaluation.metrics)
        assert len(evaluation.diagnoses) == 7
        assert evaluation.metrics["val/kl_per_dim"] == pytest.approx(evaluation.metrics["val/kl"] / 8)
        assert all(png.startswith(b"\x89PNG") for png in evaluation.images.values())
        assert set(evaluation.images) == {"reconstructions", "prior_samples", "fitted_samples"}
    assert Evaluation.from_bytes(evaluations[1].to_bytes()) == evaluations[1]


def test_it_learns(frame_set: FrameSet, frame_features: FrameFeatures) -> None:
    """Better than the mean training image, from twelve hundred images seen."""
    config = tiny(
        train__steps=150,
        evaluate__every=75,
        train__ema_decay=0.9,
        optimizer__autoencoder__lr=3e-3,
        model={"latent_dim": 16, "width": 8, "depth": 2, "encoder": {"norm": "batch"}, "decoder": {"norm": "group"}},
        loss__kl={"control": "fixed", "sigma": 0.1},
    )
    _, evaluations = run(config, frame_set, frame_features)
    assert evaluations[-1].metrics["val/pixel_mse"] < frame_features.baselines["mean_image_mse"]


def test_a_point_is_the_mean_over_its_window(frame_set: FrameSet, frame_features: FrameFeatures) -> None:
    _, every_step = run(tiny(train__log_every=1), frame_set, frame_features)
    _, windows = run(tiny(train__log_every=3), frame_set, frame_features)
    single = curve(every_step, "train/kl")
    for step, value in curve(windows, "train/kl").items():
        assert value == pytest.approx(sum(single[step - back] for back in range(3)) / 3, rel=1e-6)


# --- Gradients --------------------------------------------------------------------------------------------------------


def test_the_discriminators_step_leaves_the_autoencoder_alone_and_the_other_way_round(
    frame_set: FrameSet, frame_features: FrameFeatures
) -> None:
    trainer = Trainer(tiny(), frame_set, frame_features)
    x = trainer.batches[0]
    before = {name: t.clone() for name, t in weights(trainer).items()}
    trainer.update.discriminator_step(x, x.flip(3), x.flip(2), 0)  # type: ignore[attr-defined]
    after = weights(trainer)
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"discriminator"}


# --- Exactness --------------------------------------------------------------------------------------------------------


def test_same_seed_same_weights_and_another_seed_others(frame_set: FrameSet, frame_features: FrameFeatures) -> None:
    first, seen = run(tiny(), frame_set, frame_features)
    torch.randn(7)
    second, again = run(tiny(), frame_set, frame_features)
    other, _ = run(tiny(train__seed=1), frame_set, frame_features)
    assert same(weights(first), weights(second))
    assert points(seen) == points(again)
    assert not same(weights(first), weights(other))


def test_training_leaves_the_global_random_state_and_settings_alone(
    frame_set: FrameSet, frame_features: FrameFeatures
) -> None:
    torch.manual_seed(5)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    run(tiny(loss__discriminator__augment="all"), frame_set, frame_features)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


class Killed(Exception):
    pass


VARIANTS = {
    "plain": {},
    "separate streams": {"train__seeding": "separate", "loss__discriminator__augment": "all"},
    "batch norm, spectral norm, hinge": {
        "model__encoder__norm": "batch",
        "model__decoder__norm": "batch",
        "model__discriminator": {"norm": "batch", "spectral_norm": True},
        "loss__adversarial": "hinge",
    },
    "bfloat16, channels last": {"train__precision": "bfloat16", "train__channels_last": True},
    "bfloat16, channels last, simultaneous": {
        "train__precision": "bfloat16",
        "train__channels_last": True,
        "train__update": "simultaneous",
    },
    "everything random or scheduled": {
        "loss__discriminator": {"augment": "all", "r1": 1.0, "r1_every": 4},
        "loss__generator": {"weighting": "adaptive"},
        "optimizer__warmup": 0.3,
        "optimizer__decay": "cosine",
        "train__discriminator_steps": 2,
        "train__balance": {"equilibrium": 0.68, "margin": 0.4},
    },
    "resize-convolution, residual blocks and patches alone, all under spectral norm": {
        "model__decoder": {"upsampling": "resize", "residual_blocks": 1, "spectral_norm": True},
        "model__discriminator": {"residual_blocks": 2, "patch_head": True, "spectral_norm": True},
        "loss__heads": {"whole": 0.0, "patch": 1.0},
        "train__update": "simultaneous",
    },
    "the author's deterministic encoder": {
        "model__encoder": {"deterministic": True, "latent_norm": "batch", "spectral_norm": True},
        "model__decoder": {"spectral_norm": True, "activation": "leaky_relu"},
        "loss__kl": {"control": "fixed", "beta": 0.01, "estimator": "batch"},
    },
}


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("update", UPDATES)
def test_a_resumed_training_equals_an_uninterrupted_one(
    frame_set: FrameSet, frame_features: FrameFeatures, tmp_path: Path, control: str, update: str
) -> None:
    config = tiny(loss__kl=CONTROLS[control], train__update=update)
    assert_resumes_exactly(config, frame_set, frame_features, tmp_path)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_resumed_training_equals_an_uninterrupted_one_with_state_of_every_kind(
    frame_set: FrameSet, frame_features: FrameFeatures, tmp_path: Path, variant: Any
) -> None:
    assert_resumes_exactly(tiny(**VARIANTS[variant]), frame_set, frame_features, tmp_path)


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("start", [0.35, 0.75])
def test_resuming_before_or_after_the_gans_start_is_exact(
    frame_set: FrameSet, frame_features: FrameFeatures, tmp_path: Path, update: str, start: float
) -> None:
    config = tiny(loss__start=start, train__update=update, loss__discriminator={"augment": "all", "r1": 1.0})
    assert_resumes_exactly(config, frame_set, frame_features, tmp_path)


def assert_resumes_exactly(
    config: TrialConfig, frame_set: FrameSet, frame_features: FrameFeatures, tmp_path: Path
) -> None:
    whole, expected = run(config, frame_set, frame_features)
    seen: list[Evaluation] = []

    def die_after_first(evaluation: Evaluation) -> None:
        seen.append(evaluation)
        raise Killed

    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Killed):
        Trainer(config, frame_set, frame_features).run(die_after_first, checkpoint=checkpoint)
    resumed, rest = run(config, frame_set, frame_features, checkpoint=checkpoint)
    assert same(weights(whole), weights(resumed))
    assert rest[0] == seen[0], "what was reported with the checkpoint is reported again, for it may not have arrived"
    assert points(rest) == points(expected)


def test_resuming_in_a_new_process_is_exact_too(
    frame_set: FrameSet, frame_set_dir: Path, frame_features: FrameFeatures, tmp_path: Path
) -> None:
    config = tiny(frames=str(frame_set_dir), loss__kl=CONTROLS["adaptive"])
    whole, _ = run(config, frame_set, frame_features)
    checkpoint = tmp_path / "checkpoint.safetensors"

    def die(_evaluation: Evaluation) -> None:
        raise Killed

    with pytest.raises(Killed):
        Trainer(config, frame_set, frame_features).run(die, checkpoint=checkpoint)
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    script = f"""
from pathlib import Path
from vaegan_core.config.trial import load_trial
from vaegan_core.metrics.frame_features import ensure_features
from vaegan_core.data.frames import FrameSet
from vaegan_core.training.trainer import Trainer
config = load_trial({str(tmp_path / "config.yaml")!r})
frame_set = FrameSet.open(config.frames)
trainer = Trainer(config, frame_set, ensure_features(frame_set))
trainer.run(lambda evaluation: None, checkpoint=Path({str(checkpoint)!r}))
trainer.save_model(Path({str(tmp_path / "model.safetensors")!r}))
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    size = (frame_set.manifest.height, frame_set.manifest.width)
    model = load_model(tmp_path / "model.safetensors", size)
    assert same(dict(model.autoencoder.state_dict()), dict(whole.averaged.state_dict()))


def test_a_checkpoint_is_for_its_configuration_with_defaults_for_newer_keys(
    frame_set: FrameSet, frame_features: FrameFeatures, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    _, expected = run(tiny(), frame_set, frame_features, checkpoint=checkpoint)
    with pytest.raises(ValueError, match="another configuration"):
        run(tiny(train__seed=3), frame_set, frame_features, checkpoint=checkpoint)
    tensors, metadata = load_tensors(checkpoint)
    del metadata["config"]["loss"]["start"], metadata["config"]["model"]["decoder"]["upsampling"]
    save_tensors(checkpoint, tensors, metadata)
    _, again = run(tiny(), frame_set, frame_features, checkpoint=checkpoint)
    assert again == expected[-1:]


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_checkpoint_is_an_error_that_names_the_file(
    frame_set: FrameSet, frame_features: FrameFeatures, tmp_path: Path, damage: str
) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    run(tiny(), frame_set, frame_features, checkpoint=checkpoint)
    data = bytearray(checkpoint.read_bytes())
    if damage == "flip":
        data[-100] ^= 1
    checkpoint.write_bytes({"cut": data[: len(data) // 2], "flip": data, "empty": b""}[damage])
    with pytest.raises(DamagedCheckpoint, match=r"checkpoint\.safetensors"):
        run(tiny(), frame_set, frame_features, checkpoint=checkpoint)


def test_saving_replaces_the_file_in_one_go(
    frame_set: FrameSet, frame_features: FrameFeatures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    run(tiny(), frame_set, frame_features, checkpoint=checkpoint)
    before = checkpoint.read_bytes()

    def full(*_args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vaegan_core.tensor_files.os.fsync", full)
    trainer = Trainer(tiny(), frame_set, frame_features)
    with pytest.raises(OSError, match="No space left"):
        trainer.save(checkpoint, Evaluation(0, "running"))
    assert checkpoint.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.safetensors"]


# --- Divergence -------------------------------------------------------------------------------------------------------


def test_a_non_finite_loss_ends_the_training_and_names_term_and_step(
    frame_set: FrameSet, frame_features: FrameFeatures, tmp_path: Path
) -> None:
    config = tiny(optimizer__autoencoder__lr=1e6, train__steps=300, evaluate__every=150, train__log_every=10)
    checkpoint = tmp_path / "checkpoint.safetensors"
    _, evaluations = run(config, frame_set, frame_features, checkpoint=checkpoint)
    last = evaluations[-1]
    assert last.outcome == "diverged"
    assert " at step " in last.reason
    assert ("is nan" in last.reason) or ("is inf" in last.reason)
    assert last.metrics == {}
    assert all(torch.isfinite(torch.tensor(p.value)) for e in evaluations for p in e.points)
    assert not checkpoint.exists()


# --- Inputs -----------------------------------------------------------------------------------------------------------


def test_auto_is_decided_once_and_needed(frame_set: FrameSet, frame_features: FrameFeatures) -> None:
    config = tiny(train__device="auto", train__threads="auto", train__precision="auto", train__channels_last="auto")
    with pytest.raises(ValueError, match="auto"):
        Trainer(config, frame_set, frame_features)
    resolved = resolve(config, threads=1)
    assert resolved.resolved
    assert resolved.train.threads == 1
    assert resolve(resolved) == resolved


def test_frames_too_small_for_the_depth_are_an_error_with_the_key_to_change() -> None:
    config = tiny(model__depth=4)
    check_size(config, (33, 61))
    with pytest.raises(ValueError, match=r"model\.depth"):
        check_size(tiny(model__depth=5), (17, 31))


def test_batches_do_not_depend_on_how_often_they_are_asked_for(
    frame_set: FrameSet, frame_features: FrameFeatures
) -> None:
    trainer = Trainer(tiny(), frame_set, frame_features)
    forward = [trainer.batches.indices(step) for step in range(6)]
    backward = [trainer.batches.indices(step) for step in reversed(range(6))]
    assert all(torch.equal(a, b) for a, b in itertools.zip_longest(forward, reversed(backward)))


def test_the_model_file_is_the_averaged_autoencoder(
    frame_set: FrameSet, frame_features: FrameFeatures, tmp_path: Path
) -> None:
    trainer, _ = run(tiny(), frame_set, frame_features)
    trainer.save_model(tmp_path / "model.safetensors")
    model = load_model(tmp_path / "model.safetensors", (frame_set.manifest.height, frame_set.manifest.width))
    assert same(dict(model.autoencoder.state_dict()), dict(trainer.averaged.state_dict()))
    assert not model.autoencoder.training


def test_the_model_file_holds_the_density_of_z(
    frame_set: FrameSet, frame_features: FrameFeatures, tmp_path: Path
) -> None:
    """Its mean is that of the posterior means of all training frames; it is the same in a second file."""
    trainer, _ = run(tiny(), frame_set, frame_features)
    for name in ("model", "again"):
        trainer.save_model(tmp_path / f"{name}.safetensors")
    tensors, again = (load_tensors(tmp_path / f"{name}.safetensors")[0] for name in ("model", "again"))
    assert same(tensors, again)
    model = load_model(tmp_path / "model.safetensors", (frame_set.manifest.height, frame_set.manifest.width))
    with torch.inference_mode():
        mean = model.autoencoder.encoder(to_images(as_tensor(frame_set.train))).mean
    assert model.density is not None
    assert torch.allclose(model.density.means[0], mean.mean(0), atol=1e-4)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_compiled_networks_learn_the_same_and_resume_exactly(
    frame_set: FrameSet, frame_features: FrameFeatures, tmp_path: Path
) -> None:
    """With all that makes compiling hard: passes back through frozen and trained weights, R1, spectral norm."""
    own = {"model__discriminator": {"spectral_norm": True}, "loss__discriminator": {"r1": 1.0, "r1_every": 2}}
    _, eager = run(tiny(**own), frame_set, frame_features)
    _, compiled = run(tiny(**own, train__compile=True), frame_set, frame_features)
    expected = points(eager)
    found = points(compiled)
    close = [key for key in found if found[key] == pytest.approx(expected[key], rel=1e-2, abs=1e-4)]
    assert len(close) > 0.9 * len(expected)
    assert_resumes_exactly(tiny(**own, train__compile=True), frame_set, frame_features, tmp_path)


def test_a_trial_can_be_probed_step_by_step(frame_set: FrameSet, frame_features: FrameFeatures) -> None:
    """Steps that no curve point has closed are in the evaluation's points, so that any number of steps will do."""
    trainer = Trainer(tiny(), frame_set, frame_features)
    with trainer.runtime():
        trainer.train_step()
        trainer.train_step()
        evaluation = trainer.evaluate()
    assert evaluation.outcome == "running"
    assert {point.step for point in evaluation.points} == {2}
    assert set(LOSS_TERMS) < {point.key for point in evaluation.points}
