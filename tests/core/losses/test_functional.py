"""Every formula against an independent float64 computation."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from vaegan_core.config.loss import DiscriminatorLossConfig, FixedBetaConfig, HeadsConfig, LossConfig
from vaegan_core.losses.functional import (
    ADVERSARIAL_LOSSES,
    adaptive_weight,
    bce_chance_loss,
    feature_matching_loss,
    feature_scale,
    free_bits,
    gaussian_kl_divergence,
    gradient_penalty,
    kl_of_moments,
    kl_per_dimension,
    moment_matching_loss,
    pixel_loss,
)
from vaegan_core.losses.terms import LossTerms
from vaegan_core.model.networks import Posterior

RNG = np.random.default_rng(0)


def test_kl_of_the_prior_itself_is_zero() -> None:
    zeros = torch.zeros(3, 5)
    assert gaussian_kl_divergence(Posterior(zeros, zeros)).item() == 0.0


def test_kl_is_summed_over_latent_dimensions_and_averaged_over_the_batch() -> None:
    mean, logvar = RNG.normal(size=(7, 4)), RNG.normal(size=(7, 4))
    std = np.exp(0.5 * logvar)
    # KL(N(m, s^2) || N(0, 1)) = -log s + (s^2 + m^2) / 2 - 1/2, by dimension
    expected = (-np.log(std) + (std**2 + mean**2) / 2 - 0.5).sum(1).mean()
    posterior = Posterior(torch.tensor(mean), torch.tensor(logvar))
    assert gaussian_kl_divergence(posterior).item() == pytest.approx(expected, rel=1e-12)


def test_kl_agrees_with_a_monte_carlo_estimate() -> None:
    mean, std = 0.7, 0.4
    z = mean + std * np.random.default_rng(1).normal(size=400_000)
    log_q = -0.5 * ((z - mean) / std) ** 2 - math.log(std)
    log_p = -0.5 * z**2
    posterior = Posterior(torch.tensor([[mean]]), torch.tensor([[2 * math.log(std)]]))
    assert gaussian_kl_divergence(posterior).item() == pytest.approx(float((log_q - log_p).mean()), rel=5e-3)


@pytest.mark.parametrize(
    ("name", "real", "fake", "generator"),
    [
        (
            "bce",
            lambda d: -np.log(1 / (1 + np.exp(-d))),
            lambda d: -np.log(1 - 1 / (1 + np.exp(-d))),
            lambda d: -np.log(1 / (1 + np.exp(-d))),
        ),
        ("relativistic", lambda d: np.log1p(np.exp(-d)), lambda d: np.log1p(np.exp(d)), lambda d: np.log1p(np.exp(-d))),
        ("hinge", lambda d: np.maximum(0, 1 - d), lambda d: np.maximum(0, 1 + d), lambda d: -d),
        ("lsgan", lambda d: (d - 1) ** 2 / 2, lambda d: d**2 / 2, lambda d: (d - 1) ** 2 / 2),
    ],
)
def test_adversarial_losses(name: str, real: Any, fake: Any, generator: Any) -> None:
    logits = RNG.normal(size=11) * 2
    loss = ADVERSARIAL_LOSSES[name]
    assert loss.real(torch.tensor(logits)).item() == pytest.approx(real(logits).mean(), rel=1e-10)
    assert loss.fake(torch.tensor(logits)).item() == pytest.approx(fake(logits).mean(), rel=1e-10)
    assert loss.generator(torch.tensor(logits)).item() == pytest.approx(generator(logits).mean(), rel=1e-10)


def test_bce_stays_finite_where_a_naive_sigmoid_overflows() -> None:
    logits = torch.tensor([-200.0, 200.0])
    assert ADVERSARIAL_LOSSES["bce"].real(logits).item() == pytest.approx(100.0)
    assert ADVERSARIAL_LOSSES["bce"].fake(logits).item() == pytest.approx(100.0)


def test_feature_loss_is_a_mean_and_its_scale_free_form_does_not_depend_on_units() -> None:
    real, other = RNG.normal(size=(6, 3, 4, 5)), RNG.normal(size=(6, 3, 4, 5))
    expected = ((other - real) ** 2).mean() / real.var(axis=(0, 2, 3)).mean()
    losses = []
    for unit in (1.0, 1000.0):
        features, real_features = torch.tensor(other * unit), torch.tensor(real * unit)
        losses.append(feature_matching_loss(features, real_features, feature_scale(real_features, True)).item())
    assert losses == pytest.approx([expected, expected], rel=1e-6)
    assert feature_matching_loss(torch.tensor(other), torch.tensor(real), 1.0).item() == pytest.approx(
        ((other - real) ** 2).mean()
    )


def test_a_feature_scale_is_one_unless_asked_for_and_never_zero() -> None:
    constant = torch.full((2, 3, 4, 4), 0.7)
    assert feature_scale(constant, False) == 1.0
    assert 0 < float(feature_scale(constant, True)) < 1e-6


def test_the_feature_scale_carries_no_gradient() -> None:
    features = torch.randn(2, 3, 4, 4, requires_grad=True)
    scale = feature_scale(features, True)
    assert isinstance(scale, torch.Tensor)
    assert not scale.requires_grad


def test_pixel_losses() -> None:
    x, y = RNG.normal(size=(2, 3, 4, 4)), RNG.normal(size=(2, 3, 4, 4))
    tensors = torch.tensor(y), torch.tensor(x)
    assert pixel_loss(*tensors, "mse", None).item() == pytest.approx(((x - y) ** 2).mean())
    assert pixel_loss(*tensors, "mse", 0.25).item() == pytest.approx(((x - y) ** 2).mean() / 0.25)
    assert pixel_loss(*tensors, "l1", None).item() == pytest.approx(np.abs(x - y).mean())
    assert pixel_loss(*tensors, "l1", 0.25).item() == pytest.approx(np.abs(x - y).mean() / 0.5)


def test_the_logarithm_of_the_squared_error_is_shifted_by_that_of_the_variance() -> None:
    x, y = torch.tensor(RNG.normal(size=(2, 3, 4, 4))), torch.tensor(RNG.normal(size=(2, 3, 4, 4)))
    mse = ((x - y) ** 2).mean().item()
    assert pixel_loss(y, x, "log_mse", None).item() == pytest.approx(math.log(mse))
    assert pixel_loss(y, x, "log_mse", 0.25).item() == pytest.approx(math.log(mse / 0.25))
    assert pixel_loss(x, x, "log_mse", None).item() == pytest.approx(math.log(1e-8))


def test_binary_cross_entropy_of_pixels() -> None:
    x, y = RNG.uniform(-1, 1, size=(2, 3, 4, 4)), RNG.uniform(-1, 1, size=(2, 3, 4, 4))
    p, q = (x + 1) / 2, (y + 1) / 2
    expected = -(p * np.log(q) + (1 - p) * np.log(1 - q)).mean()
    assert pixel_loss(torch.tensor(y), torch.tensor(x), "bce", 0.25).item() == pytest.approx(expected)
    white = torch.ones(1, 3, 2, 2)
    assert pixel_loss(white, white, "bce", None).item() == 0.0
    assert math.isfinite(pixel_loss(white, -white, "bce", None).item()), "the logarithm of zero is clamped"


def test_kl_per_dimension_adds_up_and_free_bits_floor_each_dimension() -> None:
    mean, logvar = torch.tensor(RNG.normal(size=(7, 4))), torch.tensor(RNG.normal(size=(7, 4)))
    posterior = Posterior(mean, logvar)
    per_dimension = kl_per_dimension(posterior)
    assert per_dimension.shape == (4,)
    assert per_dimension.sum().item() == pytest.approx(gaussian_kl_divergence(posterior).item())
    kl = torch.tensor([0.1, 0.5, 2.0], requires_grad=True)
    floored = free_bits(kl, 0.4)
    assert floored.tolist() == pytest.approx([0.4, 0.5, 2.0])
    floored.sum().backward()
    assert kl.grad is not None
    assert kl.grad.tolist() == [0.0, 1.0, 1.0]


def test_kl_of_moments() -> None:
    mean, var = RNG.normal(size=5), RNG.uniform(0.1, 3, size=5)
    expected = 0.5 * (mean**2 + var - 1 - np.log(var))
    assert kl_of_moments(torch.tensor(mean), torch.tensor(var)).numpy() == pytest.approx(expected)
    assert kl_of_moments(torch.zeros(1), torch.ones(1)).item() == 0.0


def test_r1_of_a_quadratic_discriminator() -> None:
    """D(x) = sum a x^2 / 2 has the gradient a x."""
    a, x = RNG.normal(size=(3, 4, 5)), RNG.normal(size=(2, 3, 4, 5))
    weight = torch.tensor(a, requires_grad=True)
    penalty = gradient_penalty(lambda images: (weight * images.square() / 2).sum(dim=(1, 2, 3)), torch.tensor(x))
    assert penalty.item() == pytest.approx(0.5 * ((a * x) ** 2).sum(axis=(1, 2, 3)).mean())
    (gradient,) = torch.autograd.grad(penalty, weight)
    assert gradient.numpy() == pytest.approx((a * x**2).mean(axis=0)), "it can be differentiated once more"


def test_adaptive_weight_is_a_ratio_of_norms_without_gradient() -> None:
    a, b = torch.tensor(RNG.normal(size=9)), torch.tensor(RNG.normal(size=9), requires_grad=True)
    weight = adaptive_weight(a, b)
    assert weight.item() == pytest.approx(a.norm().item() / b.norm().item(), rel=1e-5)
    assert not weight.requires_grad
    assert adaptive_weight(a, torch.zeros(9)).item() == 1e4


@pytest.mark.parametrize(("real", "fake"), [(1.0, 1.0), (1.0, 2.0), (0.3, 1.1)])
def test_chance_loss_is_the_best_constant_output(real: Any, fake: Any) -> None:
    outputs = np.linspace(1e-4, 1 - 1e-4, 100_001)
    losses = -real * np.log(outputs) - fake * np.log(1 - outputs)
    assert bce_chance_loss(real, fake) == pytest.approx(losses.min(), rel=1e-6)


def test_the_chance_loss_of_pairs_is_log_two_for_each() -> None:
    weights = DiscriminatorLossConfig(recon=0.4, prior=0.8)
    kl = FixedBetaConfig(control="fixed", beta=1.0)
    loss = LossTerms(LossConfig(adversarial="relativistic", discriminator=weights, kl=kl), variance=1.0)
    same = torch.full((5,), 3.0)
    raw = loss.discriminator({"real": same, "recon": same, "prior": same})
    assert [str(term) for term in raw] == ["discriminator_recon", "discriminator_prior"]
    assert loss.chance_loss == pytest.approx(1.2 * math.log(2))
    assert sum(value.item() for value in loss.weighted(raw).values()) == pytest.approx(loss.chance_loss)


def test_pairs_are_of_the_same_place_in_the_batch_head_by_head() -> None:
    heads, kl = HeadsConfig(whole=0.5, patch=2.0), FixedBetaConfig(control="fixed", beta=1.0)
    loss = LossTerms(LossConfig(adversarial="relativistic", heads=heads, kl=kl), variance=1.0)
    real, fake = RNG.normal(size=(6, 6)), RNG.normal(size=(6, 6))
    raw = loss.discriminator({"real": torch.tensor(real), "recon": torch.tensor(fake)})
    (value,) = raw.values()
    pairs = np.log1p(np.exp(-(real - fake)))
    assert value.item() == pytest.approx(0.5 * pairs[:, 0].mean() + 2.0 * pairs[:, 1:].mean())


def test_moment_matching_compares_batch_means() -> None:
    features, real = RNG.normal(size=(6, 3, 2, 2)), RNG.normal(size=(6, 3, 2, 2))
    expected = ((features.mean(0) - real.mean(0)) ** 2).mean() / 0.7
    assert moment_matching_loss(torch.tensor(features), torch.tensor(real), 0.7).item() == pytest.approx(expected)
    shuffled = torch.tensor(real[::-1].copy())
    assert moment_matching_loss(shuffled, torch.tensor(real), 1.0).item() == pytest.approx(0.0, abs=1e-20)
    assert feature_matching_loss(shuffled, torch.tensor(real), 1.0).item() > 0.5, "paired matching punishes it"
