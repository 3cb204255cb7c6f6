from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from sweeps import trial_data
from trials import tiny

from vaegan_core.config.trial import TrialConfig, load_trial, parse_trial
from vaegan_core.losses.kl_control import weight_of_sigma
from vaegan_core.problems import ConfigError
from vaegan_core.strict_yaml import dump_yaml, load_yaml, parse_yaml, set_override


def problems(data: Any) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError) as caught:
        parse_trial(data)
    return caught.value.problems


# --- YAML -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("-2E+3", -2000.0),
        ("1.5", 1.5),
        (".5", 0.5),
        ("3.", 3.0),
        ("-.inf", -float("inf")),
        ("12", 12),
        ("true", True),
        ("False", False),
        ("null", None),
        ("off", "off"),
        ("yes", "yes"),
        ("none", "none"),
        ("2019-06-06", "2019-06-06"),
        ("1:99", "1:99"),
        ("'064'", "064"),
        ("0", 0),
        ("1e", "1e"),
        ("e4", "e4"),
        ("instance", "instance"),
    ],
)
def test_yaml_scalars_are_what_they_look_like(text: str, value: Any) -> None:
    parsed = parse_yaml(text)
    assert parsed == value
    assert type(parsed) is type(value)


ALIASES = "a0: &a0 [x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 12)}]\n" for level in range(1, 30)
)
"""Thirty lines that stand for 12^29 values."""


def test_yaml_anchors_and_merges() -> None:
    assert parse_yaml("a: &x {p: 1, q: 2}\nb: {<<: *x, q: 3}") == {"a": {"p": 1, "q": 2}, "b": {"p": 1, "q": 3}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "line 4: key 'c' is given twice"),
        ("a: 1\nb: [1, 2\nc: 3\n", "line 3: "),
        ("a: {{b}}\n", "line 1: a key must be a plain value"),
        ("a: !python/object:os.system x\n", "tags are not read: quote a text that begins with !"),
        ("a: 1\nb:\n  c: [1,\n  d: 2\n", "(in what begins in line 3); a bracket is not closed"),
        ("a: 1\n\tb: 2\n", "line 2: found character '\\t' that cannot start any token; indent with spaces"),
        ("a: b: c\n", "line 1: mapping values are not allowed here; quote a text that has ': ' in it"),
        ('a: 1\nb: "c\n', "line 3: found unexpected end of stream (in what begins in line 2); a quotation mark is not"),
        ("a: 1\nb: 064\n", "line 2: 064 is a number to some readers"),
        ("0411: 1\n", "line 1: 0411 is a number to some readers"),
        ("a: [1:30]\n", "line 1: 1:30 is a number to some readers"),
        ("a: 1_000\n", "line 1: 1_000 is a number to some readers"),
        ("1e5: 1\n", "line 1: the key 1e5 is read as float; quote it"),
        ("null: 1\n", "line 1: the key null is read as NoneType; quote it"),
        ("[" * 3000, "line 1: more than 50 levels inside each other"),
        ("a: &a [*a]\n", "line 1: its aliases stand for more than 100,000 values"),
        (ALIASES, "line 6: its aliases stand for more than 100,000 values"),
    ],
)
def test_yaml_errors_show_their_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "some.yaml")
    assert str(caught.value).startswith("some.yaml has 1 error:\n  ")
    assert message in str(caught.value)


def test_load_yaml_refuses_what_is_not_a_mapping_in_a_file(tmp_path: Path) -> None:
    for content, message in [("[1]", "must hold a mapping of keys, but got list"), ("", "but got nothing")]:
        (tmp_path / "x.yaml").write_text(content)
        with pytest.raises(ConfigError, match=message):
            load_yaml(tmp_path / "x.yaml")
    with pytest.raises(ConfigError, match=r"missing\.yaml has 1 error:\n  cannot be read: No such file or directory"):
        load_yaml(tmp_path / "missing.yaml")
    with pytest.raises(ConfigError, match=r"No such file or directory; did you mean .*x\.yaml\?"):
        load_yaml(tmp_path / "y.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_yaml(tmp_path)
    os.mkfifo(tmp_path / "pipe.yaml")
    for endless in (tmp_path / "pipe.yaml", Path("/dev/zero")):
        with pytest.raises(ConfigError, match="cannot be read: it is no file, but a device or a pipe"):
            load_yaml(endless)
    (tmp_path / "x.yaml").write_bytes(b"#" * 2_000_000)
    with pytest.raises(ConfigError, match="it has 2,000,000 bytes, but may have at most 1,000,000"):
        load_yaml(tmp_path / "x.yaml")
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ConfigError, match=r"cannot be read: .*utf-8"):
        load_yaml(tmp_path / "x.yaml")


# --- Overrides --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("a.b=2", {"a": {"b": 2}, "space": {"loss.kl": {"x.y": 1}}}),
        ("a.c.d=1e-3", {"a": {"b": 1, "c": {"d": 1e-3}}, "space": {"loss.kl": {"x.y": 1}}}),
        ("a=", {"a": None, "space": {"loss.kl": {"x.y": 1}}}),
        ("new={p: [1, off]}", {"a": {"b": 1}, "space": {"loss.kl": {"x.y": 1}}, "new": {"p": [1, "off"]}}),
        ("space.loss.kl=5", {"a": {"b": 1}, "space": {"loss.kl": 5}}),
        ("space.loss.kl.x.y=5", {"a": {"b": 1}, "space": {"loss.kl": {"x.y": 5}}}),
        ("space.loss.kl.x.z=5", {"a": {"b": 1}, "space": {"loss.kl": {"x.y": 1, "x": {"z": 5}}}}),
        ("space.lr.x=5", {"a": {"b": 1}, "space": {"loss.kl": {"x.y": 1}, "lr": {"x": 5}}}),
        ("a.b=x=y", {"a": {"b": "x=y"}, "space": {"loss.kl": {"x.y": 1}}}),
    ],
)
def test_set_override(assignment: str, expected: dict[str, Any]) -> None:
    data: dict[str, Any] = {"a": {"b": 1}, "space": {"loss.kl": {"x.y": 1}}}
    set_override(data, assignment)
    assert data == expected


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("a.b", "must look like key.subkey=value"),
        ("=3", "must look like key.subkey=value"),
        ("a..b=3", "must look like key.subkey=value"),
        ("a.b.c=3", "a.b.c: leads through a value that is not a mapping"),
        ("a.b=[1", "line 1: "),
    ],
)
def test_set_override_refuses(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        set_override({"a": {"b": 1}}, assignment)
    assert str(caught.value).startswith(f"override {assignment} has 1 error:\n  {message}")


# --- Trials -----------------------------------------------------------------------------------------------------------

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


def test_weight_of_sigma() -> None:
    assert weight_of_sigma(0.1, 12, 0.5) == pytest.approx(2 * 0.1**2 / (12 * 0.5))


AMBIGUOUS = (
    "1e3",
    "1.5",
    "off",
    "yes",
    "true",
    "null",
    "~",
    "1_000",
    "0o17",
    "0x1f",
    "1:30",
    "2026-01-01",
    ".inf",
    "<<",
    "=",
    "",
)


@pytest.mark.parametrize("load", [yaml.safe_load, parse_yaml])
def test_what_is_written_is_read_back_as_it_was_by_readers_of_either_yaml(load: Callable[[str], Any]) -> None:
    data = {text: [text, {"frames": text}] for text in AMBIGUOUS} | {"numbers": [1e-7, 1e30, 3, True, None, 0.1]}
    assert load(dump_yaml(data)) == data


def test_a_trial_whose_frames_look_like_a_number_is_read_back() -> None:
    config = tiny(frames="1e3")
    assert parse_trial(parse_yaml(config.to_yaml())) == config
