"""What does not fit together in a sweep is said where its YAML has it."""

from __future__ import annotations

from typing import Any

import pytest
from sweeps import SPACE, points_alone, problems, sweep_data, trial_data

from search.config.load import parse_sweep


def test_a_mistake_in_the_space_is_not_blamed_on_the_base_too() -> None:
    data = sweep_data(space={"loss.kl.sigma": {"low": 1, "high": 0.1}})
    assert [path for path, _ in problems(data)] == ["space.loss.kl.sigma"]
    data = sweep_data(space=SPACE | {"model.width": []}, points={"a": {"model.width": 8}})
    assert [path for path, _ in problems(data)] == ["space.model.width"]
    data = sweep_data(space={"loss.kl": {"one_of": {"fixd": {}}}}, points={"a": {"loss.kl.sigma": 0.1}})
    assert [path for path, _ in problems(data)] == ["space.loss.kl.one_of.fixd"]


def test_a_nested_space_hides_no_error_of_the_base() -> None:
    data = sweep_data(base=trial_data() | {"loss": {"kl": {"control": "fixed"}, "typo": 1}})
    data["space"] = {"loss": {"kl": {"sigma": [0.1, 0.2]}}}
    [(where, message)] = problems(data)
    assert where == "base.loss.typo"
    assert message.startswith("is not a key here; the keys here are adversarial, ")


def test_what_only_some_combinations_break_is_found() -> None:
    data = sweep_data(base=trial_data())  # beta in the base, sigma in the space: both, when the branch is the base's
    assert problems(data) == [
        ("space.loss.kl.one_of.fixed", "exactly one of beta and sigma must be given, but got beta and sigma")
    ]


def test_a_choice_that_asks_for_what_the_base_does_not_give_is_named() -> None:
    data = sweep_data(base=trial_data(), space={"loss.kl.control": ["capacity"], "loss.kl.ramp": [1]})
    data["base"]["loss"]["kl"] = {"gamma_sigma": 0.1}
    assert problems(data) == [
        (
            "base.loss.kl.capacity_max",
            "is required, but is not given, where space.loss.kl.control is capacity; give each its own settings by "
            "`loss.kl: {one_of: {capacity: {...}, ...}}` in the space",
        )
    ]


@pytest.mark.parametrize("inner", [0.5, [0, 2]])
def test_a_setting_that_the_space_gives_twice_is_named(inner: Any) -> None:
    """The later one would count, and the earlier one be searched to no effect."""
    twice = {"loss.pixel.weight": [0, 1], "loss": {"pixel": {"weight": inner}}}
    [(path, message)] = problems(sweep_data(space=SPACE | twice))
    assert path == "space.loss.pixel.weight"
    assert "twice" in message


def test_a_branch_may_give_a_setting_another_value_than_the_space_around_it() -> None:
    kl = {"one_of": {"fixed": {"sigma": 0.1}, "adaptive": {"target": 20, "rate": 0.05, "free_bits": 0.1}}}
    assert parse_sweep(sweep_data(space={"loss.kl.free_bits": [0, 0.05], "loss.kl": kl}), "sweep")


def test_misfits_that_different_combinations_have_are_all_found() -> None:
    data = sweep_data()
    data["space"] |= {"model.discriminator.norm": ["none", "batch"], "train.update": ["joint", "per_term"]}
    data["base"]["loss"] |= {"discriminator": {"r1": 1}, "generator": {"weighting": "adaptive"}}
    assert {path for path, _ in problems(data)} == {"base.loss.discriminator.r1", "space.train.update"}


def test_points_alone_may_change_any_setting() -> None:
    points = {"plain": {}, "wide": {"model.width": 16, "train.balance.equilibrium": 0.7, "train.balance.margin": 0.1}}
    sweep = parse_sweep(points_alone(**points), "sweep")
    assert sweep.trial(sweep.config.points["plain"]).train.balance is None
    wide = sweep.trial(sweep.config.points["wide"])
    assert wide.model.width == 16
    assert wide.train.balance is not None
    assert wide.train.balance.equilibrium == 0.7


def test_points_alone_may_not_replace_what_must_be_the_same_in_all_trials() -> None:
    found = dict(problems(points_alone(a={"train": {"steps": 40}}, b={"evaluate": {"every": 20}})))
    assert found.keys() == {"points.a.train", "points.b.evaluate"}
    assert found["points.a.train"] == (
        "gives train.steps too, which must be the same in all trials, so that they can be compared; name what differs "
        "below it, such as train.batch_size"
    )


def test_every_error_of_points_alone_is_found() -> None:
    points = {"a": {"model.with": 3}, "b": {"frames": "x", "loss.kl.beta": -1}, "c": {"model.encoder.norm": "btch"}}
    data = points_alone(**points)
    data["budget"]["trials"] = 4
    found = dict(problems(data))
    assert set(found) == {
        "budget.trials",
        "points.a.model.with",
        "points.b.frames",
        "points.b.loss.kl.beta",
        "points.c.model.encoder.norm",
    }


def test_an_error_of_the_base_is_said_once_not_for_every_point() -> None:
    data = points_alone(a={}, b={"model.width": 16})
    data["base"]["train"]["steps"] = 0
    assert [path for path, _ in problems(data)] == ["base.train.steps"]


def test_a_rule_about_the_base_reads_its_setting_where_others_are_wrong() -> None:
    data = sweep_data(scheduler={"name": "pbt", "every": 50, "metric": "val/pixel_mse"})
    data["base"]["evaluate"] |= {"num_test": 0}
    assert [path for path, _ in problems(data)] == ["base.evaluate.num_test", "scheduler.every"]
    data["base"]["evaluate"]["every"] = "often"
    assert [path for path, _ in problems(data)] == ["base.evaluate.every", "base.evaluate.num_test"]


def test_a_population_needs_a_parameter_that_leaves_the_state_as_it_is() -> None:
    scheduler = {"name": "pbt", "every": 100, "metric": "val/pixel_mse"}
    data = sweep_data(scheduler=scheduler, space={"loss.kl.estimator": ["batch", "full_batch"]})
    assert [message for path, message in problems(data) if path == "scheduler.name"] == [
        "pbt needs a parameter of loss or optimizer in the space that may change, which branches and "
        "loss.kl.estimator may not; add one, or choose another scheduler"
    ]


def test_a_point_that_chooses_a_branch_with_a_list_is_a_problem() -> None:
    found = problems(sweep_data(points={"a": {"loss.kl.control": ["fixed"], "loss.kl.sigma": 0.1}}))
    assert found == [("points.a.loss.kl.control", "lies outside the space: ['fixed']")]


def test_a_point_may_not_set_what_its_branch_does_not_have() -> None:
    found = problems(sweep_data(points={"mixed": {"loss.kl.control": "fixed", "loss.kl.capacity_max": 20.0}}))
    assert [path for path, _ in found] == ["points.mixed.loss.kl.capacity_max"]


def test_a_point_chooses_the_branch_of_a_setting_that_not_all_options_have() -> None:
    """Where the sampler chose another one, the value was dropped without a word."""
    [(path, message)] = problems(sweep_data(points={"open": {"loss.kl.sigma": 0.25}}))
    assert path == "points.open.loss.kl.sigma"
    assert message == "belongs to some options of loss.kl.control, so that the point must choose one"
    kl = {
        "one_of": {
            "fixed": {"sigma": 0.1, "free_bits": [0, 0.1]},
            "adaptive": {"target": 20, "rate": 0.05, "free_bits": [0, 0.1]},
        }
    }
    shared = sweep_data(space={"loss.kl": kl, "model.width": [8, 16]}, points={"open": {"loss.kl.free_bits": 0.1}})
    assert parse_sweep(shared, "sweep")
