"""Validation: every metric on a good, a bad and a degenerate model, with answers known where there are some."""

import contextlib
import json
import math
import zlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure
from trials import tiny

from vaegan_core import evaluation
from vaegan_core.config import EvaluateConfig
from vaegan_core.data.batches import as_tensor, to_images
from vaegan_core.data.frames import FrameSet
from vaegan_core.evaluation import (
    ACTIVE_UNITS,
    AGGREGATE_DISTANCE,
    AUC_PRIOR,
    AUC_RECON,
    DECODER_GAP,
    DIVERSITY,
    DUPLICATES,
    EXPOST_GAP,
    FEATURE_GAIN,
    FITTED_LAYOUT_FD,
    GAP_FLOOR,
    KL,
    KL_PER_DIM,
    LATENT_OFFSET,
    LATENT_RADIUS,
    LAYOUT_FD,
    NEAREST_TRAIN,
    PERMUTED_MSE_RATIO,
    PIXEL_MSE,
    PRIOR_GAP,
    RECON_FD,
    SAMPLES_FD,
    SAMPLES_FID,
    SAMPLES_KID,
    SAMPLES_SWD,
    SSIM,
    Evaluation,
)
from vaegan_core.metrics.distances import structural_similarity
from vaegan_core.metrics.evaluator import Evaluator, latent_metrics
from vaegan_core.metrics.feature_space import blurred
from vaegan_core.metrics.frame_features import FrameFeatures
from vaegan_core.model.networks import Autoencoder, Discriminator, Posterior

LATENT_DIM = 64
SIZE = (17, 31)
ALL = {
    value for name, value in vars(evaluation).items() if name.isupper() and isinstance(value, str) and "val/" in value
} - {SAMPLES_FID}
"""The metrics of every evaluation."""
WITH_KL = {KL, KL_PER_DIM}


class Toy(nn.Module):
    """An autoencoder put together of functions."""

    def __init__(self, encoder: Callable[[Tensor], Posterior], decoder: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder


class Judge(nn.Module):
    """A discriminator put together of functions of images: logits and features."""

    def __init__(self, logit: Callable[[Tensor], Tensor], gain: float = 1.0) -> None:
        super().__init__()
        self.logit, self.gain = logit, gain

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.logit(x), self.gain * x


class PCA:
    """Principal components of training frames as encoder and decoder: a model that needs no training.

    Latents of training frames have mean 0 and variance 1 in every dimension.
    """

    def __init__(self, images: Tensor) -> None:
        flat = images.flatten(1)
        self.center = flat.mean(0)
        _, values, vectors = torch.linalg.svd(flat - self.center, full_matrices=False)
        self.directions = vectors[:LATENT_DIM] * values[:LATENT_DIM, None] / math.sqrt(len(flat))
        self.inverse = torch.linalg.pinv(self.directions)

    def encode(self, x: Tensor) -> Posterior:
        mean = (x.flatten(1) - self.center) @ self.inverse
        return Posterior(mean, torch.full_like(mean, -6.0))

    def decode(self, z: Tensor) -> Tensor:
        return (z @ self.directions + self.center).unflatten(1, (3, *SIZE)).clamp(-1, 1)


@pytest.fixture(scope="module")
def pca(frame_set: FrameSet) -> PCA:
    return PCA(to_images(as_tensor(frame_set.train)))


@pytest.fixture
def evaluate(frame_set: FrameSet, frame_features: FrameFeatures) -> Callable[..., dict[str, float]]:
    """Metrics of a toy of these functions, the discriminator fooled completely unless given."""

    def metrics(
        encoder: nn.Module, decoder: nn.Module, discriminator: Any = None, latent_dim: int = LATENT_DIM, **config: Any
    ) -> dict[str, float]:
        settings = EvaluateConfig(**{"every": 1, "num_test": 60, "num_samples": 200, **config})
        evaluator = Evaluator(
            settings, frame_set, frame_features, latent_dim, torch.device("cpu"), contextlib.nullcontext
        )
        judge = discriminator or Judge(lambda x: torch.zeros(len(x)))
        return evaluator.metrics(Toy(encoder, decoder), judge, alone)

    return metrics


def alone(logits: Tensor) -> Tensor:
    """The score of a D whose only logit is that of the whole image."""
    return logits


def constant(z: Tensor) -> Tensor:
    return torch.full((len(z), 3, *SIZE), 0.3)


def uninformed(x: Tensor) -> Posterior:
    return Posterior(torch.zeros(len(x), LATENT_DIM), torch.zeros(len(x), LATENT_DIM))


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


# --- Prior samples ----------------------------------------------------------------------------------------------------


def frames_as_samples(images: Tensor) -> Callable[[Tensor], Tensor]:
    """A decoder that gives these, evenly spread, whatever z."""
    return lambda z: images[torch.arange(len(z)) * len(images) // len(z)]


def test_copies_of_training_frames(
    evaluate: Callable[..., dict[str, float]], frame_set: FrameSet, frame_features: FrameFeatures
) -> None:
    copies = frames_as_samples(to_images(as_tensor(frame_set.train)))
    found = evaluate(uninformed, copies, num_samples=120)
    assert found[SAMPLES_FD] < frame_features.floor
    assert found[NEAREST_TRAIN] == pytest.approx(0, abs=0.01)
    assert found[DIVERSITY] == pytest.approx(1, abs=0.15)
    assert found[DUPLICATES] < 0.1


def test_real_frames_that_are_no_copies(evaluate: Callable[..., dict[str, float]], frame_set: FrameSet) -> None:
    """Test frames for samples: about as diverse as training frames, but not among them."""
    found = evaluate(uninformed, frames_as_samples(to_images(as_tensor(frame_set.test))), num_samples=60)
    assert found[NEAREST_TRAIN] > 0.7
    assert found[DIVERSITY] > 0.6


def test_collapsed_samples(evaluate: Callable[..., dict[str, float]]) -> None:
    found = evaluate(uninformed, constant)
    assert found[DIVERSITY] == pytest.approx(0, abs=1e-3)
    assert found[DUPLICATES] == 1


def test_samples_of_few_modes_are_duplicates(evaluate: Callable[..., dict[str, float]], frame_set: FrameSet) -> None:
    images = to_images(as_tensor(frame_set.train[::40]))
    found = evaluate(uninformed, frames_as_samples(images), num_samples=120)
    assert found[DUPLICATES] == 1
    assert found[DIVERSITY] > 0.5


def test_better_samples_are_nearer_in_every_distance(
    evaluate: Callable[..., dict[str, float]], pca: PCA, frame_set: FrameSet
) -> None:
    """Copies, Gaussian samples of the frames' principal components, their mean, noise."""
    copies = frames_as_samples(to_images(as_tensor(frame_set.train)))
    generator = torch.Generator().manual_seed(0)
    decoders = (
        copies,
        pca.decode,
        lambda z: pca.decode(0 * z),
        lambda z: torch.rand(len(z), 3, *SIZE, generator=generator),
    )
    found = [evaluate(uninformed, decoder) for decoder in decoders]
    for key in (LAYOUT_FD, SAMPLES_FD, SAMPLES_KID, SAMPLES_SWD):
        values = [metrics[key] for metrics in found]
        assert values[0] < values[1] < min(values[2:]), key


def test_layout_counts_and_sharpness_does_not(
    evaluate: Callable[..., dict[str, float]], frame_set: FrameSet, pca: PCA
) -> None:
    """Blurred frames have a layout; frames with their halves exchanged are sharp, and streaks have contrast."""
    frames = to_images(as_tensor(frame_set.train))
    streaks = torch.randn(len(frames), 3, 1, SIZE[1], generator=torch.Generator().manual_seed(0)).expand_as(frames)
    kinds = {
        "frames": frames,
        "blurred": blurred(frames, 1 / SIZE[0]),
        "noisy": frames + 0.1 * torch.randn(frames.shape, generator=torch.Generator().manual_seed(0)),
        "exchanged": frames.roll(SIZE[0] // 2, 2),
        "streaks": streaks.clamp(-1, 1),
        "contrast": (2 * pca.decode(4 * torch.randn(len(frames), LATENT_DIM))).clamp(-1, 1),
        "one frame": frames[:1].expand_as(frames),
        "mean frame": frames.mean(0, keepdim=True).expand_as(frames),
    }
    found = {name: evaluate(uninformed, frames_as_samples(images)) for name, images in kinds.items()}
    layout = {name: metrics[LAYOUT_FD] for name, metrics in found.items()}
    assert layout["noisy"] < 1.5 * layout["frames"]
    assert layout["blurred"] < 2 * layout["frames"]
    assert min(value for name, value in layout.items() if name not in ("frames", "noisy", "blurred")) > max(
        layout["blurred"], 2 * layout["frames"]
    )
    assert layout["exchanged"] > 3 * layout["blurred"]
    assert found["exchanged"][SAMPLES_FD] < 1.5 * found["blurred"][SAMPLES_FD], "sharp images are told apart by both"


@pytest.mark.parametrize("distance", ["samples", "layout"])
def test_another_z_moves_the_sample_metrics_little(pca: PCA, frame_features: FrameFeatures, distance: str) -> None:
    distances, layouts = [], frame_features.layouts
    assert layouts is not None
    for seed in range(3):
        images = pca.decode(torch.randn(2000, LATENT_DIM, generator=torch.Generator().manual_seed(seed)))
        if distance == "samples":
            distances.append(frame_features.distance(images))
        else:
            distances.append(layouts.frechet(layouts.space.project(images)))
    assert max(distances) <= 1.05 * min(distances)
    assert len(set(distances)) == 3


# --- Gaps -------------------------------------------------------------------------------------------------------------


def test_a_wrong_z_is_one_gap_and_a_blurred_decoder_the_other(
    evaluate: Callable[..., dict[str, float]], pca: PCA
) -> None:
    """The principal components with latents as the prior has them; four times as large; with a blurred decoder."""
    right = evaluate(pca.encode, pca.decode)
    wrong_z = evaluate(
        lambda x: Posterior(4 * pca.encode(x).mean, torch.full((len(x), LATENT_DIM), -6.0)),
        lambda z: pca.decode(z / 4),
    )
    blurry = evaluate(pca.encode, lambda z: blurred(pca.decode(z), 2 / SIZE[0]))
    assert wrong_z[PRIOR_GAP] > 3 * right[PRIOR_GAP]
    assert wrong_z[DECODER_GAP] == pytest.approx(right[DECODER_GAP], rel=0.05)
    assert wrong_z[EXPOST_GAP] < wrong_z[PRIOR_GAP] / 3, "the fitted density repairs it"
    assert wrong_z[FITTED_LAYOUT_FD] < wrong_z[LAYOUT_FD] / 2
    assert blurry[DECODER_GAP] > 3 * right[DECODER_GAP]
    assert blurry[PRIOR_GAP] < right[PRIOR_GAP]
    for metrics in (right, wrong_z):
        assert 0 < metrics[GAP_FLOOR] < 1.5 * metrics[EXPOST_GAP]


def test_a_collapsed_decoder_has_no_gap_of_z_but_the_largest_other_distances(
    evaluate: Callable[..., dict[str, float]], pca: PCA
) -> None:
    collapsed, right = evaluate(uninformed, constant), evaluate(pca.encode, pca.decode)
    assert collapsed[PRIOR_GAP] == collapsed[EXPOST_GAP] == collapsed[GAP_FLOOR] == pytest.approx(0, abs=1e-3)
    assert collapsed[DECODER_GAP] > 3 * right[DECODER_GAP]
    assert collapsed[LAYOUT_FD] > 3 * right[LAYOUT_FD]


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
