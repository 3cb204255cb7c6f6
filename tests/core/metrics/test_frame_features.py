from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vaegan_core.data.batches import as_tensor, to_images
from vaegan_core.data.doom.capture import capture_doom
from vaegan_core.data.frames import FEATURES_FILE, FrameManifest, FrameSet, Source
from vaegan_core.data.writer import FrameSetWriter
from vaegan_core.metrics import frame_features as features
from vaegan_core.metrics import source_classifier
from vaegan_core.metrics.frame_features import FrameFeatures, ensure_features, matched_kernel_distance
from vaegan_core.metrics.settings import SETTINGS, reduction_of
from vaegan_core.metrics.sliced_wasserstein import sliced_wasserstein
from vaegan_core.metrics.source_classifier import SourceClassifier
from vaegan_core.tensor_files import load_tensors, save_tensors


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> FrameSet:
    """Three times the frames of `frame_set`: of fewer, new real frames are hardly nearer than corrupted ones."""
    path = tmp_path_factory.mktemp("larger") / "doom"
    return capture_doom(path, num_frames=900, height=17, width=31, seed=0, progress=lambda _: None)


@pytest.fixture(scope="module")
def larger_features(larger: FrameSet) -> FrameFeatures:
    return FrameFeatures.train(larger)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Tensor:
    """Other frames of the training maps than those of `larger`: float32 [720, 3, 17, 31], map by map."""
    path = tmp_path_factory.mktemp("fresh") / "doom"
    other = capture_doom(path, num_frames=900, height=17, width=31, seed=1, progress=lambda _: None)
    return to_images(as_tensor(other.train))


Corruption = Callable[[Tensor], Tensor]


def small_frame_set(path: Path, sources: int, count: int, height: int = 17, width: int = 31) -> FrameSet:
    """Noise of a different brightness in each of `sources` training sources and one test source."""
    rng = np.random.default_rng(0)
    with FrameSetWriter(path, height=height, width=width) as writer:
        for i in range(sources + 1):
            writer.add_source(str(i), "train" if i < sources else "test")
            number = count if i < sources else max(count, 2)
            writer.append(rng.integers(0, 100 + 20 * (i % 7), (number, height, width, 3), np.uint8))
        return writer.finish({})


def short_training(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    monkeypatch.setattr(source_classifier, "SETTINGS", replace(SETTINGS, steps=steps))


def noisy(std: float) -> Corruption:
    return lambda images: images + std * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))


def blurred(factor: int) -> Corruption:
    return lambda images: F.interpolate(F.avg_pool2d(images, factor), size=images.shape[2:], mode="bilinear")


def shuffled(parts: int) -> Corruption:
    """A grid of parts x parts patches, each where the one on the other side of the center was."""

    def corrupt(images: Tensor) -> Tensor:
        for axis in (2, 3):
            images = torch.cat(torch.tensor_split(images, parts, axis)[::-1], axis)
        return images

    return corrupt


def shifted(color: float) -> Corruption:
    return lambda images: images + color


def mean_colored(images: Tensor) -> Tensor:
    return images.mean((2, 3), keepdim=True).expand_as(images)


@pytest.mark.parametrize(
    "grades",
    [
        (noisy(0.05), noisy(0.1), noisy(0.2)),
        (blurred(2), blurred(4), mean_colored),
        (shuffled(2), shuffled(4)),
        (shifted(0.1), shifted(0.2), shifted(0.4)),
    ],
    ids=["noise", "blur", "shuffled patches", "color"],
)
def test_worse_images_are_farther(
    larger_features: FrameFeatures, fresh: Tensor, grades: tuple[Corruption, ...]
) -> None:
    distances = [larger_features.distance(fresh)] + [larger_features.distance(grade(fresh)) for grade in grades]
    assert distances == sorted(distances)


def test_shuffled_patches_are_clearly_farther_than_the_floor(larger_features: FrameFeatures, fresh: Tensor) -> None:
    real = larger_features.distance(fresh)
    assert larger_features.distance(shuffled(2)(fresh)) > 1.3 * max(real, larger_features.floor)


def test_missing_maps_are_clearly_farther(larger_features: FrameFeatures, larger: FrameSet, fresh: Tensor) -> None:
    """One half of the maps or the other, against as many frames of all of them. Of training frames: what a model would
    give that has learned half of its frames by heart. Of others: 1.3 times as far, on average."""

    def distances(images: Tensor) -> tuple[float, float, float]:
        half = len(images) // 2
        first, second, mixed = (larger_features.distance(some) for some in (images[:half], images[half:], images[::2]))
        return first, second, mixed

    first, second, mixed = distances(to_images(as_tensor(larger.train)))
    assert min(first, second) > 2 * mixed
    first, second, mixed = distances(fresh)
    assert (first + second) / 2 > 1.3 * mixed


def test_the_floor_lies_between_copies_and_mean_colors(
    larger_features: FrameFeatures, larger: FrameSet, fresh: Tensor
) -> None:
    """In every distance that is reported; the floor is of fewer frames than the others."""
    baselines, reference = larger_features.baselines, larger_features.reference
    copies = to_images(as_tensor(larger.train))
    assert larger_features.distance(copies) < larger_features.floor < baselines["mean_color_fd"] / 5
    points = larger_features.space.project(copies[::2])
    assert matched_kernel_distance(points, reference) < baselines["floor_kid"] < baselines["mean_color_kid"] / 5
    assert 0 < baselines["floor_swd"] < baselines["mean_color_swd"] / 2
    assert larger_features.nearest(points) < 0.1
    assert larger_features.nearest(larger_features.space.project(fresh)) > 0.8


def test_test_frames_are_their_own_reference(larger_features: FrameFeatures, larger: FrameSet) -> None:
    images = to_images(as_tensor(larger.test))
    perfect = larger_features.test_frechet(larger_features.space.project(images))
    assert perfect == pytest.approx(0, abs=0.1)
    assert larger_features.test_frechet(larger_features.space.project(blurred(4)(images))) > 100
    assert larger_features.distance(images) > larger_features.floor  # other maps


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
    for enabled in (True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            assert frame_features.distance(fresh) == whole


def test_bfloat16_moves_a_distance_little(
    larger_features: FrameFeatures, fresh: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [larger_features.distance(images) for images in (fresh, blurred(4)(fresh))]
    monkeypatch.setattr(source_classifier, "_fast", lambda device: torch.autocast(device.type, enabled=False))
    exact = [larger_features.distance(images) for images in (fresh, blurred(4)(fresh))]
    assert found == pytest.approx(exact, rel=0.02)


def test_stored_features_are_the_same(
    frame_features: FrameFeatures, frame_set: FrameSet, fresh: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FrameFeatures, "train", None)
    loaded = ensure_features(frame_set)
    assert loaded.fingerprint == frame_features.fingerprint
    for name in ("floor", "held_out_nearest", "baselines"):
        assert getattr(loaded, name) == getattr(frame_features, name)
    points = frame_features.space.project(fresh)
    assert torch.equal(loaded.space.project(fresh), points)
    assert loaded.frechet(points) == frame_features.frechet(points)
    assert loaded.test_frechet(points) == frame_features.test_frechet(points)
    assert loaded.nearest(points) == frame_features.nearest(points)
    assert sliced_wasserstein(fresh, loaded.sliced) == sliced_wasserstein(fresh, frame_features.sliced)


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


@pytest.mark.parametrize(("sources", "count"), [(1, 16), (1, 60), (2, 20), (3, 20), (6, 3), (40, 1)])
def test_training_is_reproducible_also_on_very_small_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sources: int, count: int
) -> None:
    short_training(monkeypatch, steps=4)
    frame_set = small_frame_set(tmp_path / "set", sources, count)
    before = torch.get_rng_state()
    steps: list[tuple[int, int]] = []
    first = FrameFeatures.train(frame_set, progress=lambda done, total: steps.append((done, total)))
    assert torch.equal(torch.get_rng_state(), before)
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert FrameFeatures.train(frame_set).fingerprint == first.fingerprint
    assert FrameFeatures.train(frame_set, seed=1).fingerprint != first.fingerprint
    assert np.isfinite(first.floor)


def test_features_of_other_settings_are_trained_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As is a file of before there were settings to compare, and tensors that are now wanted."""
    short_training(monkeypatch, steps=2)
    frame_set = small_frame_set(tmp_path / "set", 2, 20)
    path = tmp_path / "set" / FEATURES_FILE
    trained = ensure_features(frame_set)
    tensors, metadata = load_tensors(path)
    del tensors["reference"]
    save_tensors(path, tensors, metadata | {"settings": {"steps": 350}})
    with pytest.raises(ValueError, match="other settings"):
        FrameFeatures.load(path, frame_set.fingerprint)
    assert ensure_features(frame_set).fingerprint == trained.fingerprint
    assert FrameFeatures.load(path, frame_set.fingerprint).fingerprint == trained.fingerprint


def test_damaged_features_are_trained_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short_training(monkeypatch, steps=2)
    frame_set = small_frame_set(tmp_path / "set", 2, 20)
    path = tmp_path / "set" / FEATURES_FILE
    path.write_bytes(b"damaged")
    trained = ensure_features(frame_set)
    assert FrameFeatures.load(path, frame_set.fingerprint).fingerprint == trained.fingerprint


def test_a_directory_that_cannot_be_written_to_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: object) -> None:
        raise PermissionError("read-only")

    short_training(monkeypatch, steps=2)
    monkeypatch.setattr(features, "save_tensors", read_only)
    frame_set = small_frame_set(tmp_path / "set", 2, 20)
    assert ensure_features(frame_set).frames_fingerprint == frame_set.fingerprint
    assert not (tmp_path / "set" / FEATURES_FILE).exists()


def test_too_few_frames_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 16 training frames"):
        FrameFeatures.train(small_frame_set(tmp_path / "set", 2, 4))


@pytest.mark.parametrize(
    ("counts", "classes"),
    [
        ((16,), 2),
        ((30,), 3),
        ((60, 60), 2),
        ((1,) * 16, 2),
        ((1,) * 2_000, 250),
        ((1,) * 20_000, 500),
        ((3,) * 20, 6),
        ((1,) * 40 + (300,), 6),
        ((9, 7), 2),
    ],
)
def test_a_fifth_or_more_is_held_out_of_sources_of_any_length(counts: tuple[int, ...], classes: int) -> None:
    """With 16 training frames or more, whichever sources they come from; short sources are held out as a whole."""
    starts = np.cumsum([0, *counts])
    sources = [Source(name=f"{i}", split="train", start=int(starts[i]), count=n) for i, n in enumerate(counts)]
    manifest = FrameManifest(height=9, width=9, sources=tuple(sources), made_by={}, sha256="")
    used, held_out, labels = features._held_out(FrameSet(np.zeros((sum(counts), 9, 9, 3), np.uint8), manifest))
    assert sorted([*used, *held_out]) == list(range(sum(counts)))
    assert 0.2 <= len(held_out) / sum(counts) <= 0.5
    assert len(used) >= 8
    assert sorted(set(labels)) == list(range(classes))
    if max(counts) < 8:
        assert not {*np.searchsorted(starts, used, "right")} & {*np.searchsorted(starts, held_out, "right")}


def test_large_frames_are_reduced_and_features_of_before_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network's time goes with the area. Stored features whose network saw whole frames go on seeing them."""
    seen = []
    conv = SourceClassifier.features
    monkeypatch.setattr(SourceClassifier, "features", lambda self, x: seen.append(x.shape[2:]) or conv(self, x))
    short_training(monkeypatch, steps=1)
    frame_set = small_frame_set(tmp_path / "set", 2, 10, 90, 122)
    images = to_images(as_tensor(frame_set.test))
    points = ensure_features(frame_set).space.project(images)
    assert set(seen) == {(45, 61)}
    assert torch.equal(ensure_features(frame_set).space.project(images), points)
    tensors, metadata = load_tensors(tmp_path / "set" / FEATURES_FILE)
    del metadata["reduction"]
    save_tensors(tmp_path / "set" / FEATURES_FILE, tensors, metadata)
    ensure_features(frame_set).space.project(images)
    assert seen[-1] == (90, 122)


@pytest.mark.parametrize(("size", "factor"), [((27, 48), 1), ((65, 121), 1), ((128, 128), 2), ((1080, 1920), 16)])
def test_the_sizes_of_shipped_sweeps_are_not_reduced(size: tuple[int, int], factor: int) -> None:
    assert reduction_of(*size) == factor


def test_frames_of_a_single_color_are_refused(tmp_path: Path, frame_features: FrameFeatures) -> None:
    """Before anything is trained, and also with features of a version that trained them."""
    with FrameSetWriter(tmp_path / "set", height=17, width=31) as writer:
        for split in ("train", "test"):
            writer.add_source(split, split)
            writer.append(np.full((20, 17, 31, 3), [9, 90, 200], np.uint8))
        frame_set = writer.finish({})
    for _ in range(2):
        with pytest.raises(ValueError, match=r"the training frames of .*set show nothing, each is of a single color"):
            ensure_features(frame_set)
        stored = replace(frame_features, frames_fingerprint=frame_set.fingerprint)
        replace(stored, baselines=stored.baselines | {"train_variance": 0.0}).save(tmp_path / "set" / FEATURES_FILE)


def test_settings_are_stored_as_they_always_were() -> None:
    """Features on disk stay valid: a change here makes every frame set train its network anew."""
    assert SETTINGS.dump() == {
        "channels": [32, 64, 128, 128],
        "grid": [2, 4],
        "steps": 350,
        "batch_size": 64,
        "lr": 1e-3,
        "weight_decay": 0.01,
        "label_smoothing": 0.1,
        "roll": 2,
        "color_jitter": 0.3,
        "dimensions": 128,
        "max_reference": 10_000,
        "held_out": [0.2, 4],
        "compared": 2_000,
        "sliced": {"images": 128, "patch": 7, "patches": 16, "projections": 64},
    }


def test_features_stored_without_layouts_get_them_and_stay_what_they_are(
    frame_features: FrameFeatures, frame_set: FrameSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of a version before 0.2: its network is not trained anew, and its fingerprint stays."""
    monkeypatch.setattr(FrameFeatures, "train", None)
    old = replace(frame_features, layouts=None)
    old.save(tmp_path / FEATURES_FILE)
    assert FrameFeatures.load(tmp_path / FEATURES_FILE, frame_set.fingerprint).layouts is None
    moved = replace(frame_set, path=tmp_path)
    for _ in range(2):
        completed = ensure_features(moved)
        assert completed.layouts is not None
        assert frame_features.layouts is not None
        assert torch.allclose(completed.layouts.cov, frame_features.layouts.cov)
        assert completed.fingerprint == old.fingerprint == frame_features.fingerprint
        assert completed.baselines == pytest.approx(frame_features.baselines)
