import math
from typing import Any

import numpy as np
import pytest
import torch

from vaegan_core.config.loss import (
    AdaptiveBetaConfig,
    CapacityConfig,
    FixedBetaConfig,
    KLConfig,
    LossConfig,
    OptimalSigmaConfig,
    PixelLossConfig,
)
from vaegan_core.losses.functional import gaussian_kl_divergence, kl_of_gaussian, kl_of_moments, pixel_loss
from vaegan_core.losses.kl_control import (
    AdaptiveBeta,
    Capacity,
    KLTerm,
    MovingCovariance,
    MovingMoments,
    in_nats,
    kl_bound,
    make_kl_term,
    weight_of_sigma,
)
from vaegan_core.losses.terms import KL, KL_BATCH
from vaegan_core.model.networks import Posterior

CPU = torch.device("cpu")


def kl_term(config: KLConfig, steps: int = 100) -> KLTerm:
    return make_kl_term(LossConfig(kl=config), latent_dim=4, num_values=600, variance=0.2, steps=steps, device=CPU)


def make(config: KLConfig, steps: int = 100) -> Any:
    return make_kl_term(
        LossConfig(kl=config), latent_dim=4, num_values=600, variance=0.2, steps=steps, device=CPU
    ).control


def test_sigma_stands_for_the_weight_of_the_elbo() -> None:
    """MSE / Var x + beta KL is proportional to N MSE / (2 sigma^2) + KL."""
    sigma, num_values, variance = 0.3, 600, 0.2
    beta = weight_of_sigma(sigma, num_values, variance)
    assert (1 / variance) / beta == pytest.approx(num_values / (2 * sigma**2))


def test_fixed_beta_from_beta_and_from_sigma() -> None:
    kl = torch.tensor(5.0)
    assert make(FixedBetaConfig(control="fixed", beta=0.5)).term(kl, 0).item() == pytest.approx(2.5)
    by_sigma = make(FixedBetaConfig(control="fixed", sigma=0.3))
    assert by_sigma.term(kl, 0).item() == pytest.approx(5.0 * weight_of_sigma(0.3, 600, 0.2))


@pytest.mark.parametrize(("step", "capacity"), [(0, 0.0), (25, 5.0), (50, 10.0), (51, 10.0), (99, 10.0)])
def test_capacity_rises_linearly_and_stays(step: int, capacity: float) -> None:
    control = make(CapacityConfig(control="capacity", gamma=2.0, capacity_max=10.0, ramp=0.5))
    assert isinstance(control, Capacity)
    assert control.capacity(step) == capacity
    assert control.term(torch.tensor(7.0), step).item() == pytest.approx(2.0 * abs(7.0 - capacity))


def test_capacity_pulls_the_kl_up_below_and_down_above() -> None:
    control = make(CapacityConfig(control="capacity", gamma=2.0, capacity_max=10.0, ramp=0.5))
    for value, slope in ((7.0, -2.0), (12.0, 2.0)):
        kl = torch.tensor(value, requires_grad=True)
        control.term(kl, 60).backward()
        assert kl.grad is not None
        assert kl.grad.item() == slope


def test_adaptive_beta_follows_its_laws_by_hand() -> None:
    for law, expected in (("log", 0.5 * math.exp(0.1 * (30 / 10 - 1))), ("linear", 0.5 + 0.1 * (30 - 10))):
        config = AdaptiveBetaConfig(control="adaptive", target=10, law=law, rate=0.1, beta_init=0.5)
        control = make(config)
        assert control.term(torch.tensor(30.0), 0).item() == pytest.approx(0.5 * 30)
        assert float(control.curves(1)["kl/beta"]) == pytest.approx(expected)


def test_adaptive_beta_stays_within_its_bounds_and_survives_a_huge_kl() -> None:
    config = AdaptiveBetaConfig(
        control="adaptive", target=1, law="log", rate=1.0, beta_init=1.0, beta_min=0.1, beta_max=50.0
    )
    control = make(config)
    control.term(torch.tensor(1e30), 0)
    assert float(control.curves(0)["kl/beta"]) == 50.0
    for step in range(20):
        control.term(torch.tensor(0.0), step)
    assert float(control.curves(0)["kl/beta"]) == pytest.approx(0.1)


def test_one_outlier_moves_beta_by_ten_rates_at_most() -> None:
    """A batch with an exploded KL must not throw beta to its bound, from which it takes hundreds of steps back."""
    control = make(AdaptiveBetaConfig(control="adaptive", target=1, law="log", rate=0.01, beta_init=1.0, beta_max=1e6))
    control.term(torch.tensor(1e30), 0)
    assert float(control.curves(0)["kl/beta"]) == pytest.approx(math.exp(0.1))


def test_adaptive_beta_state_round_trip() -> None:
    config = AdaptiveBetaConfig(control="adaptive", target=10, rate=0.1)
    control, restored = make(config), make(config)
    assert isinstance(control, AdaptiveBeta)
    for step in range(5):
        control.term(torch.tensor(40.0), step)
    restored.load_state(control.state())
    assert torch.equal(control.term(torch.tensor(3.0), 5), restored.term(torch.tensor(3.0), 5))


def test_warmup_raises_beta_linearly_from_zero() -> None:
    control = make(FixedBetaConfig(control="fixed", beta=4.0, warmup=0.5))
    weights = [control.term(torch.tensor(1.0), step).item() for step in (0, 25, 50, 99)]
    assert weights == pytest.approx([0.0, 2.0, 4.0, 4.0])


def test_constants_per_dimension_become_constants_in_nats() -> None:
    """MEASURES 3: beta / L, gamma / L, capacity and target * L, alpha / L^2 for the linear law."""
    fixed = in_nats(FixedBetaConfig(control="fixed", beta=2.0, per_dimension=True), 8)
    assert fixed.beta == pytest.approx(0.25)
    capacity = {"control": "capacity", "gamma": 4.0, "capacity_max": 5.0, "ramp": 0.5, "per_dimension": True}
    converted = in_nats(CapacityConfig(**capacity), 8)
    assert (converted.gamma, converted.capacity_max, converted.ramp) == pytest.approx((0.5, 40.0, 0.5))
    adaptive = {"control": "adaptive", "target": 0.2, "rate": 0.1, "beta_init": 10, "per_dimension": True}
    linear, log = (in_nats(AdaptiveBetaConfig(**adaptive, law=law), 8) for law in ("linear", "log"))
    assert (linear.target, linear.beta_init) == pytest.approx((1.6, 1.25))
    assert (linear.rate, log.rate) == pytest.approx((0.1 / 64, 0.1))
    bounds = in_nats(AdaptiveBetaConfig(**adaptive, beta_min=0.4, beta_max=80.0), 8)
    assert (bounds.beta_min, bounds.beta_max) == pytest.approx((0.05, 10.0)), "or beta could never fall to its bound"
    assert kl_bound(linear, 8) == pytest.approx(1.6)
    assert kl_bound(AdaptiveBetaConfig(**adaptive), 8) == pytest.approx(1.6)
    assert kl_bound(CapacityConfig(**capacity), 8) == pytest.approx(40.0)
    assert kl_bound(fixed, 8) is None


def test_the_linear_law_is_the_authors_in_his_units() -> None:
    """beta_d <- beta_d + alpha (KL / L - target), with a loss of beta_d * KL / L."""
    config = AdaptiveBetaConfig(
        control="adaptive", target=0.2, rate=0.1, law="linear", beta_init=10, per_dimension=True, beta_min=1e-3
    )
    control = make_kl_term(
        LossConfig(kl=config), latent_dim=4, num_values=600, variance=0.2, steps=100, device=CPU
    ).control
    beta, kl = 10.0, 4.8
    for step in range(3):
        assert control.term(torch.tensor(kl), step).item() == pytest.approx(beta * kl / 4, rel=1e-5)
        beta += 0.1 * (kl / 4 - 0.2)


def term_of(**changes: Any) -> KLTerm:
    config = FixedBetaConfig(control="fixed", beta=2.0, **changes)
    return kl_term(config)


def posterior_and_z() -> tuple[Posterior, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    mean, logvar, noise = (torch.randn(32, 4, generator=generator) for _ in range(3))
    posterior = Posterior(mean.requires_grad_(), logvar.requires_grad_())
    return posterior, posterior.sample(noise)


def test_the_term_of_each_estimator() -> None:
    posterior, z = posterior_and_z()
    per_sample, raw = term_of()(posterior, z, 0)
    assert per_sample.item() == pytest.approx(2.0 * gaussian_kl_divergence(posterior).item())
    assert set(raw) == {KL}
    of_batch, raw = term_of(estimator="batch")(posterior, z, 0)
    mean, var = z.mean(0), z.var(0, unbiased=False)
    expected = 0.5 * (mean**2 + var - 1 - var.log()).sum()
    assert of_batch.item() == pytest.approx(2.0 * expected.item(), rel=1e-5)
    assert raw[KL].item() == pytest.approx(gaussian_kl_divergence(posterior).item())
    assert raw[KL_BATCH].item() == pytest.approx(expected.item(), rel=1e-5)


def test_moving_moments_blend_and_carry_the_share_of_the_gradient() -> None:
    moments, (posterior, z) = MovingMoments(0.9, 4, CPU), posterior_and_z()
    kl = moments.kl(posterior, z)
    expected_mean = 0.1 * z.mean(0)
    expected_var = 0.9 + 0.1 * z.var(0, unbiased=False)
    assert torch.allclose(moments.mean, expected_mean)
    assert torch.allclose(kl, 0.5 * (expected_mean**2 + expected_var - 1 - expected_var.log()))
    (gradient,) = torch.autograd.grad(kl.sum(), z)
    centered = (z - z.mean(0)).detach()
    by_hand = (0.1 * expected_mean / 32 + 0.1 * (1 - 1 / expected_var) * centered / 32).detach()
    assert torch.allclose(gradient, by_hand, atol=1e-7)
    again = moments.kl(posterior, z)
    assert torch.allclose(moments.mean, 0.19 * z.mean(0)), "the old moments weigh momentum"
    assert not moments.mean.requires_grad, "or each step would keep the graphs of all steps before"
    assert not moments.var.requires_grad
    (second,) = torch.autograd.grad(again.sum(), z)
    by_hand = (0.1 * moments.mean / 32 + 0.1 * (1 - 1 / moments.var) * centered / 32).detach()
    assert torch.allclose(second, by_hand, atol=1e-7), "only through the newest batch"
    assert posterior.logvar is not None


def test_a_deterministic_encoder_has_the_kl_of_its_batch_only() -> None:
    z = torch.randn(8, 4, requires_grad=True)
    term, raw = term_of(estimator="batch")(Posterior(z, None), z, 0)
    assert set(raw) == {KL_BATCH}
    assert torch.autograd.grad(term, z)[0].abs().sum() > 0
    without, raw = term_of()(Posterior(z, None), z, 0)
    assert without.item() == 0.0
    assert raw == {}


def test_free_bits_take_the_gradient_of_cheap_dimensions() -> None:
    mean = torch.tensor([[0.1, 2.0, 0.0, 0.0]] * 3, requires_grad=True)
    term, raw = term_of(free_bits=0.5)(Posterior(mean, torch.zeros(3, 4)), mean, 0)
    assert raw[KL].item() == pytest.approx(0.005 + 2.0)
    assert term.item() == pytest.approx(2.0 * (3 * 0.5 + 2.0))
    (gradient,) = torch.autograd.grad(term, mean)
    assert gradient[:, 1].abs().min() > 0
    assert gradient[:, [0, 2, 3]].abs().max() == 0


def test_the_optimal_weight_makes_the_elbo_with_the_best_decoder_variance() -> None:
    """The sum is 2 w / N times N/2 log sigma^2 + N MSE / (2 sigma^2) + KL, at the sigma^2 that makes it smallest."""
    num_values, weight, kl = 600, 3.0, 7.0
    x, x_recon = (torch.rand(5, 3, 10, 20, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    loss = LossConfig(kl=OptimalSigmaConfig(control="optimal"), pixel=PixelLossConfig(weight=weight, kind="log_mse"))
    control = make_kl_term(loss, latent_dim=4, num_values=num_values, variance=0.2, steps=9, device=CPU).control
    total = weight * pixel_loss(x_recon, x, "log_mse", None) + control.term(torch.tensor(kl), 0)
    mse = (x - x_recon).square().mean().item()
    elbos = [
        num_values / 2 * (math.log(variance) + mse / variance - 1) + kl for variance in (0.9 * mse, mse, 1.1 * mse)
    ]
    assert min(elbos) == elbos[1]
    assert total.item() == pytest.approx(2 * weight / num_values * elbos[1], rel=1e-5)
    assert kl_bound(loss.kl, 4) is None


def test_the_full_covariance_sees_correlation_that_variances_do_not() -> None:
    mean = torch.tensor([[1.0, 1.0], [-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]]) + torch.tensor([0.5, -1.0])
    logvar = torch.tensor([0.2, 0.3]).log().expand(4, 2)
    moments = MovingCovariance(0.0, 2, CPU)
    uncorrelated = moments.kl(Posterior(mean, logvar), mean)
    of_variances = kl_of_moments(torch.tensor([0.5, -1.0]), torch.tensor([1.2, 1.3])).sum()
    assert uncorrelated.item() == pytest.approx(of_variances.item(), rel=1e-5)
    correlated = moments.kl(Posterior(mean[:2], logvar[:2]), mean)
    assert moments.covariance.numpy() == pytest.approx(np.array([[1.2, 1.0], [1.0, 1.3]]))
    extra = 0.5 * math.log(1.2 * 1.3 / (1.2 * 1.3 - 1))
    assert correlated.item() == pytest.approx(of_variances.item() + extra, rel=1e-5)


def test_the_full_covariance_is_exact_at_any_scale() -> None:
    for scale in (1e-4, 1.0, 1e4):
        covariance = scale * torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
        expected = 0.5 * (3 * scale - 2 - math.log(1.75 * scale**2))
        zero = torch.zeros(2, dtype=torch.float64)
        assert kl_of_gaussian(zero, covariance).item() == pytest.approx(expected, rel=1e-5)
    moments = MovingCovariance(0.5, 2, CPU)
    assert {each.dtype for each in moments.state().values()} == {torch.float64}


def test_moments_of_a_batch_of_equal_codes_are_far_from_the_prior_and_finite() -> None:
    kl = MovingMoments(0.0, 4, CPU).kl(Posterior(torch.zeros(8, 4), None), torch.zeros(8, 4))
    assert kl.isfinite().all()
    assert kl.min() > 5, "a variance of 0 is taken for 1e-8"


def test_a_capacity_bounds_what_free_bits_leave() -> None:
    mean = torch.tensor([[0.1, 2.0, 0.0, 0.0]] * 3)
    config = CapacityConfig(control="capacity", gamma=2.0, capacity_max=10.0, ramp=0.5, free_bits=0.5)
    term, _ = kl_term(config)(Posterior(mean, torch.zeros(3, 4)), mean, 25)
    assert term.item() == pytest.approx(2.0 * abs(3 * 0.5 + 2.0 - 5.0))


def test_the_full_covariance_carries_gradient_to_means_and_variances() -> None:
    """Against autograd through an explicit determinant, with old moments weighing a half."""
    posterior, z = posterior_and_z()
    term, raw = term_of(estimator="full_batch", momentum=0.5)(posterior, z, 0)
    mean, logvar = posterior.mean.double(), posterior.logvar.double()
    covariance = 0.5 * torch.eye(4) + 0.5 * (torch.cov(mean.T, correction=0) + logvar.exp().mean(0).diag())
    of_batch = 0.5 * mean.mean(0)
    expected = 0.5 * (covariance.trace() + of_batch @ of_batch - 4 - torch.linalg.slogdet(covariance)[1])
    assert raw[KL_BATCH].item() == pytest.approx(expected.item(), rel=1e-6)
    found, by_hand = (
        torch.autograd.grad(value, [posterior.mean, posterior.logvar]) for value in (term, 2.0 * expected)
    )
    for a, b in zip(found, by_hand, strict=True):
        assert torch.allclose(a, b, atol=1e-7)


def test_the_full_covariance_stays_finite_where_it_is_nearly_singular() -> None:
    line = 1e3 * torch.randn(64, 1) * torch.randn(1, 32)
    mean, logvar = line.requires_grad_(), torch.full((64, 32), -20.0)
    kl = MovingCovariance(0.0, 32, CPU).kl(Posterior(mean, logvar), mean)
    assert kl.isfinite()
    assert torch.autograd.grad(kl, mean)[0].isfinite().all()
    assert MovingCovariance(0.0, 32, CPU).kl(Posterior(line * math.inf, logvar), mean).isnan()


@pytest.mark.parametrize("estimator", ["batch", "full_batch"])
def test_the_state_of_moments_and_control_goes_round(estimator: Any) -> None:
    config = AdaptiveBetaConfig(control="adaptive", target=10, rate=0.1, estimator=estimator, momentum=0.5)
    first, second = (kl_term(config) for _ in range(2))
    posterior, z = posterior_and_z()
    for step in range(3):
        first(posterior, z, step)
    second.load_state(first.state())
    assert torch.equal(first(posterior, z, 3)[0], second(posterior, z, 3)[0])
