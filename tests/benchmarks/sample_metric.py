"""What the sample metrics say of real frames, corrupted ones and copies. Corruptions are half of the evidence: a
distance that orders them well may still prefer a trained model's streaks; see sample_pairs.py for the other half.

    python tests/benchmarks/sample_metric.py                                  61x33, 12,000 frames: some minutes
    python tests/benchmarks/sample_metric.py --size 48x27 --frames 6000       the demo's size

Two captures of the same maps with different seeds: the features are trained on the first, the images come from the
second, so that no image is a training frame. FD is also given with the network in float32, SWD at 128 images.
Distances fall with the number of images; all rows have equally many.

At 48x27, 1,000 images a row, as multiples of new real frames' (layout FD 34.5, FD 30.0):

                shuffled 2x2   4x4   blur x2    x4    x8   noise .05    .2   half, 3/4 of the maps dropped   100 frames
    layout FD        3.0       4.1     1.1     1.5   3.7      1.0      1.1     1.3 to 2.2, 2.6 to 3.6            5.1
    FD               3.4       6.3     5.4    13.6  22.4      2.5     36.7     1.5 to 1.9, 2.8 to 3.4            6.2

FD as a multiple of new real frames', one training each; `--jitter 0` is the network without recolored images:

    size, frames     jitter   real   noise .05   blur x2   shuffled 2x2   brighter .05   half of the maps (least)
    48x27,  6,000     0       53.4      1.5        2.9          1.7            2.7              1.8 (1.1)
    48x27,  6,000      .3     23.6      3.7        6.7          4.3            2.8              2.0 (1.7)
    61x33, 12,000     0       16.9      2.7        5.6          3.0            6.5              2.1 (1.7)
    61x33, 12,000      .3     15.9      5.4        9.5          5.0            2.8              1.6 (1.3)
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vaegan_core.data.batches import as_tensor, to_images
from vaegan_core.data.doom.capture import capture_doom
from vaegan_core.data.frames import FrameSet
from vaegan_core.metrics import source_classifier
from vaegan_core.metrics.distances import median_pair_distance, pair_distances
from vaegan_core.metrics.frame_features import (
    FrameFeatures,
    matched,
    matched_kernel_distance,
)
from vaegan_core.metrics.settings import MAX_PAIRED, SETTINGS
from vaegan_core.metrics.sliced_wasserstein import sliced_wasserstein

Corruption = Callable[[Tensor], Tensor]


def noisy(std: float) -> Corruption:
    return lambda images: images + std * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))


def blurred(factor: int) -> Corruption:
    return lambda images: F.interpolate(
        F.avg_pool2d(images, factor, ceil_mode=True), size=images.shape[2:], mode="bilinear"
    )


def shuffled(parts: int) -> Corruption:
    """Patches of a grid in another order in every image; rows and columns that are over stay."""

    def corrupt(images: Tensor) -> Tensor:
        size = (images.shape[2] // parts, images.shape[3] // parts)
        cut = (parts * size[0], parts * size[1])
        patches = F.unfold(images[:, :, : cut[0], : cut[1]], size, stride=size)
        generator = torch.Generator().manual_seed(0)
        order = torch.stack([torch.randperm(parts**2, generator=generator) for _ in images])
        result = images.clone()
        mixed = patches.gather(2, order.unsqueeze(1).expand_as(patches))
        result[:, :, : cut[0], : cut[1]] = F.fold(mixed, cut, size, stride=size)
        return result

    return corrupt


def mean_colored(images: Tensor) -> Tensor:
    return images.mean((2, 3), keepdim=True).expand_as(images)


GRADED: dict[str, dict[str, Corruption]] = {
    "noise": {f"noise {std}": noisy(std) for std in (0.025, 0.05, 0.1, 0.2)},
    "blur": {f"blur x{factor}": blurred(factor) for factor in (2, 4, 8)},
    "shuffled patches": {f"shuffled {parts}x{parts}": shuffled(parts) for parts in (2, 4)},
    "color shift": {f"brighter by {shift}": lambda images, shift=shift: images + shift for shift in (0.05, 0.1, 0.2)},
    "contrast": {f"contrast x{scale}": lambda images, scale=scale: images * scale for scale in (0.9, 0.75, 0.5)},
}
ALONE: dict[str, Corruption] = {"mirrored": lambda images: images.flip(3), "mean color": mean_colored}
COLUMNS = ("layout FD", "FD", "FD float32", "KID", "SWD", "nearest", "diversity", "duplicates")


def capture(path: Path, frames: int, width: int, height: int, seed: int) -> FrameSet:
    if not path.exists():
        capture_doom(path, num_frames=frames, height=height, width=width, seed=seed, progress=lambda _: None)
    return FrameSet.open(path)


def of_maps(frame_set: FrameSet, share: float, count: int, seed: int = 0) -> Tensor:
    """`count` training images, evenly spread, of a random `share` of the maps."""
    sources = frame_set.sources("train")
    kept = np.sort(np.random.default_rng(seed).permutation(len(sources))[: round(share * len(sources))])
    indices = np.concatenate([np.arange(s.start, s.start + s.count) for s in (sources[i] for i in kept)])
    return to_images(as_tensor(frame_set.train[indices[np.linspace(0, len(indices) - 1, count).astype(int)]]))


def row(features: FrameFeatures, images: Tensor) -> list[float]:
    points = features.space.project(images)
    with mock.patch.object(source_classifier, "_fast", lambda device: torch.autocast(device.type, enabled=False)):
        exact = features.distance(images)
    paired = min(len(points), len(features.reference), MAX_PAIRED)
    some = torch.linspace(0, len(points) - 1, paired).long()
    distances = pair_distances(points[some])
    real = pair_distances(matched(features.reference, paired))
    assert features.layouts is not None
    return [
        features.layouts.frechet(features.layouts.space.project(torch.split(images, 500))),
        features.frechet(points),
        exact,
        matched_kernel_distance(points[some], features.reference),
        sliced_wasserstein(images[torch.linspace(0, len(images) - 1, SETTINGS.sliced.images).long()], features.sliced),
        features.nearest(points[some]),
        median_pair_distance(distances) / median_pair_distance(real),
        float((distances.amin(1) <= real.amin(1).quantile(0.01)).double().mean()),
    ]


def rows(frame_set: FrameSet, fresh: FrameSet, count: int) -> dict[str, Tensor]:
    real = of_maps(fresh, 1, count)
    test = np.linspace(0, len(frame_set.test) - 1, count).astype(int)
    found = {"real": real, "training frames": of_maps(frame_set, 1, count)}
    found |= {name: corrupt(real) for name, corrupt in ALONE.items()}
    for grades in GRADED.values():
        found |= {name: corrupt(real) for name, corrupt in grades.items()}
    found |= {f"a quarter of the maps dropped, {seed}": of_maps(fresh, 0.75, count, seed) for seed in range(2)}
    found |= {f"half of the maps dropped, {seed}": of_maps(fresh, 0.5, count, seed) for seed in range(4)}
    found |= {f"3/4 of the maps dropped, {seed}": of_maps(fresh, 0.25, count, seed) for seed in range(2)}
    found |= {
        f"training frames, half of the maps dropped, {seed}": of_maps(frame_set, 0.5, count, seed) for seed in (0, 1)
    }
    found |= {f"{some} frames repeated": real[:: count // some].repeat(count // some, 1, 1, 1) for some in (100, 10)}
    return found | {"test maps": to_images(as_tensor(frame_set.test[test]))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="61x33")
    parser.add_argument("--frames", type=int, default=12_000)
    parser.add_argument("--images", type=int, default=2_000)
    parser.add_argument("--jitter", type=float, default=SETTINGS.color_jitter, help="of colors, in training")
    parser.add_argument("--directory", type=Path, help="keep the captures there")
    arguments = parser.parse_args()
    width, height = map(int, arguments.size.split("x"))
    with tempfile.TemporaryDirectory() as temporary:
        directory = arguments.directory or Path(temporary)
        frame_set, fresh = (capture(directory / str(seed), arguments.frames, width, height, seed) for seed in (0, 1))
        with mock.patch.object(source_classifier, "SETTINGS", replace(SETTINGS, color_jitter=arguments.jitter)):
            features = FrameFeatures.train(frame_set)
        print(
            f"{arguments.size}, {arguments.frames} frames, {arguments.images} a row, color jitter {arguments.jitter}\n"
        )
        print(f"Held-out time blocks of the training maps: FD {features.floor:.1f}\n")
        print(f"| images | {' | '.join(COLUMNS)} |\n|---{'|---' * len(COLUMNS)}|")
        for name, images in rows(frame_set, fresh, arguments.images).items():
            print(f"| {name} | {' | '.join(f'{value:.4g}' for value in row(features, images))} |", flush=True)


if __name__ == "__main__":
    main()
