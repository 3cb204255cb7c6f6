import math

import pytest
import torch

from vaegan_core.config import AdaptiveBetaConfig, CapacityConfig, FixedBetaConfig, weight_of_sigma
from vaegan_core.kl_control import AdaptiveBeta, Capacity, make_kl_control

CPU = torch.device("cpu")


def make(config, steps=100):
    return make_kl_control(config, num_values=600, variance=0.2, steps=steps, device=CPU)


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
def test_capacity_rises_linearly_and_stays(step, capacity) -> None:
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


def test_adaptive_beta_state_round_trip() -> None:
    config = AdaptiveBetaConfig(control="adaptive", target=10, rate=0.1)
    control, restored = make(config), make(config)
    assert isinstance(control, AdaptiveBeta)
    for step in range(5):
        control.term(torch.tensor(40.0), step)
    restored.load_state(control.state())
    assert torch.equal(control.term(torch.tensor(3.0), 5), restored.term(torch.tensor(3.0), 5))
