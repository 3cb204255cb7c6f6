"""A frame set's own feature network, and the Fréchet distance in its features: `val/samples_fd` (MEASURES.md §1).

A small network learns to tell the sources (maps, videos) of the training frames apart. Its features are compared
between a fixed reference of training frames and, usually, prior samples. It is trained once per frame set,
and stored there.

The last fifth of the time of every training source is held out of training and of the reference: its frames are what a
perfect generator could give, and their distance to the reference is the `floor`. A distance falls with the number of
images, so with fewer than 2,000 held-out frames (a frame set of fewer than 12,000) the floor is somewhat too high.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaegan_core.checkpoint import load_tensors, save_tensors, strip_prefix
from vaegan_core.distances import frechet_distance, gaussian_moments
from vaegan_core.frames import FEATURES_FILE, FrameSet, TrainBatches, as_tensor, to_images
from vaegan_core.hardware import cpu_has_bfloat16

CHANNELS = (32, 64, 128, 128)
GRID = (2, 4)
STEPS = 350
BATCH_SIZE = 64
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.01
LABEL_SMOOTHING = 0.1
ROLL = 2
DIMENSIONS = 128
MAX_REFERENCE = 10_000
MAX_COMPARED = 2_000
"""Frames behind the floor and the distance of mean colors, as many as a trial has samples."""
HELD_OUT = 0.2
TIME_STRETCHES = 8
"""They count as sources when a frame set has only one training source."""
BLOCK = 256
SETTINGS: dict[str, Any] = {
    "channels": CHANNELS,
    "grid": GRID,
    "steps": STEPS,
    "batch_size": BATCH_SIZE,
    "lr": LEARNING_RATE,
    "weight_decay": WEIGHT_DECAY,
    "label_smoothing": LABEL_SMOOTHING,
    "roll": ROLL,
    "dimensions": DIMENSIONS,
    "max_reference": MAX_REFERENCE,
    "held_out": HELD_OUT,
}

Progress = Callable[[int, int], None]
"""Steps done, steps in all."""


class SourceClassifier(nn.Module):
    """Images [n, 3, H, W] to a score per source. Convolutions 3x3, the first at full size; a pooled grid."""

    def __init__(self, num_sources: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, (before, after) in enumerate(zip((3, *CHANNELS[:-1]), CHANNELS, strict=True)):
            convolution = nn.Conv2d(before, after, 3, stride=1 if i == 0 else 2, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(GRID), nn.Flatten())
        self.classifier = nn.Linear(CHANNELS[-1] * GRID[0] * GRID[1], num_sources)

    def features(self, images: Tensor) -> Tensor:
        """[n, 3, H, W] in [-1, 1] to [n, 1024]."""
        features: Tensor = self.layers(images)
        return features

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.classifier(self.features(images))
        return scores


@dataclass
class FrameFeatures:
    """The feature network of a frame set, the statistics of its reference, and what trivial pictures score.

    `baselines` holds, of images in [-1, 1]: `mean_color_fd`, training frames painted in their own mean color, against
    the reference; `mean_color_mse`, the same for test frames against themselves; `mean_image_mse`, the mean training
    image against test frames; `train_variance`, of training pixels around their channel's mean, mean over channels.
    """

    network: SourceClassifier
    std: Tensor
    """float32 [1024], of the reference's features."""
    center: Tensor
    """float32 [1024], the reference's mean feature after division by `std`."""
    components: Tensor
    """float32 [1024, d], the reference's principal directions, d <= 128."""
    mean: Tensor
    cov: Tensor
    frames_fingerprint: str
    floor: float
    baselines: dict[str, float]

    @classmethod
    def train(
        cls,
        frame_set: FrameSet,
        *,
        seed: int = 0,
        progress: Progress = lambda _done, _total: None,
        device: torch.device | str = "cpu",
    ) -> FrameFeatures:
        """Trains the network and fits the reference; `progress` gets the steps done and their number.

        The same seed, device and number of threads give the same numbers, bit for bit; the global random state is
        neither used nor changed. Raises ValueError for too few training frames.
        """
        stretches = _stretches(frame_set)
        used = np.concatenate([np.arange(start, middle) for start, middle, _ in stretches])
        held_out = np.concatenate([np.arange(middle, stop) for _, middle, stop in stretches])
        if len(held_out) < 2 or len(used) < 8:
            raise ValueError(
                f"a feature network needs at least 16 training frames in sources of several, got {frame_set.num_train} "
                f"in {len(stretches)}; capture more frames"
            )
        labels = np.repeat(np.arange(len(stretches)), [middle - start for start, middle, _ in stretches])
        seen = _strided(np.arange(len(used)), STEPS * BATCH_SIZE)
        device = torch.device(device)
        network = _train_network(frame_set.train[used[seen]], labels[seen], seed, device, progress)
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
        """Reference statistics from frames `used` (indices), floor from `held_out`, baselines from both splits."""
        # The reference: features divided by their standard deviation, then their principal directions.
        reference = _images(frame_set.train, _strided(used, MAX_REFERENCE), device)
        with torch.inference_mode():
            raw = torch.cat([network.features(images) for images in reference]).cpu()
        std = raw.std(0).clamp(min=1e-6 + 1e-3 * float(raw.std()))
        scaled = raw / std
        center = scaled.mean(0)
        _, cov = gaussian_moments([scaled - center])
        components = (
            torch.linalg.eigh(cov).eigenvectors[:, -min(DIMENSIONS, len(raw) - 1) :].flip(1).float().contiguous()
        )
        mean, cov = gaussian_moments([(scaled - center) @ components])
        features = cls(network, std, center, components, mean, cov, frame_set.fingerprint, 0.0, {})

        # What frames that were never seen score, and what trivial pictures score.
        features.floor = features.distance(_images(frame_set.train, _strided(held_out, MAX_COMPARED), device))
        compared = _images(frame_set.train, _strided(np.arange(frame_set.num_train), MAX_COMPARED), device)
        features.baselines = {"mean_color_fd": features.distance(map(_mean_color, compared))} | _pixel_baselines(
            frame_set
        )
        return features

    def statistics(self, images: Tensor | Iterable[Tensor]) -> tuple[Tensor, Tensor]:
        """Mean [d] and covariance [d, d], float64, of the features of images.

        Images: [n, 3, H, W] in [-1, 1], or batches of them, on the device to compute on.
        Raises ValueError for fewer than two.
        """
        batches = torch.split(images, BLOCK) if isinstance(images, Tensor) else images
        return gaussian_moments(map(self._project, batches))

    def distance(self, images: Tensor | Iterable[Tensor]) -> float:
        """Fréchet distance of images [n, 3, H, W] in [-1, 1], or batches of them, to the reference of training frames.

        It falls with the number of images: compare distances of the same number, 2,000 unless said otherwise.
        """
        return frechet_distance(*self.statistics(images), self.mean, self.cov)

    def _project(self, images: Tensor) -> Tensor:
        device = images.device
        self.network.to(device)
        with torch.inference_mode(), torch.autocast(device.type, enabled=False):
            scaled = self.network.features(images.float()) / self.std.to(device)
            return (scaled - self.center.to(device)) @ self.components.to(device)

    def _tensors(self) -> dict[str, Tensor]:
        network = {f"network/{name}": tensor for name, tensor in self.network.state_dict().items()}
        names = ("std", "center", "components", "mean", "cov")
        return network | {name: getattr(self, name) for name in names}

    @property
    def fingerprint(self) -> str:
        """16 hex digits of the SHA-256 of the network and statistics: distances of equal ones can be compared."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self._tensors().items()):
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def save(self, path: Path) -> None:
        """Writes a safetensors file, atomically."""
        metadata = {
            "frames": self.frames_fingerprint,
            "settings": SETTINGS,
            "num_sources": self.network.classifier.out_features,
            "floor": self.floor,
            "baselines": self.baselines,
        }
        save_tensors(path, self._tensors(), metadata)

    @classmethod
    def load(cls, path: Path, fingerprint: str) -> FrameFeatures:
        """Reads what `save` wrote for the frame set with this fingerprint. Raises ValueError that names the file."""
        tensors, metadata = load_tensors(path)
        if metadata.get("frames") != fingerprint:
            raise ValueError(
                f"{path} must be for frame set {fingerprint}, got {metadata.get('frames')}; remove it to train it anew"
            )
        try:
            with torch.device("meta"):
                network = SourceClassifier(metadata["num_sources"])
            network.load_state_dict(strip_prefix("network", tensors), assign=True)
            statistics = {name: tensors[name] for name in ("std", "center", "components", "mean", "cov")}
            floor, baselines = metadata["floor"], metadata["baselines"]
        except (KeyError, RuntimeError) as error:
            raise ValueError(f"{path} is not a feature network of this version ({error}); remove it") from None
        return cls(_frozen(network), **statistics, frames_fingerprint=fingerprint, floor=floor, baselines=baselines)


def ensure_features(frame_set: FrameSet, progress: Progress = lambda _done, _total: None) -> FrameFeatures:
    """The features stored with a frame set; trained and stored if missing, damaged or for other frames.

    In a directory that cannot be written to they are trained for this process only. `progress`: as in `train`.
    """
    path = frame_set.path / FEATURES_FILE if frame_set.path else None
    if path and path.is_file():
        try:
            return FrameFeatures.load(path, frame_set.fingerprint)
        except ValueError:
            pass  # a file that is only derived from the frames is simply made again
    features = FrameFeatures.train(frame_set, progress=progress)
    if path:
        try:
            features.save(path)
        except OSError:
            return features
    return features


def _stretches(frame_set: FrameSet) -> list[tuple[int, int, int]]:
    """Start, middle, stop of what the network tells apart; frames from the middle on are held out.

    These are the training sources, or if there is only one, stretches of its time.
    """
    spans = [(s.start, s.start + s.count) for s in frame_set.sources("train") if s.count]
    if len(spans) < 2:
        edges = [frame_set.num_train * i // TIME_STRETCHES for i in range(TIME_STRETCHES + 1)]
        spans = list(pairwise(edges))
    return [(start, stop - math.ceil(HELD_OUT * (stop - start - 1)), stop) for start, stop in spans]


def _train_network(
    frames: np.ndarray, labels: np.ndarray, seed: int, device: torch.device, progress: Progress
) -> SourceClassifier:
    """AdamW on cross-entropy; frames uint8 [n, H, W, 3], labels int64 [n]. Returns it frozen."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        network = SourceClassifier(int(labels.max()) + 1)
    network = _initialized(network, generator).to(device).to(memory_format=torch.channels_last)
    fast = torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda" or cpu_has_bfloat16())
    batches = TrainBatches(frames, BATCH_SIZE, seed, device)
    targets = torch.from_numpy(labels).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    with torch.enable_grad():
        for step in range(STEPS):
            down, right = torch.randint(-ROLL, ROLL + 1, (2,), generator=generator).tolist()
            indices = batches.indices(step)
            images = to_images(batches.frames[indices]).roll((down, right), (2, 3))
            with fast:
                scores = network(images.contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(scores.float(), targets[indices], label_smoothing=LABEL_SMOOTHING)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            progress(step + 1, STEPS)
    return _frozen(network)


def _initialized(network: SourceClassifier, generator: torch.Generator) -> SourceClassifier:
    """He et al. 2015, eq. 10, uniform, from a generator of its own: PyTorch's constructors use the global one."""
    network = network.to_empty(device="cpu")
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_uniform_(module.weight, nonlinearity="relu", generator=generator)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
    return network


def _frozen(network: SourceClassifier) -> SourceClassifier:
    """For measuring only; channels last, so that a network just trained and a loaded one use the same kernels."""
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def _strided(indices: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of `indices`, evenly spaced."""
    if len(indices) <= most:
        return indices
    return indices[np.arange(most) * len(indices) // most]


def _images(frames: np.ndarray, indices: np.ndarray, device: torch.device | str = "cpu") -> Iterator[Tensor]:
    """Images [n, 3, H, W] in [-1, 1] of the indexed frames, in blocks."""
    for start in range(0, len(indices), BLOCK):
        yield to_images(as_tensor(frames[indices[start : start + BLOCK]]).to(device))


def _mean_color(images: Tensor) -> Tensor:
    """Each image painted in its own mean color."""
    return images.mean((2, 3), keepdim=True).expand_as(images)


def _pixel_baselines(frame_set: FrameSet) -> dict[str, float]:
    """`mean_color_mse`, `mean_image_mse` and `train_variance`, in one pass over each split, float64 sums."""
    train, test = frame_set.train, frame_set.test
    total = square = torch.zeros((), dtype=torch.float64)
    for images in _images(train, np.arange(len(train))):
        total = total + images.double().sum(0)
        square = square + images.double().square().mean((2, 3)).sum(0)
    mean_image = total / len(train)
    variance = (square / len(train) - mean_image.mean((1, 2)).square()).mean()
    color_error = image_error = 0.0
    for images in _images(test, np.arange(len(test))):
        color_error += float((images - _mean_color(images)).double().square().mean((1, 2, 3)).sum())
        image_error += float((images.double() - mean_image).square().mean((1, 2, 3)).sum())
    return {
        "mean_color_mse": color_error / len(test),
        "mean_image_mse": image_error / len(test),
        "train_variance": float(variance),
    }
