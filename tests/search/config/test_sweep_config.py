from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from sweeps import SPACE, make_sweep, points_alone, problems, sweep_data, trial_data

from search.config.load import load_sweep, parse_sweep, read_sweep
from search.config.space import Space
from vaegan_core.problems import ConfigError
from vaegan_core.strict_yaml import parse_yaml, set_override

DEMO = Path(__file__).parents[3] / "search" / "sweeps" / "demo.yaml"
TRIAL = DEMO.with_name("trial.yaml")
"""The one that is no sweep."""


def test_the_demo_loads() -> None:
    sweep = load_sweep(DEMO)
    assert sweep.rungs == (90, 270)
    assert sweep.levels == (90, 270, 810)
    assert sweep.space.priors()
    assert load_sweep(DEMO, ["budget.trials=3", "name=other"]).config.budget.trials == 3


def test_another_choice_by_an_override_says_how_the_keys_of_the_one_before_go_too() -> None:
    with pytest.raises(ConfigError) as raised:
        load_sweep(DEMO, ["scheduler.name=none"])
    [remedy] = {
        message.partition("; it belongs to another choice of scheduler; ")[2] for _, message in raised.value.problems
    }
    assert remedy == "--set 'scheduler={name: none}' replaces the whole of it"
    assert load_sweep(DEMO, ["scheduler={name: none}"]).config.scheduler.name == "none"


def test_five_mistakes_are_five_problems_at_once(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text("""
name: my sweep
base:
  frames: frames
  model: {latent_dim: 4, widht: 8, width: 8}
  loss: {kl: {control: fixed}}
  train: {steps: 480}
  evaluate: {every: 40}
space:
  optimizer.autoencoder.lr: {low: 1e-2, high: 1e-4, log: true}
  loss.kl.sigma: {low: 0.05, high: 0.6, log: true}
  loss.pixle.weight: [0, 1]
scheduler: {name: asha, min_steps: 0}
budget: {trials: 10}
""")
    with pytest.raises(ConfigError) as caught:
        load_sweep(path)
    assert str(caught.value) == (
        f"{path} has 5 errors:\n"
        "  name: must be a letter or digit (a-z, A-Z, 0-9), then these, '.', '_' and '-', but got 'my sweep'\n"
        "  scheduler.min_steps: must be greater than or equal to 1, but got 0\n"
        "  space.optimizer.autoencoder.lr: low < high must hold, but got low 0.01 and high 0.0001\n"
        "  space.loss.pixle.weight: there is no such setting of a trial: loss.pixle.weight; "
        "did you mean loss.pixel.weight?\n"
        "  base.model.widht: is not a key here; did you mean width?"
    )


def test_one_mistake_of_each_sort_gives_all_of_them_at_once(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text("""
name: all
nmae: all
base:
  model: {latent_dim: 4, width: 8, discriminator: {norm: batch}}
  loss: {kl: {control: fixed}, discriminator: {r1: 1}}
  train: {steps: 480, batch_size: 0}
  evaluate: {every: 40}
space:
  loss.kl.sigma: {low: 0.05, high: 0.6, log: true}
  loss.pixle.weight: [0, 1]
  model.depth: [3, 9]
points:
  a: {loss.kl.sigma: 1}
sampler: {name: cmaes}
scheduler: {name: median, min_steps: 480}
constraints: [val/kl <= 3]
budget: {trials: 10}
retries: -1
""")
    with pytest.raises(ConfigError) as caught:
        load_sweep(path)
    assert str(caught.value) == (
        f"{path} has 12 errors:\n"
        "  retries: must be greater than or equal to 0, but got -1\n"
        "  nmae: is not a key here; did you mean name?\n"
        "  sampler.name: cmaes has one objective, but objectives names 2\n"
        "  scheduler: metric must say which objective median looks at, because there are several\n"
        "  constraints: cannot reach sampler.name cmaes; use tpe, gp, nsga2 or nsga3\n"
        "  space.loss.pixle.weight: there is no such setting of a trial: loss.pixle.weight; "
        "did you mean loss.pixel.weight?\n"
        "  space.model.depth.1: must be less than or equal to 6, but got 9\n"
        "  base.frames: is required, but is not given\n"
        "  base.train.batch_size: must be greater than or equal to 2, but got 0\n"
        "  base.loss.discriminator.r1: is the gradient of D at one image, which batch norm mixes with the others of "
        "its batch; set r1 to 0, but got 1.0, or choose another model.discriminator.norm\n"
        "  points.a.loss.kl.sigma: lies outside the space: 1\n"
        "  scheduler.min_steps: must be less than base.train.steps, but got 480 and 480"
    )


@pytest.mark.parametrize(
    ("wrong", "left"),
    [
        ({"retries": -1}, ["sampler.name", "scheduler", "scheduler.name", "constraints"]),
        ({"objectives": []}, ["scheduler.name", "constraints"]),
        ({"constraints": ["?"]}, ["sampler.name", "scheduler", "scheduler.name"]),
        ({"sampler": {"name": "cmaes", "seed": -1}}, ["scheduler"]),
        ({"scheduler": {"name": "pbt"}}, ["sampler.name", "constraints"]),
    ],
)
def test_a_misfit_is_judged_where_the_parts_it_is_about_are_right(wrong: dict[str, Any], left: list[str]) -> None:
    misfits = {
        "constraints": ["val/kl <= 3"],
        "sampler": {"name": "cmaes"},
        "scheduler": {"name": "pbt", "every": 120},
    }
    assert [path for path, _ in problems(sweep_data(**misfits | wrong))][1:] == left


MISTAKES: list[tuple[str, str, str]] = [
    ("name=a/b", "name", "must be a letter or digit"),
    ("name=.hidden", "name", "must be a letter or digit"),
    ("nmae=x", "nmae", "is not a key here"),
    ("budget=", "budget", "must be a mapping of keys, but got None"),
    ("budget.trials=0", "budget.trials", "must be at least 1 in a sweep without questions, but got 0"),
    ("budget.hours=0", "budget.hours", "must be greater than 0, but got 0"),
    ("objectives=[val/pixel_mse, val/pixel_mse]", "objectives", "names an objective twice: val/pixel_mse"),
    ("objectives=[val/kl]", "objectives.0", "'val/aggregate_distance', but got 'val/kl'"),
    ("objectives=[]", "objectives", "must name at least one of val/pixel_mse, val/recon_fd,"),
    ("sampler.name=cma", "sampler.name", "'cmaes' or 'grid', but got 'cma'"),
    ("scheduler={name: hyperband}", "scheduler.name", "'asha', 'median', 'pbt', 'none', but got 'hyperband'"),
    ("scheduler={min_steps: 3}", "scheduler.name", "is required"),
    ("scheduler={name: none, min_steps: 3}", "scheduler.min_steps", "is not a key here"),
    ("scheduler.min_steps=480", "scheduler.min_steps", "must be less than base.train.steps, but got 480 and 480"),
    ("budget.trials=1e12", "budget.trials", "must be less than or equal to 1000000, but got 1000000000000.0"),
    ("sampler.seed=4294967296", "sampler.seed", "must be less than 4294967296, but got 4294967296"),
    ("sampler.startup_trials=1e9", "sampler.startup_trials", "must be less than or equal to 1000000, but got"),
    ("sampler.startup_trials=true", "sampler.startup_trials", "must be a valid integer, but got 'true'"),
    ("resources.cpu=true", "resources.cpu", "must be a valid integer, but got 'true'"),
    ("constraints=[val/kl_per_dm <= 1]", "constraints", "but got 'val/kl_per_dm'; did you mean val/kl_per_dim?"),
    ("constraints=[val/kl >= 2, val/kl <= 1]", "constraints", "no trial can meet both val/kl >= 2 and val/kl <= 1"),
    ("objectives=[val/pixel_mes]", "objectives.0", "but got 'val/pixel_mes'; did you mean val/pixel_mse?"),
    ("scheduler={name: ashaa}", "scheduler.name", "but got 'ashaa'; did you mean asha?"),
    ("points={a: {modle.width: 8}}", "points.a.modle.width", "did you mean model.width?"),
    ("retries=-1", "retries", "must be greater than or equal to 0, but got -1"),
    ("space=[1]", "space", "must be a mapping of keys, but got [1]"),
    ("base=3", "base", "must be a mapping of keys, but got 3"),
    ("base.model.latent_dim=0", "base.model.latent_dim", "must be greater than or equal to 1, but got 0"),
    ("base.model.extra=0", "base.model.extra", "is not a key here"),
    ("base.train=", "base.train", "must be a mapping of keys, but got None"),
    ("base.optimizer=3", "base.optimizer", "must be a mapping of keys, but got 3"),
    ("space.train.steps=[480, 960]", "space.train.steps", "must be the same in all trials"),
    ("space.train.steps=480", "space.train.steps", "must be the same in all trials"),
    ("space.model.width={low: 8, high: 64}", "space.model.width", "must be a multiple of 2"),
    ("space.loss.kl={one_of: {fixed: {}}}", "space.loss.kl.one_of.fixed", "exactly one of beta and sigma"),
    ("space.loss.kl={one_of: {fixed: {beta: 1}, adaptive: {target: 3}}}", "space.loss.kl.one_of.adaptive.rate",
     "is required"),
    ("space.loss.kl={one_of: {fixed: {ramp: 1, beta: 1}}}", "space.loss.kl.one_of.fixed.ramp",
     "is not a setting of loss.kl fixed"),
    ("space.loss.kl={one_of: {fixd: {}}}", "space.loss.kl.one_of.fixd", "is not one of fixed"),
    ("space.loss.kl={one_of: {fixed: {sigma: -1}}}", "space.loss.kl.one_of.fixed.sigma", "greater than 0"),
    ("space.loss.kl={one_of: {adaptive: {target: 1, rate: 1, beta_min: [1, 2], beta_max: [1, 2]}}}",
     "space.loss.kl.one_of.adaptive", "beta_min < beta_max must hold"),
    ("space.loss.kl={one_of: {fixed: {beta: 1}, optimal: {}}}", "space.loss.kl.one_of.optimal.control",
     "optimal needs loss.pixel.kind log_mse and loss.pixel.weight > 0"),
    ("points={a: 3}", "points.a", "must be a mapping of keys, but got 3"),
    ("points={capacity: 3}", "points.capacity", "must be a mapping of keys, but got 3"),
    ("points={a: {model.width: 12}}", "points.a.model.width", "lies outside the space: 12"),
    ("points={a: {model.width: eight}}", "points.a.model.width", "lies outside the space: 'eight'"),
    ("points={a: {loss.kl.sigma: 1}}", "points.a.loss.kl.sigma", "lies outside the space: 1"),
    ("points={a: {loss.kl.sigma: small}}", "points.a.loss.kl.sigma", "lies outside the space: 'small'"),
    ("points={a: {loss.kl.sigma: '0.1'}}", "points.a.loss.kl.sigma", "lies outside the space: '0.1'"),
    ("space.optimizer.autoencoder.lr.prior={value: '1e-3', sure: low}", "space.optimizer.autoencoder.lr.prior.value",
     "must be 0.0001 to 0.01 on a log scale, but got '1e-3'"),
    ("points={a: {loss.kl.control: adaptive}}", "points.a.loss.kl.control", "lies outside the space: 'adaptive'"),
    ("points={a: {model.widht: 8}}", "points.a.model.widht", "is not a parameter of the space"),
]  # fmt: skip


@pytest.mark.parametrize(("assignment", "path", "message"), MISTAKES, ids=[row[0] for row in MISTAKES])
def test_each_mistake_is_one_problem_at_its_yaml_path(
    assignment: str, path: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.config.space.COMBINATIONS_TRIED", 40)
    data = sweep_data()
    set_override(data, assignment)
    [(found_path, found_message)] = problems(data)
    assert found_path == path
    assert message in found_message


def test_missing_keys() -> None:
    assert problems({}) == [
        *((key, "is required, but is not given") for key in ("name", "base", "budget")),
        ("points", "must name at least one configuration where the space searches nothing"),
    ]


@pytest.mark.parametrize(
    ("given", "typed"),
    [
        ("presets.small.base.model.width=3", "--set preset=small --set base.model.width=3"),
        ("presets.v1.5.budget.trials= 3", "--set preset=v1.5 --set budget.trials=3"),
        ("presets.small={name: a}", "--set preset=small --set KEY=VALUE"),
        ("presets=1", "--set KEY=VALUE"),
        (
            "presets.smal.name=a b",
            "--set 'name=a b' (this file has the presets small, v1.5; did you mean small?)",
        ),
    ],
)
def test_an_override_of_a_preset_is_refused_with_what_to_type(tmp_path: Path, given: str, typed: str) -> None:
    """It was called no key, with resources as the nearest, since presets are applied before."""
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(sweep_data(presets={"small": {"name": "a"}, "v1.5": {"name": "b"}})))
    for overrides in ([given], ["preset=small", given]):
        with pytest.raises(ConfigError, match=f"{re.escape(f'changes instead: {typed}')}$"):
            load_sweep(path, overrides)


def test_an_override_of_a_preset_in_a_file_without_any_proposes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(sweep_data()))
    with pytest.raises(ConfigError) as caught:
        load_sweep(path, ["presets.a.b=1"])
    assert caught.value.problems == [("presets.a.b", "is part of a preset, but this file has no presets")]


def test_a_preset_changes_the_file_and_set_still_wins(tmp_path: Path) -> None:
    data = points_alone(a={}) | {"presets": {"small": {"base.model.width": 2, "base.train.steps": 40}}}
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(data))
    assert load_sweep(path).trial({}).model.width == trial_data()["model"]["width"]
    small = load_sweep(path, ["base.train.steps=41", "preset=small"]).trial({})
    assert load_sweep(path, ["base.train.steps=41", " preset = small"]).trial({}) == small
    assert (small.model.width, small.train.steps) == (2, 41)
    with pytest.raises(ConfigError, match=r"preset: must be one of small, but got 'smal'; did you mean small\?"):
        load_sweep(path, ["preset=smal"])
    path.write_text(yaml.safe_dump(points_alone(a={})))
    with pytest.raises(ConfigError, match=r"preset: this file has no presets, but got 'small'"):
        load_sweep(path, ["preset=small"])
    path.write_text(yaml.safe_dump(data | {"presets": [1]}))
    with pytest.raises(ConfigError, match="presets: must map"):
        load_sweep(path)


def test_what_the_space_gives_may_be_left_out_of_the_base() -> None:
    data = sweep_data()
    del data["base"]["loss"], data["base"]["model"]["width"]
    assert parse_sweep(data, "sweep").trial({"loss.kl.control": "fixed", "loss.kl.beta": 1, "model.width": 8})


@pytest.mark.parametrize(
    ("min_steps", "factor", "steps", "rungs"),
    [
        (120, 2, 480, (120, 240)),
        (120, 2, 481, (120, 240, 480)),
        (1, 3, 30, (1, 3, 9, 27)),
        (479, 4, 480, (479,)),
        (100, 2, 1e3, (100, 200, 400, 800)),
    ],
)
def test_rungs(min_steps: int, factor: int, steps: int, rungs: tuple[int, ...]) -> None:
    data = sweep_data(scheduler={"name": "asha", "min_steps": min_steps, "reduction_factor": factor})
    data["base"]["train"]["steps"] = steps
    sweep = parse_sweep(data, "sweep")
    assert sweep.rungs == rungs
    assert type(sweep.steps) is int


def test_no_rungs_without_a_scheduler() -> None:
    assert make_sweep(scheduler={"name": "none"}).rungs == ()


def test_yaml_round_trip() -> None:
    sweep = make_sweep(
        points={"seed": {"loss.kl.control": "fixed", "loss.kl.sigma": 0.1}},
        space=SPACE | {"loss.kl": {"one_of": {"fixed": {"sigma": [0.1, 0.2]}}}, "train.deterministic": "off"},
        objectives=["val/layout_fd"],
    )
    for load in (yaml.safe_load, parse_yaml):
        assert parse_sweep(load(sweep.config.to_yaml()), "again") == sweep


def test_a_stored_sweep_is_read_as_it_was_parsed_without_trying_combinations(monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = make_sweep(points={"seed": {"loss.kl.control": "fixed"}}, promote={"baseline": None})
    monkeypatch.delattr(Space, "combinations")
    assert read_sweep(sweep.config.to_yaml(), "journal.db") == sweep


def test_a_stored_sweep_whose_parts_are_wrong_is_refused() -> None:
    text = make_sweep().config.to_yaml().replace("retries: 1", "retries: -1").replace("model.width", "model.widht")
    with pytest.raises(ConfigError) as caught:
        read_sweep(text, "journal.db")
    assert str(caught.value) == (
        "journal.db has 2 errors:\n"
        "  retries: must be greater than or equal to 0, but got -1\n"
        "  space.model.widht: there is no such setting of a trial: model.widht; did you mean width?"
    )


def test_missing_frames_are_one_of_the_errors_where_they_are_needed(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(sweep_data(budget={"trials": 0})))
    with pytest.raises(ConfigError) as caught:
        load_sweep(path, need_frames=True)
    assert [where for where, _ in caught.value.problems] == ["budget.trials", "base.frames"]


def test_the_hint_for_missing_frames_is_the_command_that_the_file_names(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    command = "vaegan data doom -o frames --frames 6000 --size 48x27"
    for comments, hint in (
        (f"#   {command}    (or your own)\n", f"make it with: {command}"),
        (
            "#   vaegan data doom -o frames-of-another\n",
            "make one of the size that this file is for, with vaegan data",
        ),
    ):
        path.write_text(comments + yaml.safe_dump(sweep_data()))
        with pytest.raises(ConfigError) as caught:
            load_sweep(path, need_frames=True)
        assert caught.value.problems == [("base.frames", f"no frame set at frames; {hint}")]


@pytest.mark.parametrize("path", sorted({*DEMO.parent.glob("*.yaml")} - {TRIAL}), ids=lambda path: path.stem)
def test_every_sweep_that_ships_names_the_command_that_makes_its_frames(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = path.absolute()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="make it with: vaegan data ") as caught:
        load_sweep(path, ["base.frames=" + load_sweep(path).config.base["frames"]], need_frames=True)
    assert len(caught.value.problems) == 1


def test_a_password_in_the_tracking_uri_is_refused_and_not_repeated() -> None:
    data = sweep_data(tracking={"uri": "http://someone:hunter22@example.org"})
    with pytest.raises(ConfigError) as caught:
        parse_sweep(data, "sweep")
    assert "tracking.uri: must not hold a password" in str(caught.value)
    assert "MLFLOW_TRACKING_PASSWORD" in str(caught.value)
    assert "hunter22" not in str(caught.value)
