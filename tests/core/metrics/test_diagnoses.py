"""Every rule: a history in which it holds, one in which it does not, its thresholds, and where it is undefined."""

from collections.abc import Sequence

import pytest

from vaegan_core.evaluation import (
    AUC_PRIOR,
    AUC_RECON,
    DIVERSITY,
    DUPLICATES,
    EXPOST_GAP,
    FEATURE_GAIN,
    KL,
    LATENT_OFFSET,
    LATENT_RADIUS,
    PERMUTED_MSE_RATIO,
    PIXEL_MSE,
    PRIOR_GAP,
    SHARE_DISCRIMINATOR_LOSS,
    SHARE_PRIOR_GRADIENT,
)
from vaegan_core.metrics.diagnoses import (
    DISCRIMINATOR_SATURATED,
    FEATURE_AMPLIFICATION,
    KL_EXPLOSION,
    LATENT_DRIFT,
    MIN_POINTS,
    MODE_COLLAPSE,
    POSTERIOR_COLLAPSE,
    PRIOR_SAMPLES_IGNORED,
    diagnose,
    discriminator_saturated,
    feature_amplification,
    kl_explosion,
    latent_drift,
    mode_collapse,
    posterior_collapse,
    prior_samples_ignored,
)

Points = list[tuple[int, dict[str, float]]]
POINTS = 10
HEALTHY = {
    KL: 50.0,
    PIXEL_MSE: 0.02,
    PERMUTED_MSE_RATIO: 5.0,
    LATENT_OFFSET: 0.1,
    LATENT_RADIUS: 1.0,
    PRIOR_GAP: 100.0,
    EXPOST_GAP: 80.0,
    DIVERSITY: 0.9,
    DUPLICATES: 0.02,
    AUC_RECON: 0.8,
    AUC_PRIOR: 0.9,
    FEATURE_GAIN: 4.0,
    SHARE_PRIOR_GRADIENT: 0.3,
    SHARE_DISCRIMINATOR_LOSS: 0.6,
}


def history(count: int = POINTS, **curves: float | Sequence[float]) -> Points:
    """A healthy one with some curves replaced, by the last part of their key; a number stays what it is."""
    points: Points = [(100 * (i + 1), dict(HEALTHY)) for i in range(count)]
    for name, curve in curves.items():
        (key,) = (key for key in HEALTHY if key.split("/")[1] == name)
        values = [float(curve)] * count if isinstance(curve, int | float) else curve
        for (_, metrics), value in zip(points, values, strict=True):
            metrics[key] = value
    return points


def without(points: Points, *keys: str) -> Points:
    return [(step, {key: value for key, value in metrics.items() if key not in keys}) for step, metrics in points]


def power(exponent: float, start: float = 50.0) -> list[float]:
    """start * (step / first step) ** exponent"""
    return [start * (i + 1) ** exponent for i in range(POINTS)]


# --- All of them ------------------------------------------------------------------------------------------------------


def test_a_healthy_trial_has_no_diagnosis() -> None:
    found = diagnose(history(), latent_dim=64, kl_bound=None)
    assert list(found) == [
        KL_EXPLOSION,
        DISCRIMINATOR_SATURATED,
        PRIOR_SAMPLES_IGNORED,
        FEATURE_AMPLIFICATION,
        LATENT_DRIFT,
        POSTERIOR_COLLAPSE,
        MODE_COLLAPSE,
    ]
    assert set(found.values()) == {False}


def test_everything_at_once() -> None:
    points = history(
        kl=power(0.5),
        auc_prior=1.0,
        discriminator_loss=0.0,
        prior_gap=1000,
        feature_gain=power(1),
        latent_radius=3,
        permuted_mse_ratio=1,
        duplicates=1,
    )
    assert set(diagnose(points, latent_dim=64).values()) == {True}


@pytest.mark.parametrize("count", [0, 1, MIN_POINTS - 1])
def test_a_short_history_says_nothing(count: int) -> None:
    assert set(diagnose(history(count), latent_dim=64).values()) == {None}


def test_evaluations_before_the_gan_starts_say_nothing_of_the_discriminator() -> None:
    """D tells nothing apart in the first half, for it does not train; from then on it is saturated."""
    before, after = history(10), history(20, auc_prior=1.0, discriminator_loss=0.0)[10:]
    for _, metrics in before:
        del metrics[SHARE_DISCRIMINATOR_LOSS]
    points, half = before + after, before[-1][0]
    assert diagnose(points, latent_dim=64)[DISCRIMINATOR_SATURATED] is False
    assert diagnose(points, latent_dim=64, gan_start=half)[DISCRIMINATOR_SATURATED] is True
    early = diagnose(before, latent_dim=64, gan_start=half)
    undefined = {DISCRIMINATOR_SATURATED, PRIOR_SAMPLES_IGNORED, FEATURE_AMPLIFICATION}
    assert {name for name, found in early.items() if found is None} == undefined


def test_missing_metrics_say_nothing() -> None:
    nothing: Points = [(step, {}) for step in range(1, 11)]
    assert set(diagnose(nothing, latent_dim=64).values()) == {None}
    gap = history()
    del gap[4][1][LATENT_OFFSET]
    assert latent_drift(gap) is None


def test_the_end_is_the_median_of_the_last_fifth() -> None:
    steady = [1.0] * 10
    assert latent_drift(history(15, latent_radius=[*steady, 9, 9, 9, 1, 9])) is True
    assert latent_drift(history(15, latent_radius=[*steady, 9, 9, 1, 1, 9])) is False


# --- One by one -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kl", "latent_dim", "bound", "expected"),
    [
        (power(0.37), 64, None, True),  # the author's run
        (power(0.21), 64, None, True),
        (power(0.19), 64, None, False),  # too slow
        (power(-0.5), 64, None, False),
        ([50, 50, 50, 50, 80, 80, 80, 80, 80, 80], 64, None, False),  # grew before, but not over the last half
        ([60, 40, 40, 40, 40, 42, 44, 46, 48, 49.6], 64, None, False),  # 48.8 at the end, 1.22 times the minimum
        ([60, 40, 40, 40, 40, 42, 44, 46, 50, 51], 64, None, True),  # 50.5
        (power(0.37), 220, None, True),  # 114.9 nats at the end: .52 a dimension
        (power(0.37), 240, None, False),  # .48
        (power(0.37), 64, 100.0, False),  # within 1.2 times its target
        (power(0.37), 64, 90.0, True),
        ([0.0] * 10, 64, None, False),
    ],
)
def test_kl_explosion(kl: list[float], latent_dim: int, bound: float | None, expected: bool) -> None:
    assert kl_explosion(history(kl=kl), latent_dim, bound) is expected


def test_kl_explosion_is_undefined_without_a_kl() -> None:
    assert kl_explosion(without(history(), KL), 64, None) is None


@pytest.mark.parametrize(
    ("curves", "expected"),
    [
        ({"auc_recon": 0.99, "discriminator_loss": 0.05}, True),
        ({"auc_prior": 0.99, "discriminator_loss": 0.05}, True),
        ({"auc_recon": 0.989, "auc_prior": 0.989, "discriminator_loss": 0.0}, False),
        ({"auc_recon": 1.0, "discriminator_loss": 0.051}, False),  # with binary cross-entropy not yet saturated
        ({"auc_recon": [0.5, 0.5] + [1.0] * 8, "discriminator_loss": 0.0}, True),  # at 80 % of the points
        ({"auc_recon": [0.5, 0.5, 0.5] + [1.0] * 7, "discriminator_loss": 0.0}, False),
        (  # 80 % only together
            {"auc_recon": [1.0] * 5 + [0.5] * 5, "auc_prior": [0.5] * 5 + [1.0] * 5, "discriminator_loss": 0.0},
            False,
        ),
    ],
)
def test_discriminator_saturated(curves: dict[str, float], expected: bool) -> None:
    assert discriminator_saturated(history(**curves)) is expected


def test_discriminator_saturated_without_a_loss_to_compare() -> None:
    assert discriminator_saturated(without(history(auc_recon=1), SHARE_DISCRIMINATOR_LOSS)) is True
    assert discriminator_saturated(without(history(), AUC_RECON, AUC_PRIOR)) is None


@pytest.mark.parametrize(
    ("curves", "expected"),
    [
        ({"auc_prior": 0.99, "prior_gap": 240}, True),  # three times the fitted samples'
        ({"auc_prior": 0.99, "prior_gap": 239}, False),
        ({"auc_prior": 0.98, "prior_gap": 1000}, False),
        ({"prior_gradient": 0.019, "prior_gap": 1000}, True),
        ({"prior_gradient": 0.02, "prior_gap": 1000}, False),
        ({"auc_prior": 1.0, "prior_gap": [1000.0] * 6 + [951.0] * 4}, True),  # fell by 4.9 % since half
        ({"auc_prior": 1.0, "prior_gap": [1000.0] * 6 + [950.0] * 4}, False),
        ({"auc_prior": 1.0, "prior_gap": [5000.0] * 4 + [1000.0] * 6}, True),  # what fell before half does not count
    ],
)
def test_prior_samples_ignored(curves: dict[str, float], expected: bool) -> None:
    assert prior_samples_ignored(history(**curves)) is expected


def test_prior_samples_ignored_needs_one_of_two_reasons() -> None:
    ignored = history(auc_prior=1, prior_gradient=0.0, prior_gap=1000)
    assert prior_samples_ignored(without(ignored, SHARE_PRIOR_GRADIENT)) is True
    assert prior_samples_ignored(without(ignored, AUC_PRIOR)) is True
    for missing in ((AUC_PRIOR, SHARE_PRIOR_GRADIENT), (PRIOR_GAP,), (EXPOST_GAP,)):
        assert prior_samples_ignored(without(ignored, *missing)) is None


@pytest.mark.parametrize(
    ("gain", "mse", "expected"),
    [
        ([1.0] * 8 + [15.0] * 2, 0.02, True),  # the author's
        ([1.0] * 8 + [3.0] * 2, 0.02, True),
        ([1.0] * 8 + [2.9] * 2, 0.02, False),
        ([0.1] + [1.0] * 7 + [2.9] * 2, 0.02, False),  # what was before 20 % does not count
        ([1.0] * 8 + [15.0] * 2, [0.02] * 8 + [0.0219] * 2, True),
        ([1.0] * 8 + [15.0] * 2, [0.02] * 8 + [0.0221] * 2, False),  # images grew worse too
        ([0.0] * 10, 0.02, None),  # no gain to compare with
    ],
)
def test_feature_amplification(gain: list[float], mse: float, expected: bool | None) -> None:
    assert feature_amplification(history(feature_gain=gain, pixel_mse=mse)) is expected
    assert feature_amplification(without(history(feature_gain=gain, pixel_mse=mse), FEATURE_GAIN)) is None
    assert feature_amplification(without(history(feature_gain=gain, pixel_mse=mse), PIXEL_MSE)) is None


@pytest.mark.parametrize(
    ("offset", "radius", "expected"), [(0.5, 1.5, False), (0.51, 1.0, True), (0.0, 1.51, True), (0.0, 0.2, False)]
)
def test_latent_drift(offset: float, radius: float, expected: bool) -> None:
    assert latent_drift(history(latent_offset=offset, latent_radius=radius)) is expected
    for missing in (LATENT_OFFSET, LATENT_RADIUS):
        assert latent_drift(without(history(), missing)) is None


@pytest.mark.parametrize(
    ("kl", "ratio", "expected"), [(1.0, 1.05, False), (0.99, 5.0, True), (50.0, 1.049, True), (0.0, 1.0, True)]
)
def test_posterior_collapse(kl: float, ratio: float, expected: bool) -> None:
    assert posterior_collapse(history(kl=kl, permuted_mse_ratio=ratio)) is expected


def test_posterior_collapse_of_a_deterministic_encoder() -> None:
    assert posterior_collapse(without(history(permuted_mse_ratio=1.0), KL)) is True
    assert posterior_collapse(without(history(), KL)) is False
    assert posterior_collapse(without(history(), PERMUTED_MSE_RATIO)) is None


@pytest.mark.parametrize(
    ("diversity", "duplicates", "expected"), [(0.5, 0.5, False), (0.49, 0.0, True), (1.0, 0.51, True), (0.0, 1.0, True)]
)
def test_mode_collapse(diversity: float, duplicates: float, expected: bool) -> None:
    assert mode_collapse(history(diversity=diversity, duplicates=duplicates)) is expected
    for missing in (DIVERSITY, DUPLICATES):
        assert mode_collapse(without(history(), missing)) is None
