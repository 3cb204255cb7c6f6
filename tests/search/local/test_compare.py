"""Planted curves, compared: what differs, where first, and by how much."""

from __future__ import annotations

import pytest

from search.local.compare import Comparison, CurveDifference, Difference, compare, relative_difference

KEYS = ("latent/mean_norm", "train/discriminator_real", "train/kl", "train/pixel", "val/pixel_mse")
THEN = {(key, step): 1.0 + step / 10 for key in KEYS for step in (5, 10, 15)}


def test_equal_curves_are_identical_as_far_as_both_went() -> None:
    assert compare(THEN, dict(THEN), 15) == Comparison(15, 15, 0, None, ())
    shorter = {point: value for point, value in THEN.items() if point[1] <= 10}
    assert compare(THEN, shorter, 12) == Comparison(12, 10, 0, None, ())
    longer = THEN | {("train/kl", 20): 7.0}
    assert compare(THEN, longer, 20) == Comparison(15, 15, 0, None, ()), "nothing to compare its last step with"
    continued = {point: value for point, value in THEN.items() if point[1] > 5}
    assert compare(continued, THEN, 15) == Comparison(15, 10, 0, None, ()), "nor its first ones"
    assert compare({}, longer, 20) == Comparison(0, 0, 0, None, ())


def test_the_first_difference_is_of_the_earliest_step_and_there_of_what_is_computed_first() -> None:
    now = dict(THEN)
    for key in KEYS:
        now[key, 15] = 9.0
    for key in ("val/pixel_mse", "train/pixel", "train/discriminator_real"):
        now[key, 10] = 2.5
    found = compare(THEN, now, 15)
    assert found.first == Difference("train/discriminator_real", 10, 2.0, 2.5)
    assert found.first.in_words() == "step 10, train/discriminator_real: 2 then, 2.5 now"
    assert found.differing == 8
    keys = [curve.key for curve in found.curves]
    assert keys == ["train/discriminator_real", "train/pixel", "val/pixel_mse", "latent/mean_norm", "train/kl"]


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("latent/std", "train/discriminator_real"),
        ("train/discriminator_prior", "train/discriminator"),
        ("train/discriminator", "train/generator_recon"),
        ("discriminator/probability_real", "train/generator_recon"),
        ("train/r1", "weighted/r1"),
        ("train/feature_recon", "train/kl"),
        ("train/kl_batch", "weighted/kl"),
        ("weighted/kl", "train/autoencoder"),
        ("train/autoencoder", "gradient/decoder/pixel"),
        ("kl/beta", "val/kl"),
        ("gradient/encoder/kl", "val/active_units"),
    ],
)
def test_the_order_of_computation(first: str, then: str) -> None:
    found = compare({(first, 1): 0.0, (then, 1): 0.0}, {(first, 1): 1.0, (then, 1): 1.0}, 1)
    assert [curve.key for curve in found.curves] == [first, then]


def test_each_curve_has_its_largest_relative_difference_and_where_that_is() -> None:
    now = THEN | {("train/kl", 10): 2.0 * (1 + 1e-6), ("train/kl", 15): 2.5 * (1 - 1e-4)}
    [curve] = compare(THEN, now, 15).curves
    assert (curve.key, curve.first, curve.points, curve.at) == ("train/kl", 10, 2, 15)
    assert curve.largest == pytest.approx(1e-4, rel=1e-3)


def test_a_point_that_only_one_of_them_has_is_a_difference() -> None:
    without = {point: value for point, value in THEN.items() if point != ("train/kl", 10)}
    for before, now in ((THEN, without), (without, THEN)):
        found = compare(before, now, 15)
        assert found.first == Difference("train/kl", 10, before.get(("train/kl", 10)), now.get(("train/kl", 10)))
        assert found.curves == (CurveDifference("train/kl", 10, 1, 0.0, 10),)
        assert "no value" in found.first.in_words()


def test_curves_that_another_version_added_or_dropped_are_named_and_not_compared() -> None:
    now = {point: value for point, value in THEN.items() if point[0] != "train/kl"} | {("kl/new", 5): 1.0}
    assert compare(THEN, now, 15) == Comparison(15, 12, 0, None, (), others=("kl/new", "train/kl"))


def test_relative_differences_lie_between_0_and_2() -> None:
    assert relative_difference(0.0, 0.0) == 0.0
    assert relative_difference(0.0, 1e-30) == 1.0
    assert relative_difference(-3.0, 3.0) == 2.0
