"""The density fitted to z: moments, shrinkage, mixtures, where a model was stored without one."""

import pytest
import torch
from torch import Tensor

from vaegan_core.model.latent_density import LatentDensity, density_of, shrunk_covariance
from vaegan_core.model.networks import Posterior

DIM = 6


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def correlated(n: int, dim: int = DIM) -> Tensor:
    mixing = normal(dim, dim, seed=1)
    return normal(n, dim) @ mixing + torch.arange(dim)


def moments(z: Tensor) -> tuple[Tensor, Tensor]:
    return z.mean(0), torch.cov(z.T, correction=0)


def test_samples_have_the_moments_of_the_aggregated_posterior() -> None:
    """E mu, and Cov mu + E sigma^2, correlations included."""
    mean, variance = correlated(5000), normal(5000, DIM, seed=2).square()
    density = LatentDensity.fit(mean, variance)
    sampled_mean, sampled_cov = moments(density.sample(normal(200_000, DIM, seed=3)))
    expected_mean, expected_cov = moments(mean)
    scale = float(expected_cov.diagonal().max())
    assert torch.allclose(sampled_mean, expected_mean, atol=0.02 * scale**0.5)
    assert torch.allclose(sampled_cov, expected_cov + torch.diag(variance.mean(0)), atol=0.02 * scale)


def test_posteriors_in_batches_are_one_set() -> None:
    mean, logvar = correlated(90), normal(90, DIM, seed=4)
    parts = [Posterior(m, v) for m, v in zip(mean.split(40), logvar.split(40), strict=True)]
    whole = LatentDensity.fit(mean, logvar.exp())
    assert torch.allclose(density_of(parts, 1).factors, whole.factors, atol=1e-5)
    deterministic = density_of([Posterior(mean, None)], 1)
    assert torch.allclose(deterministic.factors, LatentDensity.fit(mean, None).factors, atol=1e-5)


def test_more_dimensions_than_frames_still_give_a_density() -> None:
    density = LatentDensity.fit(normal(40, 1024), None)
    z = density.sample(normal(500, 1024, seed=5))
    assert bool(z.isfinite().all())
    assert float(z.var(0).mean()) == pytest.approx(1, rel=0.15)


@pytest.mark.parametrize("n", [10, 40, 400])
def test_shrinkage_is_the_oracle_approximating_one(n: int) -> None:
    from sklearn.covariance import OAS

    points = correlated(n, 30)
    ours, theirs = shrunk_covariance(points), OAS().fit(points.double().numpy()).covariance_
    assert ours.numpy() == pytest.approx(theirs, rel=0.1, abs=0.05 * float(ours.diagonal().mean()))


def test_a_mixture_has_two_modes_where_a_gaussian_has_one() -> None:
    centers = torch.tensor([-5.0, 5.0]).repeat(500).unsqueeze(1)
    mean = centers + 0.1 * normal(1000, DIM)
    single, mixture = LatentDensity.fit(mean, None), LatentDensity.fit(mean, None, 2)
    noise = normal(2000, DIM, seed=6)
    assert float((single.sample(noise)[:, 0].abs() < 3).double().mean()) > 0.3
    sampled = mixture.sample(noise)[:, 0]
    assert float((sampled.abs() < 3).double().mean()) == 0
    assert float((sampled[:40] > 0).double().mean()) == pytest.approx(0.5, abs=0.1), "every stretch has both modes"


def test_the_same_frames_give_the_same_density() -> None:
    mean, variance = correlated(200), torch.rand(200, DIM, generator=torch.Generator().manual_seed(7))
    for components in (1, 3):
        first, second = (LatentDensity.fit(mean, variance, components) for _ in range(2))
        assert torch.equal(first.factors, second.factors)


def test_a_density_survives_as_tensors_and_old_models_have_none() -> None:
    density = LatentDensity.fit(correlated(50), None, 2)
    stored = LatentDensity.from_tensors(density.tensors() | {"decoder.linear.bias": torch.zeros(3)})
    assert stored is not None
    assert torch.equal(stored.sample(normal(9, DIM)), density.sample(normal(9, DIM)))
    assert LatentDensity.from_tensors({"decoder.linear.bias": torch.zeros(3)}) is None


@pytest.mark.parametrize(("frames", "components"), [(1, 1), (3, 4)])
def test_too_few_frames_are_refused(frames: int, components: int) -> None:
    with pytest.raises(ValueError, match=f"{components} components needs as many frames"):
        LatentDensity.fit(normal(frames, DIM), None, components)
