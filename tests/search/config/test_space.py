from __future__ import annotations

import math
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FixedTrial
from sweeps import SPACE, trial_data

from search.config.space import COMBINATIONS_TRIED, Branch, Fixed, Parameter, Space, build_trial, lies_in
from search.config.space_parser import parse_space
from vaegan_core.config.loss import CapacityConfig, FixedBetaConfig
from vaegan_core.config.trial import TrialConfig
from vaegan_core.problems import ConfigError


def space_of(raw: dict[str, Any]) -> Space:
    space, problems = parse_space(raw)
    assert problems == []
    return space


@pytest.mark.parametrize(
    ("raw", "node"),
    [
        ({"train.seed": 3}, Fixed("train.seed", 3)),
        ({"train.threads": "auto"}, Fixed("train.threads", "auto")),
        ({"loss.kl.sigma": 0.1}, Fixed("loss.kl.sigma", 0.1)),
        ({"loss.pixel.weight": [0, 1]}, Parameter("loss.pixel.weight", CategoricalDistribution([0, 1]))),
        ({"loss.kl.sigma": {"low": 0.1, "high": 1}}, Parameter("loss.kl.sigma", FloatDistribution(0.1, 1.0))),
        (
            {"loss.kl.sigma": {"low": 0.1, "high": 1, "log": True}},
            Parameter("loss.kl.sigma", FloatDistribution(0.1, 1.0, log=True)),
        ),
        (
            {"loss.kl.sigma": {"low": 0, "high": 1, "step": 0.25}} | {},
            None,  # sigma must be positive
        ),
        (
            {"loss.pixel.weight": {"low": 0, "high": 1, "step": 0.25}},
            Parameter("loss.pixel.weight", FloatDistribution(0.0, 1.0, step=0.25)),
        ),
        (
            {"train.batch_size": {"low": 8, "high": 64, "step": 10}},
            Parameter("train.batch_size", IntDistribution(8, 58, step=10)),
        ),
        ({"train.batch_size": {"low": 8, "high": 64}}, Parameter("train.batch_size", IntDistribution(8, 64))),
        (
            {"model.width": {"low": 8, "high": 64, "step": 8}},
            Parameter("model.width", IntDistribution(8, 64, step=8)),
        ),
        (
            {"model.latent_dim": {"low": 8, "high": 64, "log": True}},
            Parameter("model.latent_dim", IntDistribution(8, 64, log=True)),
        ),
        ({"train.threads": {"low": 1, "high": 4}}, Parameter("train.threads", IntDistribution(1, 4))),
        (
            {"loss": {"feature": {"recon": [0.1, 1]}}},
            Parameter("loss.feature.recon", CategoricalDistribution([0.1, 1])),
        ),
        (
            {"loss": {"kl": {"sigma": {"low": 0.1, "high": 1}}}},
            Parameter("loss.kl.sigma", FloatDistribution(0.1, 1.0)),
        ),
        (
            {"loss.kl": {"one_of": {"fixed": {"sigma": 0.1}, "adaptive": None}}},
            Branch("loss.kl.control", {"fixed": (Fixed("loss.kl.sigma", 0.1),), "adaptive": ()}),
        ),
    ],
)
def test_every_kind_of_node(raw: dict[str, Any], node: Any) -> None:
    space, problems = parse_space(raw)
    if node is None:
        assert problems == [("space.loss.kl.sigma.low", "must be greater than 0, but got 0")]
    else:
        assert problems == []
        assert space.nodes == (node,)


@pytest.mark.parametrize(
    ("low", "high", "step", "end"), [(0.2, 0.3, 0.1, 0.3), (0.0, 1.0, 0.1, 1.0), (0.0, 1.0, 0.4, 0.8)]
)
def test_a_range_ends_at_its_last_step(low: float, high: float, step: float, end: float) -> None:
    space = space_of({"loss.pixel.weight": {"low": low, "high": high, "step": step}})
    assert space.nodes == (Parameter("loss.pixel.weight", FloatDistribution(low, end, step=step)),)


KL = "loss.kl"
MISTAKES: list[tuple[dict[str, Any], str, str]] = [
    ({"loss.pixl.weight": [0, 1]}, "space.loss.pixl.weight", "loss.pixl.weight; did you mean loss.pixel.weight?"),
    ({"model": {"widht": 8}}, "space.model.widht", "model.widht; did you mean width?"),
    ({"model.width": True}, "space.model.width", "must be a number, but got True"),
    ({"loss.pixel.weight": [0.5, True]}, "space.loss.pixel.weight.1", "must be a number, but got True"),
    ({"model.width": 3}, "space.model.width", "must be a multiple of 2, but got 3"),
    ({"model.width": [2, 3]}, "space.model.width.1", "must be a multiple of 2, but got 3"),
    ({"model.encoder.norm": ["batch", "bach"]}, "space.model.encoder.norm.1", "but got 'bach'; did you mean batch?"),
    ({"model.depth": {"low": 1, "high": 9}}, "space.model.depth.high", "must be less than or equal to 6, but got 9"),
    ({"train.batch_size": {"low": 2.5, "high": 9}}, "space.train.batch_size.low", "must be a valid integer"),
    ({"train.batch_size": {"low": 2, "high": 9, "step": 0.5}}, "space.train.batch_size.step", "a whole number"),
    ({"loss.pixel.weight": {"low": 1, "high": 1}}, "space.loss.pixel.weight", "low < high must hold"),
    ({"loss.pixel.weight": {"low": 2, "high": 1}}, "space.loss.pixel.weight", "but got low 2 and high 1"),
    ({"loss.pixel.weight": {"low": 0, "high": 1, "log": True}}, "space.loss.pixel.weight.low", "must be > 0 with log"),
    ({"loss.pixel.weight": {"low": 0.1, "high": 1, "log": True, "step": 0.1}}, "space.loss.pixel.weight.step",
     "cannot go with log: true"),
    ({"loss.pixel.weight": {"low": 0, "high": 1, "step": 2}}, "space.loss.pixel.weight.step", "at most high - low"),
    ({"loss.pixel.weight": {"low": 0, "high": 1, "step": 0}}, "space.loss.pixel.weight.step", "must be > 0"),
    ({"loss.pixel.weight": {"low": 0, "high": 1, "log": "yes"}}, "space.loss.pixel.weight.log", "true or false"),
    ({"loss.pixel.weight": {"low": 0}}, "space.loss.pixel.weight.high", "is required in a range"),
    ({"loss.pixel.weight": {"low": 0, "high": 1, "lag": True}}, "space.loss.pixel.weight.lag",
     "is not a key of a range; use low, high, log, step, prior; did you mean log?"),
    ({"loss.pixel.weight": {"low": False, "high": 1}}, "space.loss.pixel.weight.low", "must be a finite number"),
    ({"loss.pixel.weight": {"low": 0, "high": math.inf}}, "space.loss.pixel.weight.high", "but got inf"),
    ({"loss.pixel.weight": {"low": "0", "high": 1}}, "space.loss.pixel.weight.low", "but got '0'"),
    ({"loss.pixel.kind": {"low": 0, "high": 1}}, "space.loss.pixel.kind", "is not a number"),
    ({"frames": {"low": 0, "high": 1}}, "space.frames", "is not a number"),
    ({"train.deterministic": {"low": 0, "high": 1}}, "space.train.deterministic", "is not a number"),
    ({"loss.pixel.weight": []}, "space.loss.pixel.weight", "must list at least one value"),
    ({"loss.pixel.weight": [0, 1, 0]}, "space.loss.pixel.weight", "lists a value twice: [0, 1, 0]"),
    ({"loss.pixel.weight": [1, 1.0]}, "space.loss.pixel.weight", "lists a value twice: [1, 1.0]"),
    ({"model": 3}, "space.model", "must be a mapping of keys, but got 3"),
    ({KL: 3}, "space.loss.kl", "must be a mapping of keys, but got 3"),
    ({"model.width": {"one_of": {"a": {}}}}, "space.model.width", "has no alternatives"),
    ({"model.encoder": {"one_of": {"a": {}}}}, "space.model.encoder", "has no alternatives"),
    ({KL: {"one_of": {"fix": {}}}}, "space.loss.kl.one_of.fix", "capacity, adaptive, optimal; did you mean fixed?"),
    ({KL: {"one_of": {"fixed": {}, "fix": {}}}}, "space.loss.kl.one_of.fix", "is not one of fixed"),
    ({KL: {"one_of": ["fixed"]}}, "space.loss.kl.one_of", "must map one or more of fixed, capacity, adaptive, optimal"),
    ({KL: {"one_of": {}}}, "space.loss.kl.one_of", "must map one or more of"),
    ({KL: {"one_of": {"fixed": 3}}}, "space.loss.kl.one_of.fixed", "must map parameters to values, but got 3"),
    ({KL: {"one_of": {"fixed": {}}, "beta": 1}}, "space.loss.kl.beta", "is not a key beside one_of"),
    ({KL: {"one_of": {"fixed": {"ramp": 1}}}}, "space.loss.kl.one_of.fixed.ramp", "is not a setting of loss.kl fixed"),
    ({KL: {"one_of": {"fixed": {"control": "fixed"}}}}, "space.loss.kl.one_of.fixed.control", "is not a setting of"),
    ({KL: {"one_of": {"fixed": {"bta": 1}}}}, "space.loss.kl.one_of.fixed.bta", "no such setting of a trial"),
    ({KL: {"one_of": {"fixed": {"sigma": [-1, 1]}}}}, "space.loss.kl.one_of.fixed.sigma.0", "greater than 0"),
    ({"model.width": [8, 16], "model": {"width": [8, 32]}}, "space.model.width", "searched twice over different"),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "path", "message"), MISTAKES, ids=[f"{row[1]}: {row[2][:30]}" for row in MISTAKES])
def test_each_mistake_is_one_problem_at_its_yaml_path(raw: dict[str, Any], path: str, message: str) -> None:
    _, [(found_path, found_message)] = parse_space(raw)
    assert found_path == path
    assert message in found_message


def test_the_same_parameter_twice_is_fine_when_it_means_the_same() -> None:
    space = space_of({"model.width": [8, 16], "model": {"width": [8, 16]}})
    assert space.parameters() == {"model.width": CategoricalDistribution([8, 16])}


def test_only_the_chosen_branch_is_suggested() -> None:
    space = space_of(SPACE)
    values = space.suggest(
        FixedTrial(
            {"optimizer.autoencoder.lr": 1e-3, "model.width": 16, "loss.kl.control": "fixed", "loss.kl.sigma": 0.2}
        )
    )
    assert values == {
        "optimizer.autoencoder.lr": 1e-3,
        "model.width": 16,
        "loss.kl.control": "fixed",
        "loss.kl.sigma": 0.2,
    }
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = set()
    for _ in range(20):
        trial = study.ask()
        values = space.suggest(trial)
        control = values["loss.kl.control"]
        seen.add(control)
        inner = {"fixed": {"sigma"}, "capacity": {"capacity_max"}}[control]
        assert {name.removeprefix("loss.kl.") for name in trial.params if name.startswith("loss.kl.")} == {
            "control",
            *inner,
        }
        assert trial.params.items() <= values.items()
        assert ("loss.kl.ramp" in values) == (control == "capacity")
        assert {name: space.parameters()[name] for name in trial.params} == trial.distributions
    assert seen == {"fixed", "capacity"}


def test_every_suggestion_builds_a_trial() -> None:
    raw = SPACE | {
        "train.batch_size": {"low": 8, "high": 64, "step": 8},
        "model.latent_dim": {"low": 4, "high": 512, "log": True},
        "model": {"encoder": {"norm": ["none", "batch"]}, "discriminator": {"spectral_norm": [True, False]}},
        "loss.pixel.weight": {"low": 0, "high": 1, "step": 0.1},
        "train.ema_decay": 0.5,
    }
    space = space_of(raw)
    base = trial_data()
    del base["loss"]["kl"]["beta"]
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(300):
        values = space.suggest(study.ask())
        trial = build_trial(base, values)
        assert isinstance(trial, TrialConfig)
        assert type(values["train.batch_size"]) is int
        assert type(values["model.latent_dim"]) is int
        assert values["train.batch_size"] % 8 == 0
        assert trial.train.batch_size == values["train.batch_size"]
        assert trial.loss.kl.control == values["loss.kl.control"]
        assert trial.train.ema_decay == 0.5
        assert 0 <= trial.loss.pixel.weight <= 1
    assert base["loss"] == {"kl": {"control": "fixed"}}, "build_trial must not change the base"


def test_another_branch_than_the_bases_clears_its_keys() -> None:
    base = trial_data()
    capacity = {"loss.kl.gamma": 2.0, "loss.kl.capacity_max": 20.0, "loss.kl.ramp": 0.5, "loss.kl.control": "capacity"}
    for values in (capacity, dict(reversed(capacity.items()))):
        kl = build_trial(base, values).loss.kl
        assert kl == CapacityConfig(control="capacity", gamma=2.0, capacity_max=20.0, ramp=0.5)


def test_a_trial_changes_nothing_in_the_values_that_it_is_built_from() -> None:
    values = {"train.balance": {"equilibrium": 0.5, "margin": 0.1}, "train.balance.margin": 0.2}
    built = build_trial(trial_data(), values)
    assert built.train.balance is not None
    assert built.train.balance.margin == 0.2
    assert values["train.balance"] == {"equilibrium": 0.5, "margin": 0.1}


def test_the_same_branch_as_the_bases_keeps_its_keys() -> None:
    trial = build_trial(trial_data(), {"loss.kl.control": "fixed"})
    assert trial.loss.kl == FixedBetaConfig(control="fixed", beta=1.0)
    with pytest.raises(ConfigError, match="exactly one of beta and sigma"):
        build_trial(trial_data(), {"loss.kl.control": "fixed", "loss.kl.sigma": 0.1})


@pytest.mark.parametrize("loss", [3, [1]])
def test_a_base_without_a_mapping_where_the_space_needs_one(loss: Any) -> None:
    with pytest.raises(ConfigError, match="loss: must be a mapping of keys"):
        build_trial(trial_data() | {"loss": loss}, {"loss.pixel.weight": 1, "loss.kl.control": "fixed"})


@pytest.mark.parametrize(
    ("raw", "size"),
    [
        ({}, 1),
        ({"train.seed": 3}, 1),
        ({"model.width": [8, 16, 32], "loss.pixel.weight": [0, 1]}, 6),
        ({"train.batch_size": {"low": 8, "high": 64, "step": 8}}, 8),
        ({"model.latent_dim": {"low": 4, "high": 8, "log": True}}, 5),
        ({"loss.pixel.weight": {"low": 0, "high": 1, "step": 0.1}}, 11),
        ({"loss.kl": {"one_of": {"fixed": {"sigma": [0.1, 0.2]}, "adaptive": {"target": [1, 2, 3], "rate": 1}}}}, 5),
        ({"loss.pixel.weight": {"low": 0, "high": 1}}, math.inf),
        (SPACE, math.inf),
    ],
)
def test_size(raw: dict[str, Any], size: float) -> None:
    assert space_of(raw).size() == size


def test_the_name_that_tells_branches_apart_can_be_fixed() -> None:
    assert space_of({"loss.kl.control": "adaptive"}).nodes == (Fixed("loss.kl.control", "adaptive"),)
    _, problems = parse_space({"loss.kl.control": "adaptiv"})
    assert problems == [
        (
            "space.loss.kl.control",
            "must be 'fixed' or 'capacity' or 'adaptive' or 'optimal', but got 'adaptiv'; did you mean adaptive?",
        )
    ]


def test_combinations_are_the_same_every_time_and_reach_every_choice() -> None:
    space = space_of(SPACE)
    combinations = list(space.combinations())
    assert combinations == list(space.combinations())
    assert len(combinations) == COMBINATIONS_TRIED
    assert {values["model.width"] for values in combinations} == {8, 16}
    assert {values["loss.kl.control"] for values in combinations} == {"fixed", "capacity"}
    for values in combinations:
        assert 1e-4 <= values["optimizer.autoencoder.lr"] <= 1e-2
        assert ("loss.kl.capacity_max" in values) == (values["loss.kl.control"] == "capacity")


def test_a_space_that_searches_nothing_has_one_combination() -> None:
    assert list(space_of({}).combinations()) == [{}]
    assert list(space_of({"train.seed": 3}).combinations()) == [{"train.seed": 3}]


def test_a_branch_that_the_space_names_twice_is_chosen_once() -> None:
    kl = {"one_of": {"fixed": {"beta": 1}, "capacity": {"gamma": 1, "ramp": 1, "capacity_max": 9}}}
    for values in space_of({"loss.kl": kl, "loss": {"kl": kl}}).combinations():
        assert ("loss.kl.beta" in values) == (values["loss.kl.control"] == "fixed")
        assert ("loss.kl.ramp" in values) == (values["loss.kl.control"] == "capacity")


def test_a_control_without_settings_is_a_branch_too() -> None:
    base = trial_data()
    base["loss"] |= {"pixel": {"weight": 2.0, "kind": "log_mse"}}
    space = space_of({"loss.kl": {"one_of": {"fixed": {"beta": 1}, "optimal": {}}}})
    controls = {build_trial(base, values).loss.kl.control for values in space.combinations()}
    assert controls == {"fixed", "optimal"}


def test_lies_in() -> None:
    space = space_of(
        {
            "model.width": [8, 16],
            "loss.kl": {
                "one_of": {
                    "fixed": {"sigma": {"low": 0.1, "high": 1}, "free_bits": 0.5},
                    "capacity": {"gamma": 1, "ramp": 1, "capacity_max": 9, "free_bits": [0, 1]},
                }
            },
        }
    )
    fixed = {"model.width": 8, "loss.kl.control": "fixed", "loss.kl.sigma": 0.5}
    capacity = {"model.width": 8, "loss.kl.control": "capacity", "loss.kl.free_bits": 1}
    assert lies_in(space, fixed)
    assert lies_in(space, capacity)
    for outside in (
        fixed | {"loss.kl.sigma": 2.0},
        fixed | {"loss.kl.free_bits": 1},
        fixed | {"loss.kl.control": "adaptive"},
        fixed | {"train.seed": 1},
        {name: value for name, value in fixed.items() if name != "model.width"},
        capacity | {"loss.kl.sigma": 0.5},
    ):
        assert not lies_in(space, outside), outside
