from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from sweeps import trial_data
from trials import tiny

from vaegan_core.config.trial import TrialConfig, load_trial, parse_trial
from vaegan_core.problems import ConfigError
from vaegan_core.strict_yaml import parse_yaml, set_override


def problems(data: Any) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError) as caught:
        parse_trial(data)
    return caught.value.problems


TABLE: list[tuple[str, str, str]] = [
    ("foo=1", "foo", "is not a key here; the keys here are frames, model, loss, optimizer, train, evaluate"),
    ("model.widht=8", "model.widht", "is not a key here; did you mean width?"),
    ("lr=1", "lr", "is not a key here; did you mean optimizer.autoencoder.lr?"),
    ("train.steps=true", "train.steps", "must be a valid integer, but got 'true'"),
    ("loss.kl.beta=false", "loss.kl.beta", "must be a valid number, but got 'false'"),
    ("train.steps=12345678901234567890", "train.steps",
     "must be less than or equal to 1000000000, but got 12345678901234567890"),
    ("model.latent_dim=1e8", "model.latent_dim", "must be less than or equal to 65536, but got 100000000.0"),
    ("train.threads=true", "train.threads", "must be 'auto' or a valid integer, but got 'true'"),
    ("model.latent_dim=0", "model.latent_dim", "must be greater than or equal to 1, but got 0"),
    ("model.latent_dim=four", "model.latent_dim", "must be a valid integer, but got 'four'"),
    ("model.width=7", "model.width", "must be a multiple of 2, but got 7"),
    ("model.depth=7", "model.depth", "must be less than or equal to 6, but got 7"),
    ("model.encoder.norm=off", "model.encoder.norm",
     "must be 'none', 'batch', 'instance', 'group' or 'layer', but got 'off'"),
    ("model.encoder.norm=Bacth", "model.encoder.norm",
     "must be 'none', 'batch', 'instance', 'group' or 'layer', but got 'Bacth'; did you mean batch?"),
    ("model=3", "model", "must be a mapping of keys, but got 3"),
    ("loss.kl=3", "loss.kl", "must be a mapping of keys, but got 3"),
    ("loss.kl={beta: 1}", "loss.kl.control", "is required, but is not given"),
    ("loss.kl.control=x", "loss.kl.control", "must be one of 'fixed', 'capacity', 'adaptive', 'optimal', but got 'x'"),
    ("loss.kl.beta=-1", "loss.kl.beta", "must be greater than or equal to 0, but got -1"),
    ("loss.kl.beta=.inf", "loss.kl.beta", "must be a finite number, but got inf"),
    ("loss.kl.sigma=1", "loss.kl", "exactly one of beta and sigma must be given, but got beta and sigma"),
    ("loss.kl.beta=", "loss.kl", "exactly one of beta and sigma must be given, but got none"),
    ("loss.kl.target=1", "loss.kl.target", "is not a key here; it belongs to another choice of loss.kl"),
    ("loss.kl={control: capacity, gamma: 1, ramp: 1}", "loss.kl.capacity_max", "is required, but is not given"),
    ("loss.kl={control: adaptive, target: 1, rate: 1, beta_min: 2, beta_max: 1}", "loss.kl",
     "beta_min < beta_max must hold, but got 2.0 and 1.0"),
    ("evaluate.num_samples=3", "evaluate.num_samples", "must be greater than or equal to 4, but got 3"),
    ("evaluate={every: 1, num_samples: 4, density_components: 5}", "evaluate.density_components",
     "must be at most evaluate.num_samples 4, as many training frames it is fitted to, but got 5"),
    ("train.threads=0", "train.threads", "must be 'auto' or greater than or equal to 1, but got 0"),
    ("train.threads=many", "train.threads", "must be 'auto' or a valid integer, but got 'many'"),
    ("train.channels_last=maybe", "train.channels_last", "must be 'auto' or a valid boolean, but got 'maybe'"),
    ("train.batch_size=2.5", "train.batch_size", "must be a valid integer, but got 2.5"),
    ("train.ema_decay=1.0", "train.ema_decay", "must be less than 1, but got 1.0"),
    ("frames=3", "frames", "must be a valid string, but got 3"),
]  # fmt: skip


@pytest.mark.parametrize(("assignment", "path", "message"), TABLE, ids=[row[0] for row in TABLE])
def test_each_mistake_is_one_error_at_its_yaml_path(assignment: str, path: str, message: str) -> None:
    data = trial_data()
    set_override(data, assignment)
    assert problems(data) == [(path, message)]


@pytest.mark.parametrize("steps", [[2, 1], [1, 1], [4], [400]])
def test_further_validations_are_ascending_steps_of_the_training(steps: list[int]) -> None:
    data = trial_data()
    data["train"]["steps"], data["evaluate"]["also_at"] = 4, steps
    assert problems(data) == [
        ("evaluate.also_at", f"must be ascending steps below train.steps 4, but got {steps}"),
    ]


def test_all_errors_at_once() -> None:
    data = trial_data()
    del data["train"]["steps"], data["frames"]
    data["loss"]["kl"]["beta"] = "much"
    with pytest.raises(ConfigError) as caught:
        parse_trial(data, "trial.yaml")
    assert str(caught.value) == (
        "trial.yaml has 3 errors:\n"
        "  frames: is required, but is not given\n"
        "  loss.kl.beta: must be a valid number, but got 'much'\n"
        "  train.steps: is required, but is not given"
    )


def test_broken_rules_stand_beside_the_errors_of_other_parts() -> None:
    data = trial_data() | {"extra": 1}
    del data["frames"]
    data["model"] |= {"encoder": {"deterministic": True, "logvar_limit": 1}, "discriminator": {"norm": "batch"}}
    data["loss"] |= {"discriminator": {"r1": 1}, "generator": {"weighting": "adaptive"}, "pixel": {"weight": 0}}
    data["loss"]["feature"] = {"recon": 0}
    data["train"]["update"] = "per_term"
    broken = ["loss.discriminator.r1", "model.encoder.deterministic", "model.encoder.logvar_limit"]
    broken += ["loss.generator.weighting", "train.update"]
    assert [path for path, _ in problems(data)] == ["frames", "extra", *broken]
    data["loss"]["pixel"] = {"weight": -1}
    assert [path for path, _ in problems(data)] == ["frames", "loss.pixel.weight", "extra", broken[2]]


def test_frozen() -> None:
    config = parse_trial(trial_data())
    with pytest.raises(ValidationError, match="frozen"):
        config.train.steps = 3


@pytest.mark.parametrize(
    "kl",
    [
        {"control": "fixed", "sigma": 0.1},
        {"control": "capacity", "gamma": 1000.0, "capacity_max": 25.0, "ramp": 0.5},
        {"control": "adaptive", "target": 30.0, "rate": 0.01, "law": "linear"},
    ],
)
def test_yaml_round_trip(kl: dict[str, Any], tmp_path: Path) -> None:
    data = trial_data()
    data["loss"]["kl"] = kl
    data["optimizer"] = {"autoencoder": {"lr": 1e-5}}
    data["train"] |= {"threads": 2, "channels_last": False}
    config = parse_trial(data)
    assert parse_trial(config.dump()) == config
    assert parse_trial(parse_yaml(config.to_yaml())) == config
    (tmp_path / "trial.yaml").write_text(config.to_yaml())
    assert load_trial(tmp_path / "trial.yaml") == config
    assert load_trial(tmp_path / "trial.yaml", ["train.steps=3"]).train.steps == 3


def test_resolved_when_nothing_is_auto() -> None:
    assert not parse_trial(trial_data()).resolved
    data = trial_data()
    data["train"] |= {"device": "cpu", "threads": 1, "precision": "float32", "channels_last": False, "compile": False}
    assert parse_trial(data).resolved
    data["train"]["threads"] = "auto"
    assert not TrialConfig.model_validate(data).resolved


def test_a_trial_whose_frames_look_like_a_number_is_read_back() -> None:
    config = tiny(frames="1e3")
    assert parse_trial(parse_yaml(config.to_yaml())) == config
