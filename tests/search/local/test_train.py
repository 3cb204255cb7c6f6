"""Which trial `vaegan train` takes from a YAML file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from sweeps import sweep_data, trial_data

from search.commands.train import default_directory, train
from search.local.train import _claim, load_single
from search.tracking.reader import open_frames
from vaegan_core.config.trial import TrialConfig, parse_trial
from vaegan_core.data.frames import MANIFEST_FILE
from vaegan_core.problems import ConfigError

FIXED = {"optimizer.autoencoder.lr": 1e-3, "model.width": 8, "loss.kl.control": "fixed", "loss.kl.sigma": 0.2}


def write(path: Path, data: object) -> Path:
    path.write_text(yaml.safe_dump(data))
    return path


def test_a_trial_or_a_point_of_a_sweep(tmp_path: Path) -> None:
    trial = write(tmp_path / "trial.yaml", trial_data())
    assert load_single(trial, ["train.steps=40"], None).train.steps == 40
    with pytest.raises(ConfigError, match="is a trial, not a sweep, so it has no points; drop --point good"):
        load_single(trial, [], "good")
    points = {"good": FIXED, "half": {"model.width": 8}}
    sweep = write(tmp_path / "sweep.yaml", sweep_data(points=points))
    config = load_single(sweep, ["base.train.steps=520"], "good")
    assert (config.model.width, config.train.steps) == (8, 520)
    with pytest.raises(ConfigError, match="train one of its points with --point; its points: good, half"):
        load_single(sweep, [], None)
    with pytest.raises(ConfigError, match="it has no point named other; its points: good, half"):
        load_single(sweep, [], "other")
    with pytest.raises(ConfigError, match=r"no point named godo; .*; did you mean good\?"):
        load_single(sweep, [], "godo")


def test_frames_that_are_missing_are_an_error_of_the_file_with_the_command_that_makes_them(tmp_path: Path) -> None:
    made = f"vaegan data doom -o {tmp_path / 'frames'} --seed 0"
    trial = write(tmp_path / "trial.yaml", trial_data() | {"frames": str(tmp_path / "frames")})
    trial.write_text(f"#   {made}\n{trial.read_text()}")
    assert load_single(trial, [], None).frames == str(tmp_path / "frames")
    with pytest.raises(ConfigError) as caught:
        load_single(trial, [], None, need_frames=True)
    assert caught.value.problems == [("frames", f"no frame set at {tmp_path / 'frames'}; make it with: {made}")]
    sweep = write(tmp_path / "sweep.yaml", sweep_data(points={"good": FIXED}))
    with pytest.raises(ConfigError, match=r"base\.frames: no frame set at "):
        load_single(sweep, [], "good", need_frames=True)


def test_what_a_point_leaves_open_is_named_with_what_to_type(tmp_path: Path) -> None:
    sweep = write(tmp_path / "sweep.yaml", sweep_data(points={"half.a": {"model.width": 8}, "half": {}}))
    given: list[str] = []
    while True:
        try:
            config = load_single(sweep, given, "half.a")
        except ConfigError as error:
            message = str(error)
            assert "Fixed" not in message
            assert "points.half.a: leaves " in message
        else:
            break
        options = re.findall(r"--set (\S+)=…", message)
        assert options
        assert not {option for option in options if any(option in each for each in given)}
        given += [f"{option}={FIXED[option.removeprefix('points.half.a.')]}" for option in options]
    assert (config.model.width, config.loss.kl.control) == (8, "fixed")


def test_frames_that_moved_are_asked_for_by_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"frames 0123456789abcdef, but there are none at .*moved; say with --frames"):
        open_frames(str(tmp_path / "moved"), "run", "0123456789abcdef")


@pytest.mark.parametrize("name", ["seed 1", "a/../../../../esc", "..", "/etc/x"])
def test_a_training_stays_below_runs_whatever_its_point_is_called(name: str) -> None:
    path = default_directory(name)
    assert path.parent == Path("runs/trials")
    assert ".." not in path.parts


def test_a_directory_with_other_files_is_refused_and_one_with_a_training_says_how_to_go_on(tmp_path: Path) -> None:
    config = parse_trial(trial_data())
    (tmp_path / "model.safetensors").write_text("precious")
    with pytest.raises(ValueError, match=r"--output must be a new or empty directory, but .* holds files"):
        _claim(config, tmp_path, resume=False)
    assert (tmp_path / "model.safetensors").read_text() == "precious"
    _claim(config, tmp_path / "new", resume=False)
    (tmp_path / "new" / "driver.lock").touch()
    with pytest.raises(ValueError, match=r"already holds a training; .* continue it with --resume"):
        _claim(config, tmp_path / "new", resume=False)


@pytest.mark.parametrize("begun", [True, False])
def test_how_to_continue_is_said_of_what_was_begun_alone(
    begun: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(config: TrialConfig, directory: Path, **_: object) -> None:
        if begun:
            _claim(config, directory, resume=False)
        raise KeyboardInterrupt

    monkeypatch.setattr("search.local.train.train_single", interrupted)
    (tmp_path / MANIFEST_FILE).touch()
    trial = write(tmp_path / "trial.yaml", trial_data() | {"frames": str(tmp_path)})
    with pytest.raises(KeyboardInterrupt):
        train(trial, output=tmp_path / "out")
    said = capsys.readouterr().out
    assert ("--resume --output" in said) == begun
