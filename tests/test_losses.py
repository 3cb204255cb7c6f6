"""Every formula against an independent float64 computation."""

import math

import numpy as np
import pytest
import torch

from vaegan_core.losses import (
    ADVERSARIAL_LOSSES,
    feature_matching_loss,
    feature_scale,
    gaussian_kl_divergence,
    pixel_loss,
)
from vaegan_core.models import Posterior

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
        ("hinge", lambda d: np.maximum(0, 1 - d), lambda d: np.maximum(0, 1 + d), lambda d: -d),
        ("lsgan", lambda d: (d - 1) ** 2 / 2, lambda d: d**2 / 2, lambda d: (d - 1) ** 2 / 2),
    ],
)
def test_adversarial_losses(name, real, fake, generator) -> None:
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
