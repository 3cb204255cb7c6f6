"""Metrics of samples: copies, collapsed, blurred, streaked; z wrong or the decoder."""

import contextlib
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from toy_models import LATENT_DIM, PCA, SIZE, Judge, Toy, alone, constant, uninformed

from vaegan_core.config.training import EvaluateConfig
from vaegan_core.data.batches import as_tensor, to_images
from vaegan_core.data.frames import FrameSet
from vaegan_core.evaluation import (
    DECODER_GAP,
    DIVERSITY,
    DUPLICATES,
    EXPOST_GAP,
    FITTED_LAYOUT_FD,
    GAP_FLOOR,
    LAYOUT_FD,
    NEAREST_TRAIN,
    PRIOR_GAP,
    SAMPLES_FD,
    SAMPLES_KID,
    SAMPLES_SWD,
)
from vaegan_core.metrics.evaluator import Evaluator
from vaegan_core.metrics.feature_space import blurred
from vaegan_core.metrics.frame_features import FrameFeatures
from vaegan_core.model.networks import Posterior

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


def test_the_floor_of_the_gaps_does_not_depend_on_the_order_of_the_frames(
    frame_set: FrameSet, frame_features: FrameFeatures, pca: PCA
) -> None:
    """One source after the other, as they lie, and shuffled."""
    settings = EvaluateConfig(every=1, num_test=60, num_samples=frame_set.num_train)
    judge, floors = Judge(lambda x: torch.zeros(len(x))), []
    order = np.random.default_rng(0).permutation(frame_set.num_train)
    for train in (frame_set.train, frame_set.train[order]):
        frames = FrameSet(np.concatenate([train, frame_set.test]), frame_set.manifest)
        evaluator = Evaluator(settings, frames, frame_features, LATENT_DIM, torch.device("cpu"), contextlib.nullcontext)
        floors.append(evaluator.metrics(Toy(pca.encode, pca.decode), judge, alone)[GAP_FLOOR])
    assert floors[1] == pytest.approx(floors[0], rel=0.2)


def test_a_collapsed_decoder_has_no_gap_of_z_but_the_largest_other_distances(
    evaluate: Callable[..., dict[str, float]], pca: PCA
) -> None:
    collapsed, right = evaluate(uninformed, constant), evaluate(pca.encode, pca.decode)
    assert collapsed[PRIOR_GAP] == collapsed[EXPOST_GAP] == collapsed[GAP_FLOOR] == pytest.approx(0, abs=1e-3)
    assert collapsed[DECODER_GAP] > 3 * right[DECODER_GAP]
    assert collapsed[LAYOUT_FD] > 3 * right[LAYOUT_FD]
