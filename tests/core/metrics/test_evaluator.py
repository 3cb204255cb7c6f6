"""Validation: every metric on a good, a bad and a degenerate model, with answers known where there are some."""

import contextlib
import json
import math
import zlib
from collections.abc import Callable

import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure
from toy_models import LATENT_DIM, PCA, SIZE, Judge, Toy, alone, constant, uninformed
from trials import tiny

from vaegan_core import evaluation
from vaegan_core.config.training import EvaluateConfig
from vaegan_core.data.batches import as_tensor, to_images
from vaegan_core.data.frames import FrameSet
from vaegan_core.evaluation import (
    ACTIVE_UNITS,
    AGGREGATE_DISTANCE,
    AUC_PRIOR,
    AUC_RECON,
    FEATURE_GAIN,
    KL,
    KL_PER_DIM,
    LATENT_OFFSET,
    LATENT_RADIUS,
    PERMUTED_MSE_RATIO,
    PIXEL_MSE,
    RECON_FD,
    SAMPLES_FID,
    SSIM,
    Evaluation,
)
from vaegan_core.metrics.distances import structural_similarity
from vaegan_core.metrics.evaluator import Evaluator, latent_metrics
from vaegan_core.metrics.frame_features import FrameFeatures
from vaegan_core.model.networks import Autoencoder, Discriminator, Posterior

ALL = {
    value for name, value in vars(evaluation).items() if name.isupper() and isinstance(value, str) and "val/" in value
} - {SAMPLES_FID}
"""The metrics of every evaluation."""
WITH_KL = {KL, KL_PER_DIM}


# --- The whole --------------------------------------------------------------------------------------------------------


def test_real_networks_get_every_metric_again_bit_for_bit(frame_set: FrameSet, frame_features: FrameFeatures) -> None:
    config = tiny(model__discriminator__spectral_norm=True, model__discriminator__norm="batch")
    torch.manual_seed(0)
    model, discriminator = Autoencoder(config.model, SIZE).eval(), Discriminator(config.model, SIZE)
    before = {key: tensor.clone() for key, tensor in discriminator.state_dict().items()}
    state = torch.get_rng_state()
    found = []
    for _ in range(2):
        evaluator = Evaluator(
            config.evaluate, frame_set, frame_features, 8, torch.device("cpu"), contextlib.nullcontext
        )
        found += [evaluator.metrics(model, discriminator, alone) for _ in range(2)]
    assert set(found[0]) == ALL
    assert all(math.isfinite(value) for value in found[0].values())
    assert all(each == found[0] for each in found)
    assert torch.equal(torch.get_rng_state(), state)
    assert discriminator.training
    assert all(module.training for module in discriminator.modules())
    assert all(torch.equal(before[key], tensor) for key, tensor in discriminator.state_dict().items())


def test_a_discriminator_stays_in_evaluation_mode_if_it_was(
    evaluate: Callable[..., dict[str, float]], pca: PCA
) -> None:
    judge = Judge(lambda x: torch.full((len(x),), float(judge.training))).eval()
    evaluate(pca.encode, pca.decode, judge)
    assert not judge.training


def test_the_discriminator_is_asked_in_evaluation_mode(evaluate: Callable[..., dict[str, float]], pca: PCA) -> None:
    modes = []
    judge = Judge(lambda x: modes.append(judge.training) or torch.zeros(len(x)))
    evaluate(pca.encode, pca.decode, judge)
    assert set(modes) == {False}


def test_a_deterministic_encoder_has_no_kl(evaluate: Callable[..., dict[str, float]], pca: PCA) -> None:
    found = evaluate(lambda x: Posterior(pca.encode(x).mean, None), pca.decode)
    assert set(found) == ALL - WITH_KL


def test_batches_make_no_difference(evaluate: Callable[..., dict[str, float]], pca: PCA) -> None:
    judge = Judge(lambda x: x.mean((1, 2, 3)))
    whole, parts = (evaluate(pca.encode, pca.decode, judge, batch_size=size) for size in (500, 17))
    assert parts == pytest.approx(whole, rel=2e-3)


def test_diagnoses_travel_with_an_evaluation_and_old_ones_have_none() -> None:
    diagnoses = {"kl_explosion": True, "mode_collapse": False, "latent_drift": None}
    new = Evaluation(3, "running", {PIXEL_MSE: 1.0}, diagnoses=diagnoses)
    assert Evaluation.from_bytes(new.to_bytes()) == new
    content = json.loads(zlib.decompress(new.to_bytes()))
    del content["diagnoses"]
    old = zlib.compress(json.dumps(content).encode())
    assert Evaluation.from_bytes(old) == Evaluation(3, "running", {PIXEL_MSE: 1.0})


# --- Reconstructions --------------------------------------------------------------------------------------------------


def test_perfect_reconstructions(evaluate: Callable[..., dict[str, float]]) -> None:
    """A latent that is the image."""
    found = evaluate(
        lambda x: Posterior(x.flatten(1), None),
        lambda z: z.unflatten(1, (3, *SIZE)),
        latent_dim=3 * SIZE[0] * SIZE[1],
    )
    assert found[PIXEL_MSE] == pytest.approx(0, abs=1e-12)
    assert found[SSIM] == pytest.approx(1)
    assert found[RECON_FD] == pytest.approx(0, abs=0.1)
    assert found[PERMUTED_MSE_RATIO] > 1e6


def test_reconstructions_that_ignore_z(evaluate: Callable[..., dict[str, float]], frame_set: FrameSet) -> None:
    found = evaluate(uninformed, constant)
    x = to_images(as_tensor(frame_set.test))
    assert found[PIXEL_MSE] == pytest.approx(float((x - 0.3).square().mean()), rel=1e-4)
    assert found[PERMUTED_MSE_RATIO] == pytest.approx(1, rel=1e-5)
    assert found[SSIM] < 0.3


def test_reconstructions_in_between(evaluate: Callable[..., dict[str, float]], pca: PCA) -> None:
    found = evaluate(pca.encode, pca.decode)
    ignoring = evaluate(uninformed, constant)
    assert found[PIXEL_MSE] < ignoring[PIXEL_MSE] / 5
    assert ignoring[SSIM] < found[SSIM] < 0.95
    assert 0 < found[RECON_FD] < ignoring[RECON_FD] / 2
    assert found[PERMUTED_MSE_RATIO] > 5


def test_ssim_is_symmetric_and_falls_with_noise(frame_set: FrameSet) -> None:
    images = to_images(as_tensor(frame_set.test[:20]))
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    values = [structural_similarity(images, images + std * noise) for std in (0.0, 0.02, 0.1, 0.5)]
    assert values[0] == pytest.approx(1)
    assert values == sorted(values, reverse=True)
    assert structural_similarity(images, -images) < 0.2
    assert structural_similarity(images + noise, images) == structural_similarity(images, images + noise)


def test_ssim_of_large_images_is_the_usual_one_and_small_ones_have_one_too() -> None:
    large, other = torch.rand(2, 2, 3, 24, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    usual = structural_similarity_index_measure((large + 1) / 2, (other + 1) / 2, data_range=1.0)
    assert structural_similarity(large, other) == pytest.approx(float(usual), rel=1e-4)
    for size in (3, 4, 5, 6, 11):
        small = large[:, :, :size, :size]
        assert structural_similarity(small, small) == pytest.approx(1)
        assert structural_similarity(small, -small) < 0


# --- Latents ----------------------------------------------------------------------------------------------------------


def test_latents_of_the_prior() -> None:
    """Posteriors N(mu, 1/2) with mu ~ N(0, 1/2)."""
    generator = torch.Generator().manual_seed(0)
    mean = math.sqrt(0.5) * torch.randn(4000, 32, generator=generator)
    z = mean + math.sqrt(0.5) * torch.randn(4000, 32, generator=generator)
    found = latent_metrics(mean, z, 11.0)
    assert found == {
        KL: 11.0,
        KL_PER_DIM: 11 / 32,
        ACTIVE_UNITS: 32,
        AGGREGATE_DISTANCE: pytest.approx(0, abs=0.001),
        LATENT_OFFSET: pytest.approx(0, abs=0.02),
        LATENT_RADIUS: pytest.approx(1, rel=0.01),
    }


def test_active_units_are_counted() -> None:
    """Standard deviations of the mean on either side of 0.1."""
    direction = torch.tensor([1.0, -1.0]).repeat(50).unsqueeze(1)
    mean = direction * torch.tensor([0.0, 0.09, 0.11, 2.0])
    assert latent_metrics(mean, mean, None)[ACTIVE_UNITS] == 2


def test_latents_that_drifted_or_collapsed() -> None:
    z = torch.full((50, 16), 3.0)
    drifted = latent_metrics(z, z, None)
    assert drifted == {ACTIVE_UNITS: 0, AGGREGATE_DISTANCE: 9 + 1, LATENT_OFFSET: 3, LATENT_RADIUS: 3}
    zero = torch.zeros(50, 16)
    assert latent_metrics(zero, zero, 0.0)[AGGREGATE_DISTANCE] == 1
    wide = latent_metrics(zero, 4 * torch.randn(5000, 16, generator=torch.Generator().manual_seed(0)), 20.0)
    assert wide[LATENT_RADIUS] == pytest.approx(4, rel=0.02)
    assert wide[AGGREGATE_DISTANCE] == pytest.approx(9, rel=0.02)


def test_kl_is_per_image(evaluate: Callable[..., dict[str, float]]) -> None:
    found = evaluate(
        lambda x: Posterior(torch.full((len(x), LATENT_DIM), 2.0), torch.zeros(len(x), LATENT_DIM)), constant
    )
    assert found[KL] == pytest.approx(LATENT_DIM * 2.0)
    assert found[KL_PER_DIM] == pytest.approx(2.0)


# --- The discriminator ------------------------------------------------------------------------------------------------


def test_a_discriminator_that_knows(evaluate: Callable[..., dict[str, float]], pca: PCA) -> None:
    """It recognizes the constant color of the fake ones."""
    contrast = Judge(lambda x: x.flatten(1).std(1))
    assert evaluate(uninformed, constant, contrast)[AUC_RECON] == 1
    assert evaluate(uninformed, constant, contrast)[AUC_PRIOR] == 1
    mistaken = Judge(lambda x: -x.flatten(1).std(1))
    assert evaluate(uninformed, constant, mistaken)[AUC_PRIOR] == 0
    fooled = evaluate(pca.encode, pca.decode)
    assert (fooled[AUC_RECON], fooled[AUC_PRIOR]) == (0.5, 0.5)


def test_the_two_aucs_are_of_their_own_images(evaluate: Callable[..., dict[str, float]], pca: PCA) -> None:
    """Reconstructions are gray, prior samples are not."""
    contrast = Judge(lambda x: -(x.flatten(1).std(1) == 0).float())
    gray = evaluate(
        lambda x: Posterior(torch.full((len(x), LATENT_DIM), 9.0), None),
        lambda z: pca.decode(z) * (z < 8).all(1).view(-1, 1, 1, 1),
        contrast,
    )
    assert gray[AUC_RECON] == 1
    assert gray[AUC_PRIOR] == 0.5


def test_the_fewest_samples_and_the_most_components_of_their_density_have_every_metric(
    evaluate: Callable[..., dict[str, float]], pca: PCA
) -> None:
    found = evaluate(pca.encode, pca.decode, num_samples=4, density_components=4)
    assert set(found) == ALL
    assert all(map(math.isfinite, found.values()))


def test_auc_is_of_the_score(frame_set: FrameSet, frame_features: FrameFeatures, pca: PCA) -> None:
    """A first head that cannot tell images apart, and a second one that knows how contrasted they are."""
    judge = Judge(lambda x: torch.stack([torch.zeros(len(x)), x.std(dim=(1, 2, 3))], dim=1))
    settings = EvaluateConfig(every=1, num_test=60, num_samples=200)
    evaluator = Evaluator(settings, frame_set, frame_features, LATENT_DIM, torch.device("cpu"), contextlib.nullcontext)
    for head, expected in enumerate((0.5, 1.0)):
        metrics = evaluator.metrics(Toy(pca.encode, constant), judge, lambda logits, head=head: logits[:, head])
        assert metrics[AUC_RECON] == metrics[AUC_PRIOR] == expected


def test_feature_gain_is_that_of_the_discriminator(evaluate: Callable[..., dict[str, float]], pca: PCA) -> None:
    for gain in (1.0, 3.0):
        found = evaluate(pca.encode, pca.decode, Judge(lambda x: torch.zeros(len(x)), gain))
        assert found[FEATURE_GAIN] == pytest.approx(gain**2, rel=1e-4)
    assert evaluate(pca.encode, pca.decode, Judge(lambda x: torch.zeros(len(x)), 0.0))[FEATURE_GAIN] == 0
