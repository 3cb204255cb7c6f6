import pytest
import torch

from vaegan_core.distances import frechet_distance, gaussian_moments


def test_frechet_distance_in_one_dimension() -> None:
    """(m_a - m_b)^2 + (s_a - s_b)^2."""
    cov_a, cov_b = torch.tensor([[4.0]]), torch.tensor([[9.0]])
    assert frechet_distance(torch.tensor([1.0]), cov_a, torch.tensor([3.0]), cov_b) == pytest.approx(4 + 1)


def test_frechet_distance_of_diagonal_gaussians() -> None:
    std_a, std_b = torch.tensor([1.0, 2.0, 0.0]), torch.tensor([3.0, 0.5, 1.0])
    mean_a, mean_b = torch.tensor([0.0, 1.0, -1.0]), torch.tensor([2.0, 1.0, 0.5])
    expected = float((mean_a - mean_b).square().sum() + (std_a - std_b).square().sum())
    assert frechet_distance(mean_a, std_a.square().diag(), mean_b, std_b.square().diag()) == pytest.approx(expected)


def test_frechet_distance_of_equals_is_zero_also_with_deficient_rank() -> None:
    features = torch.randn(10, 64, generator=torch.Generator().manual_seed(0))
    mean, cov = gaussian_moments([features])
    assert frechet_distance(mean, cov, mean, cov) == pytest.approx(0, abs=1e-6)


def test_frechet_distance_does_not_change_with_a_rotation_and_is_symmetric() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(50, 8, generator=generator), 2 * torch.randn(60, 8, generator=generator) + 1
    rotation = torch.linalg.qr(torch.randn(8, 8, generator=generator)).Q
    plain = frechet_distance(*gaussian_moments([a]), *gaussian_moments([b]))
    assert frechet_distance(*gaussian_moments([b]), *gaussian_moments([a])) == pytest.approx(plain)
    rotated = frechet_distance(*gaussian_moments([a @ rotation]), *gaussian_moments([b @ rotation]))
    assert rotated == pytest.approx(plain, rel=1e-4)


def test_moments_of_batches_are_those_of_the_whole() -> None:
    features = torch.randn(25, 3, generator=torch.Generator().manual_seed(0)) + 5
    mean, cov = gaussian_moments(torch.split(features, 7))
    torch.testing.assert_close(mean, features.double().mean(0))
    torch.testing.assert_close(cov, features.double().T.cov())


def test_moments_of_one_image_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 images, got 1"):
        gaussian_moments([torch.zeros(1, 3)])
