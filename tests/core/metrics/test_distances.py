import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.image.fid import FrechetInceptionDistance

from vaegan_core.metrics.distances import (
    auc,
    frechet_distance,
    gaussian_moments,
    kernel_distance,
    median_pair_distance,
    nearest_distances,
    pair_distances,
    standard_normal_distance,
)
from vaegan_core.metrics.settings import SETTINGS
from vaegan_core.metrics.sliced_wasserstein import laplacian_pyramid, sliced_reference, sliced_wasserstein


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pictures(count: int, seed: int = 0, height: int = 17, width: int = 31) -> Tensor:
    """Random blobs of color, in [-1, 1]: neighboring pixels are alike."""
    coarse = normal(count, 3, 4, 6, seed=seed)
    return F.interpolate(coarse, size=(height, width), mode="bilinear").tanh()


# --- Gaussian moments -------------------------------------------------------------------------------------------------


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
    with pytest.raises(ValueError, match="at least 2 images, but got 1"):
        gaussian_moments([torch.zeros(1, 3)])


def test_frechet_distance_is_that_of_torchmetrics() -> None:
    """With features of its own instead of Inception's: each image's mean color over a 2x2 grid, 12 numbers."""

    class Colors(nn.Module):
        num_features = 12

        def forward(self, images: Tensor) -> Tensor:
            return F.adaptive_avg_pool2d(images.float() / 255, 2).flatten(1)

    colors = Colors()
    real, fake = ((x * 127.5 + 127.5).byte() for x in (pictures(200), 0.8 * pictures(100, seed=1)))
    theirs = FrechetInceptionDistance(feature=colors).set_dtype(torch.float64)
    theirs.update(real, real=True)
    theirs.update(fake, real=False)
    ours = frechet_distance(*gaussian_moments([colors(real)]), *gaussian_moments([colors(fake)]))
    assert ours == pytest.approx(float(theirs.compute()), rel=1e-4)


def test_frechet_distance_of_what_is_not_finite_is_no_number() -> None:
    mean, cov = gaussian_moments([torch.tensor([[1.0, 2.0], [math.nan, 0.0]])])
    assert math.isnan(frechet_distance(mean, cov, torch.zeros(2), torch.eye(2)))


# --- Latents ----------------------------------------------------------------------------------------------------------


def test_distance_to_the_prior() -> None:
    """The formula is m^2 + (s - 1)^2: about 0 for the prior, 1 for z = 0, 1 + 4 for N(2, 2^2)."""
    z = normal(4000, 16)
    assert standard_normal_distance(z) == pytest.approx(1.5 / 4000, rel=0.5)
    assert standard_normal_distance(torch.zeros(10, 16)) == 1
    assert standard_normal_distance(2 + 2 * z) == pytest.approx(4 + 1, rel=0.02)
    assert standard_normal_distance(normal(1000, 1024)) < 0.002  # more dimensions than images: not biased by them


# --- Pairs ------------------------------------------------------------------------------------------------------------


def test_kernel_distance_is_zero_within_a_distribution_and_grows_with_the_shift() -> None:
    features = normal(500, 8)
    same = [kernel_distance(features, normal(500, 8, seed=seed)) for seed in range(1, 9)]
    assert abs(sum(same)) / 8 < 0.01
    assert min(same) < 0 < max(same)  # unbiased: on either side of 0
    shifted = [kernel_distance(features, normal(500, 8, seed=1) + shift) for shift in (0.2, 0.5, 1.0)]
    assert max(same) < shifted[0] < shifted[1] < shifted[2]


def test_kernel_distance_by_hand() -> None:
    """In one dimension, kernel (ab + 1)^3: {0, 0} against {1, 1} gives 1 + 8 - 2."""
    assert kernel_distance(torch.zeros(2, 1), torch.ones(2, 1)) == pytest.approx(1 + 8 - 2)


def test_pair_distances_by_hand() -> None:
    distances = pair_distances(torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]]))
    assert distances.diagonal().tolist() == [math.inf] * 3
    assert distances[0, 1] == pytest.approx(5)
    assert median_pair_distance(distances) == pytest.approx(math.hypot(3, 3))
    assert torch.equal(pair_distances(torch.full((50, 128), 7.3)).amin(1), torch.zeros(50, dtype=torch.float64))


def test_nearest_distances() -> None:
    features = torch.tensor([[0.0, 0.0], [10.0, 0.0]])
    others = torch.tensor([[0.0, 2.0], [7.0, 4.0], [100.0, 0.0]])
    assert nearest_distances(features, others).tolist() == pytest.approx([2, 5])


@pytest.mark.parametrize(
    ("positive", "negative", "expected"),
    [
        ([3.0, 4.0], [1.0, 2.0], 1.0),
        ([1.0, 2.0], [3.0, 4.0], 0.0),
        ([5.0, 5.0], [5.0, 5.0, 5.0], 0.5),
        ([1.0, 3.0], [2.0, 3.0], (0 + 0 + 1 + 0.5) / 4),
    ],
)
def test_auc(positive: list[float], negative: list[float], expected: float) -> None:
    assert auc(torch.tensor(positive), torch.tensor(negative)) == pytest.approx(expected)


# --- Sliced Wasserstein distance --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(17, 31), (27, 48), (65, 121), (8, 7), (7, 7), (3, 5)])
def test_a_pyramid_goes_down_to_the_whole_image_and_adds_up_again(height: int, width: int) -> None:
    images = normal(2, 3, height, width)
    levels = laplacian_pyramid(images)
    assert max(levels[-1].shape[2:]) <= SETTINGS.sliced.patch
    assert all(max(level.shape[2:]) > SETTINGS.sliced.patch for level in levels[:-1])
    whole = levels[-1]
    for level in reversed(levels[:-1]):
        whole = level + F.interpolate(whole, size=level.shape[2:], mode="bilinear")
    torch.testing.assert_close(whole, images)


def test_sliced_wasserstein_of_the_same_images_is_zero() -> None:
    images = pictures(40)
    assert sliced_wasserstein(images, sliced_reference(images)) == 0
    black = -torch.ones(10, 3, 17, 31)
    assert sliced_wasserstein(black, sliced_reference(black)) == 0


def test_sliced_wasserstein_looks_along_the_references_directions_at_any_number_of_images() -> None:
    images = pictures(40, height=5, width=6)
    reference = sliced_reference(images)
    for times in (2, 5):
        assert sliced_wasserstein(images.repeat(times, 1, 1, 1), reference) == pytest.approx(0, abs=1e-6)


def test_sliced_wasserstein_of_fresh_images_is_far_below_what_other_directions_give() -> None:
    fresh, reference = pictures(128, seed=1), sliced_reference(pictures(1000))
    others = sliced_wasserstein(fresh, reference._replace(num_images=128))
    assert sliced_wasserstein(fresh, reference) < 0.6 * others


def test_sliced_wasserstein_of_a_constant_shift_of_small_images() -> None:
    """Images of one pixel, of one color: a shift by d is |d . v| along v, in standard deviations of the reference; over
    directions v of the unit sphere in three dimensions its mean is |d| / 2."""
    images = normal(400, 3, 1, 1)
    reference = sliced_reference(images)
    shift = 3 * reference.std[0].view(3, 1, 1)
    assert sliced_wasserstein(images + shift, reference) == pytest.approx(3 * math.sqrt(3) / 2, rel=0.15)


def test_sliced_wasserstein_sees_fine_and_coarse_changes() -> None:
    images, fresh = pictures(100), pictures(100, seed=1)
    reference = sliced_reference(images)
    floor = sliced_wasserstein(fresh, reference)
    for scale in (0.1, 0.2):
        assert sliced_wasserstein(fresh + scale * normal(*fresh.shape), reference) > floor * (1 + scale)
    assert sliced_wasserstein(F.interpolate(F.avg_pool2d(fresh, 4), size=(17, 31), mode="bilinear"), reference) > floor
    assert sliced_wasserstein(fresh + 0.5, reference) > 1.5 * floor  # a shift of color, which fine levels do not see
    assert sliced_wasserstein(fresh[:1].expand_as(fresh), reference) > 1.5 * floor


def test_sliced_wasserstein_repeats_itself_and_leaves_the_random_state_alone() -> None:
    reference = sliced_reference(pictures(30))
    before = torch.get_rng_state()
    assert sliced_wasserstein(pictures(20, seed=1), reference) == sliced_wasserstein(pictures(20, seed=1), reference)
    assert torch.equal(torch.get_rng_state(), before)
