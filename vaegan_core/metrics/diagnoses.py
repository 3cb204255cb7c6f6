"""The seed's puzzles as named rules on the history of a trial's evaluations (vaegan_core/README.md, "Diagnoses").

A history holds (step, metrics) of every evaluation so far, by step: validation of the averaged weights, and the shares
of evaluation.py. "At the end" is the median over the last fifth of the points; "at 20 %" and "at half" are medians over
equally many points from there on. A rule is None where it is undefined: with fewer than five points, or when a metric
that it needs is missing at a point.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import linear_regression, median

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

KL_EXPLOSION = "kl_explosion"
DISCRIMINATOR_SATURATED = "discriminator_saturated"
PRIOR_SAMPLES_IGNORED = "prior_samples_ignored"
FEATURE_AMPLIFICATION = "feature_amplification"
LATENT_DRIFT = "latent_drift"
POSTERIOR_COLLAPSE = "posterior_collapse"
MODE_COLLAPSE = "mode_collapse"
DIAGNOSES = (
    KL_EXPLOSION,
    DISCRIMINATOR_SATURATED,
    PRIOR_SAMPLES_IGNORED,
    FEATURE_AMPLIFICATION,
    LATENT_DRIFT,
    POSTERIOR_COLLAPSE,
    MODE_COLLAPSE,
)

MIN_POINTS = 5
SEPARATED = 0.99
"""AUC at which the discriminator tells two kinds of images apart."""
SMALLEST_KL = 1e-9
"""Nats; smaller values are raised to it before the logarithm."""

History = Sequence[tuple[int, Mapping[str, float]]]


def diagnose(
    history: History, *, latent_dim: int, kl_bound: float | None = None, gan_start: float = 0.0
) -> dict[str, bool | None]:
    """Every diagnosis by name. `kl_bound`: the KL's target or final capacity in nats, if its control has one;
    `gan_start`: steps before the GAN terms act, whose evaluations say nothing of the discriminator."""
    with_gan = [(step, metrics) for step, metrics in history if step > gan_start]
    return {
        KL_EXPLOSION: kl_explosion(history, latent_dim, kl_bound),
        DISCRIMINATOR_SATURATED: discriminator_saturated(with_gan),
        PRIOR_SAMPLES_IGNORED: prior_samples_ignored(with_gan),
        FEATURE_AMPLIFICATION: feature_amplification(with_gan),
        LATENT_DRIFT: latent_drift(history),
        POSTERIOR_COLLAPSE: posterior_collapse(history),
        MODE_COLLAPSE: mode_collapse(history),
    }


def kl_explosion(history: History, latent_dim: int, kl_bound: float | None) -> bool | None:
    """The slope of log KL on log step over the last half is >= 0.2, and the KL at the end is >= 1.25 times its minimum,
    >= 0.5 nat per dimension, and > 1.2 times its bound, if it has one."""
    kl = _curve(history, KL)
    if kl is None:
        return None
    half = _index(len(kl), 2)
    steps = [math.log(step) for step, _ in history[half:]]
    slope = linear_regression(steps, [math.log(max(value, SMALLEST_KL)) for value in kl[half:]]).slope
    end = _end(kl)
    above_bound = kl_bound is None or end > 1.2 * kl_bound
    return slope >= 0.2 and end >= 1.25 * min(kl) and end >= 0.5 * latent_dim and above_bound


def discriminator_saturated(history: History) -> bool | None:
    """The AUC of real test frames against reconstructions, or against prior samples, is >= 0.99 at >= 80 % of all
    points; with binary cross-entropy or relativistic loss also D's at the end is <= 5 % of its chance value."""
    aucs = [curve for key in (AUC_RECON, AUC_PRIOR) if (curve := _curve(history, key)) is not None]
    if not aucs:
        return None
    separates = any(sum(auc >= SEPARATED for auc in curve) >= 0.8 * len(curve) for curve in aucs)
    loss = _curve(history, SHARE_DISCRIMINATOR_LOSS)
    return separates and (loss is None or _end(loss) <= 0.05)


def prior_samples_ignored(history: History) -> bool | None:
    """At the end the AUC of real frames against prior samples is >= 0.99 or their share of the decoder's gradient is
    < 2 %; and the gap of prior samples to reconstructions is >= 3 times that of fitted samples and fell by < 5 % since
    half.

    Either AUC or share may be missing.
    """
    prior, fitted = _curve(history, PRIOR_GAP), _curve(history, EXPOST_GAP)
    auc, share = _curve(history, AUC_PRIOR), _curve(history, SHARE_PRIOR_GRADIENT)
    if prior is None or fitted is None or (auc is None and share is None):
        return None
    ignored = (auc is not None and _end(auc) >= SEPARATED) or (share is not None and _end(share) < 0.02)
    return ignored and _end(prior) >= 3 * _end(fitted) and _end(prior) > 0.95 * _from(prior, 2)


def feature_amplification(history: History) -> bool | None:
    """The gain, mean squared change of features over that of pixels, is at the end >= 3 times its value at 20 %, while
    the pixel MSE rose by <= 10 %."""
    gain, mse = _curve(history, FEATURE_GAIN), _curve(history, PIXEL_MSE)
    if gain is None or mse is None or not _from(gain, 5):
        return None
    return _end(gain) >= 3 * _from(gain, 5) and _end(mse) <= 1.1 * _from(mse, 5)


def latent_drift(history: History) -> bool | None:
    """At the end |E mu| / sqrt(L) is > 0.5, or sqrt(E |z|^2 / L) is > 1.5."""
    offset, radius = _curve(history, LATENT_OFFSET), _curve(history, LATENT_RADIUS)
    if offset is None or radius is None:
        return None
    return _end(offset) > 0.5 or _end(radius) > 1.5


def posterior_collapse(history: History) -> bool | None:
    """At the end the KL is < 1 nat per image, or the MSE with another image's z is < 1.05 times the MSE.

    A deterministic encoder has no KL, and the second decides.
    """
    kl, ratio = _curve(history, KL), _curve(history, PERMUTED_MSE_RATIO)
    if ratio is None:
        return None
    return (kl is not None and _end(kl) < 1) or _end(ratio) < 1.05


def mode_collapse(history: History) -> bool | None:
    """At the end the samples' median pairwise feature distance is < 0.5 times that of real frames, or > 50 % of the
    samples are nearer to another one than all but 1 % of real frames are."""
    diversity, duplicates = _curve(history, DIVERSITY), _curve(history, DUPLICATES)
    if diversity is None or duplicates is None:
        return None
    return _end(diversity) < 0.5 or _end(duplicates) > 0.5


def _curve(history: History, key: str) -> list[float] | None:
    """The metric at every point; None if there are fewer than MIN_POINTS points, or one has no such metric."""
    if len(history) < MIN_POINTS or any(key not in metrics for _, metrics in history):
        return None
    return [metrics[key] for _, metrics in history]


def _end(curve: list[float]) -> float:
    return median(curve[-math.ceil(len(curve) / 5) :])


def _from(curve: list[float], part: int) -> float:
    """Median over a fifth of the points, the first of them where one `part`-th of the points is reached."""
    start = _index(len(curve), part)
    return median(curve[start : start + math.ceil(len(curve) / 5)])


def _index(count: int, part: int) -> int:
    """The first of `count` points with which one `part`-th of them is reached."""
    return math.ceil(count / part) - 1
