from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vaegan_core import features
from vaegan_core.capture import FrameSetWriter
from vaegan_core.doom import capture_doom
from vaegan_core.features import FrameFeatures, ensure_features
from vaegan_core.frames import FEATURES_FILE, FrameSet, as_tensor, to_images


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Tensor:
    """Other frames of the training maps than those of `frame_set`: float32 [240, 3, 17, 31]."""
    path = tmp_path_factory.mktemp("fresh") / "doom"
    other = capture_doom(path, num_frames=300, height=17, width=31, seed=1, progress=lambda _: None)
    return to_images(as_tensor(other.train))


def small_frame_set(path: Path, sources: int, count: int) -> FrameSet:
    """Noise of a different brightness in each of `sources` training sources and one test source, 17x31."""
    rng = np.random.default_rng(0)
    with FrameSetWriter(path, height=17, width=31) as writer:
        for i in range(sources + 1):
            writer.add_source(str(i), "train" if i < sources else "test")
            writer.append(rng.integers(0, 100 + 20 * i, (count, 17, 31, 3), dtype=np.uint8))
        return writer.finish({})


def blurred(images: Tensor) -> Tensor:
    return F.interpolate(F.avg_pool2d(images, 2), size=images.shape[2:], mode="bilinear")


def quarters_swapped(images: Tensor) -> Tensor:
    return images.roll((images.shape[2] // 2, images.shape[3] // 2), (2, 3))


def noisy(images: Tensor) -> Tensor:
    return images + 0.05 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))


def mean_colored(images: Tensor) -> Tensor:
    return images.mean((2, 3), keepdim=True).expand_as(images)


def test_worse_images_are_farther(frame_features: FrameFeatures, fresh: Tensor) -> None:
    pictures = (fresh, noisy(fresh), quarters_swapped(fresh), mean_colored(fresh))
    distances = [frame_features.distance(p) for p in pictures]
    assert distances == sorted(distances)
    assert distances[3] > 2 * distances[0]
    assert frame_features.distance(blurred(fresh)) > distances[0]
    assert frame_features.baselines["mean_color_fd"] > 1.5 * frame_features.floor


def test_missing_maps_are_farther(frame_features: FrameFeatures, frame_set: FrameSet) -> None:
    images = to_images(as_tensor(frame_set.train))
    half = images[: len(images) // 2]
    assert frame_features.distance(half) > 2 * frame_features.distance(images[::2])


def test_pixel_baselines(frame_features: FrameFeatures, frame_set: FrameSet) -> None:
    train, test = to_images(as_tensor(frame_set.train)), to_images(as_tensor(frame_set.test))
    baselines = frame_features.baselines
    assert baselines["mean_image_mse"] == pytest.approx(
        float(F.mse_loss(test, train.mean(0).expand_as(test))), rel=1e-4
    )
    assert baselines["mean_color_mse"] == pytest.approx(float(F.mse_loss(test, mean_colored(test))), rel=1e-4)
    channels = train.transpose(0, 1).flatten(1)
    assert baselines["train_variance"] == pytest.approx(float(channels.var(1, unbiased=False).mean()), rel=1e-4)
    assert baselines["mean_color_mse"] < baselines["mean_image_mse"]


def test_batches_give_the_distance_of_the_whole(frame_features: FrameFeatures, fresh: Tensor) -> None:
    whole = frame_features.distance(fresh)
    assert frame_features.distance(batch for batch in torch.split(fresh, 37)) == pytest.approx(whole, rel=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        assert frame_features.distance(fresh) == pytest.approx(whole, rel=1e-6)


def test_stored_features_are_the_same(
    frame_features: FrameFeatures, frame_set: FrameSet, fresh: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FrameFeatures, "train", None)
    loaded = ensure_features(frame_set)
    assert loaded.fingerprint == frame_features.fingerprint
    assert (loaded.floor, loaded.baselines) == (frame_features.floor, frame_features.baselines)
    assert loaded.distance(fresh) == frame_features.distance(fresh)


def test_stored_features_that_do_not_fit_are_refused(
    frame_features: FrameFeatures, frame_set: FrameSet, tmp_path: Path
) -> None:
    path = tmp_path / FEATURES_FILE
    frame_features.save(path)
    with pytest.raises(ValueError, match=f"{FEATURES_FILE} must be for frame set other"):
        FrameFeatures.load(path, "other")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=FEATURES_FILE):
        FrameFeatures.load(path, frame_set.fingerprint)
    path.write_bytes(data[:100])
    with pytest.raises(ValueError, match=FEATURES_FILE):
        FrameFeatures.load(path, frame_set.fingerprint)


@pytest.mark.parametrize(("sources", "count"), [(1, 60), (2, 20), (3, 20)])
def test_training_is_reproducible_also_on_very_small_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sources: int, count: int
) -> None:
    monkeypatch.setattr(features, "STEPS", 4)
    frame_set = small_frame_set(tmp_path / "set", sources, count)
    before = torch.get_rng_state()
    steps: list[tuple[int, int]] = []
    first = FrameFeatures.train(frame_set, progress=lambda done, total: steps.append((done, total)))
    assert torch.equal(torch.get_rng_state(), before)
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert FrameFeatures.train(frame_set).fingerprint == first.fingerprint
    assert FrameFeatures.train(frame_set, seed=1).fingerprint != first.fingerprint
    assert np.isfinite(first.floor)


def test_damaged_features_are_trained_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "STEPS", 2)
    frame_set = small_frame_set(tmp_path / "set", 2, 20)
    path = tmp_path / "set" / FEATURES_FILE
    path.write_bytes(b"damaged")
    trained = ensure_features(frame_set)
    assert FrameFeatures.load(path, frame_set.fingerprint).fingerprint == trained.fingerprint


def test_a_directory_that_cannot_be_written_to_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(features, "STEPS", 2)
    monkeypatch.setattr(features, "save_tensors", read_only)
    frame_set = small_frame_set(tmp_path / "set", 2, 20)
    assert ensure_features(frame_set).frames_fingerprint == frame_set.fingerprint
    assert not (tmp_path / "set" / FEATURES_FILE).exists()


def test_too_few_frames_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 16 training frames"):
        FrameFeatures.train(small_frame_set(tmp_path / "set", 2, 4))
