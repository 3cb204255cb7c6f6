"""A frame set's own feature network, and the Fréchet distance in its features (vaegan_core/README.md).

A small network learns to tell the sources (maps, videos) of the training frames apart; short sources count together,
and frames of over 8,192 pixels are reduced for it. A Fréchet distance compares its features between a fixed reference
of training frames and, usually, prior samples. The network is trained once per frame set and stored with it, together
with everything else that measurements need to know about the frames.

Four stretches of every training source, a fifth of it in total, are held out of training and of the reference; of short
sources that count together, whole ones. Their frames are as good as those of a perfect generator: their distance to the
reference is the `floor`. A distance falls with the number of images, so with fewer than 2,000 held-out frames (a frame
set of fewer than 12,000) the floor is somewhat too high.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vaegan_core.data.batches import image_blocks
from vaegan_core.data.frames import FEATURES_FILE, LEAST_TEST, LEAST_TRAIN, FrameSet
from vaegan_core.metrics.baselines import mean_color, pixel_baselines
from vaegan_core.metrics.distances import frechet_distance, gaussian_moments, kernel_distance, nearest_distances
from vaegan_core.metrics.feature_space import FeatureSpace
from vaegan_core.metrics.layouts import Layouts
from vaegan_core.metrics.settings import MAX_PAIRED, SETTINGS, reduction_of
from vaegan_core.metrics.sliced_wasserstein import SlicedReference, sliced_reference, sliced_wasserstein
from vaegan_core.metrics.source_classifier import Progress, SourceClassifier, frozen_network, train_network
from vaegan_core.tensor_files import flatten_state, load_tensors, save_tensors, strip_prefix

TIME_STRETCHES = 8
"""Stretches of time that count as sources when a frame set has only one training source."""
SHORTEST, MOST_SOURCES = 8, 500
"""Least frames and largest number of the sources that the network tells apart: shorter ones count together."""
WHOLE_SOURCES = (0.1, 0.4)
"""Bounds for the share of frames held out by whole sources."""
LEAST_VARIANCE = 1e-5
"""Variance of pixels in [-1, 1] below which frames are of a single color."""
SPACE = ("std", "center", "components")
SLICED = ("mean", "std", "quantiles")
STATISTICS = ("reference", "mean", "cov", "test_mean", "test_cov")
SMALLEST_DISTANCE = 1e-6
"""Replaces a distance of 0 that is divided by."""


@dataclass
class FrameFeatures:
    """The feature space of a frame set, the statistics of its frames in it, and what trivial pictures score.

    `baselines`, with images in [-1, 1]: `mean_color_fd`, the distance to the reference of training frames painted in
    their own mean color; `mean_color_mse`, the error of test frames painted likewise; `mean_image_mse`, the error of
    the mean training image on test frames; `train_variance`, of training pixels around their channel's mean, averaged
    over channels; `floor_layout_fd`, `floor_kid`, `floor_swd`, `mean_color_layout_fd`, `mean_color_kid` and
    `mean_color_swd`, the distances of layouts, and the kernel and sliced Wasserstein distances, of the frames behind
    `floor` and `mean_color_fd`.
    """

    space: FeatureSpace
    reference: Tensor
    """float32 [m, d], the reference in that space, m <= 10,000."""
    mean: Tensor
    """float64 [d], of the reference, as `cov` [d, d] is."""
    cov: Tensor
    test_mean: Tensor
    """float64 [d], of at most 2,000 test frames, as `test_cov` [d, d] is."""
    test_cov: Tensor
    sliced: SlicedReference
    """Made of at most 1,000 frames of the reference."""
    frames_fingerprint: str
    floor: float
    held_out_nearest: float
    """Median distance of a held-out frame to the nearest frame of the reference."""
    baselines: dict[str, float]
    layouts: Layouts | None
    """None in a file of a version before 0.2, until `ensure_features` adds them."""

    @classmethod
    def train(
        cls,
        frame_set: FrameSet,
        *,
        seed: int = 0,
        progress: Progress = lambda _done, _total: None,
        device: torch.device | str = "cpu",
    ) -> FrameFeatures:
        """Trains the network and fits the reference; `progress` gets the steps done and their total.

        The same seed, device and number of threads give the same numbers, bit for bit; the global random state is
        neither used nor changed. Raises ValueError for too few training frames, and for frames that show nothing.
        """
        train, test = frame_set.num_train, len(frame_set) - frame_set.num_train
        if train < LEAST_TRAIN or test < LEAST_TEST:
            raise ValueError(
                f"a feature network needs at least {LEAST_TRAIN} training frames and {LEAST_TEST} test frames, got "
                f"{train} and {test}; capture more frames"
            )
        check_contrast(frame_set, pixel_baselines(frame_set))
        used, held_out, labels = _held_out(frame_set)
        seen = _strided(np.arange(len(used)), SETTINGS.steps * SETTINGS.batch_size)
        device = torch.device(device)
        reduction = reduction_of(frame_set.manifest.height, frame_set.manifest.width)
        network = train_network(frame_set.train[used[seen]], labels[seen], seed, device, progress, reduction=reduction)
        return cls._fit(network, frame_set, used, held_out, device)

    @classmethod
    def _fit(
        cls,
        network: SourceClassifier,
        frame_set: FrameSet,
        used: np.ndarray,
        held_out: np.ndarray,
        device: torch.device,
    ) -> FrameFeatures:
        """Reference statistics from frames `used` (indices), floors from `held_out`, baselines from both splits."""
        train, test = frame_set.train, frame_set.test
        blocks = _blocks(frame_set, device)
        test_indices = _strided(np.arange(len(test)), SETTINGS.compared)
        reduction = reduction_of(frame_set.manifest.height, frame_set.manifest.width)
        space, reference = FeatureSpace.fit(network, blocks["reference"](), reduction=reduction)
        points = {name: space.project(blocks[name]()).cpu() for name in ("held_out", "colors")}
        points["reference"] = reference.cpu()
        moments = {name: gaussian_moments([of]) for name, of in points.items()}
        test_points = space.project(image_blocks(test, test_indices, device)).cpu()

        # What frames that were never seen score, and what trivial pictures score.
        compared = _strided(np.arange(len(train)), SETTINGS.compared)
        sliced = sliced_reference(torch.cat(list(image_blocks(train, _strided(used, MAX_PAIRED)))))
        held_out_images = torch.cat(list(image_blocks(train, _strided(held_out, SETTINGS.sliced.images))))
        color_images = mean_color(torch.cat(list(image_blocks(train, _strided(compared, SETTINGS.sliced.images)))))
        baselines = {
            "mean_color_fd": frechet_distance(*moments["colors"], *moments["reference"]),
            "floor_kid": matched_kernel_distance(points["held_out"], points["reference"]),
            "mean_color_kid": matched_kernel_distance(points["colors"], points["reference"]),
            "floor_swd": sliced_wasserstein(held_out_images, sliced),
            "mean_color_swd": sliced_wasserstein(color_images, sliced),
        }
        features = cls(
            space,
            points["reference"],
            *moments["reference"],
            *gaussian_moments([test_points]),
            sliced,
            frame_set.fingerprint,
            floor=frechet_distance(*moments["held_out"], *moments["reference"]),
            held_out_nearest=float(nearest_distances(points["held_out"], points["reference"]).median()),
            baselines=baselines | pixel_baselines(frame_set),
            layouts=None,
        )
        return features.with_layouts(frame_set, device)

    def with_layouts(self, frame_set: FrameSet, device: torch.device | str = "cpu") -> FrameFeatures:
        """The same features with the layouts of their frame set, and with the baselines of those."""
        blocks = _blocks(frame_set, device)
        layouts = Layouts.fit(self.space.network, blocks["reference"](), self.space.reduction)
        baselines = {
            "floor_layout_fd": layouts.frechet(layouts.space.project(blocks["held_out"]())),
            "mean_color_layout_fd": layouts.frechet(layouts.space.project(blocks["colors"]())),
        }
        return replace(self, layouts=layouts, baselines=self.baselines | baselines)

    def distance(self, images: Tensor | Iterable[Tensor]) -> float:
        """Fréchet distance of images [n, 3, H, W] in [-1, 1], or batches of them, to the reference of training frames.

        It falls with the number of images: compare distances of the same number, 2,000 unless said otherwise.
        Raises ValueError for fewer than two.
        """
        return self.frechet(self.space.project(images))

    def frechet(self, points: Tensor) -> float:
        """`distance` of images given as points [n, d] of the feature space."""
        return frechet_distance(*gaussian_moments([points]), self.mean, self.cov)

    def test_frechet(self, points: Tensor) -> float:
        """Fréchet distance of points [n, d] to test frames."""
        return frechet_distance(*gaussian_moments([points]), self.test_mean, self.test_cov)

    def nearest(self, points: Tensor) -> float:
        """Median distance of points [n, d] to the nearest training frame of the reference, as a multiple of the same of
        held-out frames: below 1 they are copies."""
        nearest = nearest_distances(points, self.reference.to(points.device)).median()
        return float(nearest) / max(self.held_out_nearest, SMALLEST_DISTANCE)

    def _tensors(self) -> dict[str, Tensor]:
        return {
            **flatten_state("network", self.space.network.state_dict()),
            **{name: getattr(self.space, name) for name in SPACE},
            **{name: getattr(self, name) for name in STATISTICS},
            **flatten_state("sliced", {name: getattr(self.sliced, name) for name in SLICED}),
        }

    @property
    def fingerprint(self) -> str:
        """16 hex digits of the SHA-256 of network and statistics. Distances with equal fingerprints can be compared.

        The layouts follow from network and frames, and are left out: what is known by its fingerprint stays so.
        """
        digest = hashlib.sha256()
        for name, tensor in sorted(self._tensors().items()):
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def save(self, path: Path) -> None:
        """Writes a safetensors file, atomically."""
        metadata = {
            "frames": self.frames_fingerprint,
            "settings": SETTINGS.dump(),
            "reduction": self.space.reduction,
            "num_sources": self.space.network.classifier.out_features,
            "floor": self.floor,
            "held_out_nearest": self.held_out_nearest,
            "baselines": self.baselines,
        }
        layouts = flatten_state("layouts", self.layouts.tensors()) if self.layouts else {}
        save_tensors(path, self._tensors() | layouts, metadata)

    @classmethod
    def load(cls, path: Path, fingerprint: str) -> FrameFeatures:
        """Reads what `save` wrote for the frame set with this fingerprint.

        Raises ValueError, naming the file, when it is damaged, of another frame set or made with other settings.
        """
        tensors, metadata = load_tensors(path)
        if metadata.get("frames") != fingerprint:
            raise ValueError(
                f"{path} must be for frame set {fingerprint}, got {metadata.get('frames')}; remove it to train it anew"
            )
        if metadata.get("settings") != SETTINGS.dump():
            raise ValueError(f"{path} was made with other settings, by another version; remove it to train it anew")
        with torch.device("meta"):
            network = SourceClassifier(metadata["num_sources"])
        network.load_state_dict(strip_prefix("network", tensors), assign=True)
        network, layouts = frozen_network(network), strip_prefix("layouts", tensors)
        reduction = metadata.get("reduction", 1)  # a version before 0.3 reduced no frames
        return cls(
            FeatureSpace(network, tensors["std"], tensors["center"], tensors["components"], reduction=reduction),
            **{name: tensors[name] for name in STATISTICS},
            sliced=SlicedReference(
                **strip_prefix("sliced", tensors), num_images=min(len(tensors["reference"]), MAX_PAIRED)
            ),
            frames_fingerprint=fingerprint,
            floor=metadata["floor"],
            held_out_nearest=metadata["held_out_nearest"],
            baselines=metadata["baselines"],
            layouts=Layouts.load(network, layouts, reduction) if layouts else None,
        )


def ensure_features(frame_set: FrameSet, progress: Progress = lambda _done, _total: None) -> FrameFeatures:
    """The features stored with a frame set; trained and stored if they are missing, damaged or of other frames.

    If the directory cannot be written to, they are trained for this process only. `progress`: as in `train`. Raises
    ValueError for too few training frames, and for frames that show nothing.
    """
    path = frame_set.path / FEATURES_FILE if frame_set.path else None
    features = _stored(path, frame_set) if path and path.is_file() else None
    if features:
        check_contrast(frame_set, features.baselines)
    if features and features.layouts:
        return features
    features = features.with_layouts(frame_set) if features else FrameFeatures.train(frame_set, progress=progress)
    if path:
        with suppress(OSError):
            features.save(path)
    return features


def _stored(path: Path, frame_set: FrameSet) -> FrameFeatures | None:
    """None for a file that is damaged or of other frames: it is derived from the frames, so it is simply made again."""
    try:
        return FrameFeatures.load(path, frame_set.fingerprint)
    except ValueError:
        return None


def check_contrast(frame_set: FrameSet, baselines: dict[str, float]) -> None:
    """Raises ValueError when every frame is of a single color, by the pixel `baselines`: nothing is to be learned."""
    for split, name in (("training", "train_variance"), ("test", "mean_color_mse")):
        if baselines[name] < LEAST_VARIANCE:
            where = frame_set.path or "this frame set"
            rule = "each is of a single color; capture others"
            raise ValueError(f"the {split} frames of {where} show nothing, {rule}")


def matched_kernel_distance(points: Tensor, reference: Tensor) -> float:
    """Kernel distance of the first points [n, d] to equally many of reference [m, d], at most 1,000 of each."""
    count = min(len(points), len(reference), MAX_PAIRED)
    return kernel_distance(matched(reference, count).to(points), points[:count])


def matched(reference: Tensor, count: int) -> Tensor:
    """`count` points of the reference [m, d], evenly spread, to compare with equally many others."""
    return reference[_strided(np.arange(len(reference)), count)]


def _blocks(frame_set: FrameSet, device: torch.device | str) -> dict[str, Callable[[], Iterable[Tensor]]]:
    """Batches of training frames: the reference, frames held out of it, and frames painted in their mean color."""
    train = frame_set.train
    used, held_out, _ = _held_out(frame_set)
    compared = _strided(np.arange(len(train)), SETTINGS.compared)
    return {
        "reference": lambda: image_blocks(train, _strided(used, SETTINGS.max_reference), device),
        "held_out": lambda: image_blocks(train, _strided(held_out, SETTINGS.compared), device),
        "colors": lambda: map(mean_color, image_blocks(train, compared, device)),
    }


def _spans(frame_set: FrameSet) -> list[tuple[int, int]]:
    """Start and stop of what the network tells apart: the training sources, short ones joined to their neighbors, or
    parts of time if that leaves only one."""
    shortest = max(SHORTEST, frame_set.num_train // MOST_SOURCES)
    ends = [0]
    for source in frame_set.sources("train"):
        if source.start + source.count - ends[-1] >= shortest:
            ends.append(source.start + source.count)
    ends[-1] = frame_set.num_train
    return list(pairwise(ends)) if len(ends) > 2 else _parts(0, frame_set.num_train, _time_stretches(frame_set))


def _time_stretches(frame_set: FrameSet) -> int:
    return min(TIME_STRETCHES, frame_set.num_train // SHORTEST)


def _parts(start: int, stop: int, parts: int) -> list[tuple[int, int]]:
    return list(pairwise(start + (stop - start) * i // parts for i in range(parts + 1)))


def _held_out(frame_set: FrameSet) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Indices of frames to use and of frames held out, and labels of the former: the spans."""
    starts = np.array([source.start for source in frame_set.sources("train")])
    used, held_out, labels = [], [], []
    for label, span in enumerate(_spans(frame_set)):
        for start, middle, stop in _divided(*span, starts[(starts > span[0]) & (starts < span[1])]):
            used.append(np.arange(start, middle))
            held_out.append(np.arange(middle, stop))
            labels.append(np.full(middle - start, label))
    return np.concatenate(used), np.concatenate(held_out), np.concatenate(labels)


def _divided(start: int, stop: int, sources: np.ndarray) -> list[tuple[int, int, int]]:
    """Stretches of a span: where they start, where the part that is held out starts, and where they stop.

    Where sources in the span, given by their starts, allow it, the last of them are held out as a whole; else the last
    frames of each stretch.
    """
    share, stretches = SETTINGS.held_out
    if len(sources):
        middle = int(sources[np.abs(sources - (stop - share * (stop - start))).argmin()])
        least, most = WHOLE_SOURCES
        if least <= (stop - middle) / (stop - start) <= most:
            return [(start, middle, stop)]
    parts = _parts(start, stop, stretches)
    return [(start, stop - math.ceil(share * max(0, stop - start - 1)), stop) for start, stop in parts]


def _strided(indices: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of `indices`, at equal strides from the first, without the last. Stored features depend on it."""
    if len(indices) <= most:
        return indices
    return indices[np.arange(most) * len(indices) // most]
