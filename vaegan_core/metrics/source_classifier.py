"""A small network that tells a frame set's sources apart; its features are the space that samples are compared in."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaegan_core.data.batches import TrainBatches, to_images
from vaegan_core.hardware import has_bfloat16
from vaegan_core.metrics.settings import SETTINGS

NETWORK_BLOCK = 64
"""Images that go through the network at once: few enough to stay in a core's cache."""
Progress = Callable[[int, int], None]
"""Called with the steps done and their total."""


class SourceClassifier(nn.Module):
    """Images [n, 3, H, W] in [-1, 1] to a score per source [n, sources]. Convolutions 3x3, and a pooled grid."""

    def __init__(self, num_sources: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, (before, after) in enumerate(zip((3, *SETTINGS.channels[:-1]), SETTINGS.channels, strict=True)):
            convolution = nn.Conv2d(before, after, 3, stride=1 if i == 0 else 2, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers)
        self.classifier = nn.Linear(SETTINGS.channels[-1] * math.prod(SETTINGS.grid), num_sources)

    def features(self, images: Tensor) -> Tensor:
        """Images [n, 3, H, W] in [-1, 1] to features, float32 [n, 1024]."""
        return F.adaptive_avg_pool2d(self.layers(images).float(), SETTINGS.grid).flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.classifier(self.features(images))
        return scores


def train_network(
    frames: np.ndarray, labels: np.ndarray, seed: int, device: torch.device, progress: Progress, *, reduction: int = 1
) -> SourceClassifier:
    """Trains a classifier on frames, uint8 [n, H, W, 3], and their sources' numbers `labels`, int64 [n]; the frames are
    `reduced` by `reduction`.

    Returns it frozen. The global random state is neither used nor changed.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        network = SourceClassifier(int(labels.max()) + 1)
    network = _initialized(network, generator).to(device).to(memory_format=torch.channels_last)
    batches = TrainBatches(frames, SETTINGS.batch_size, seed, device)
    targets = torch.from_numpy(labels).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=SETTINGS.lr, weight_decay=SETTINGS.weight_decay)
    with torch.enable_grad():
        for step in range(SETTINGS.steps):
            down, right = torch.randint(-SETTINGS.roll, SETTINGS.roll + 1, (2,), generator=generator).tolist()
            indices = batches.indices(step)
            images = reduced(to_images(batches.frames[indices]), reduction)
            images = _recolored(images.roll((down, right), (2, 3)), generator)
            with _fast(device):
                scores = network(images.contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(scores.float(), targets[indices], label_smoothing=SETTINGS.label_smoothing)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            progress(step + 1, SETTINGS.steps)
    return frozen_network(_rounded(network))


def reduced(images: Tensor, factor: int) -> Tensor:
    """Images [n, 3, H, W] with squares of factor x factor pixels averaged, incomplete ones at the edges left out."""
    return F.avg_pool2d(images.float(), factor) if factor > 1 else images


def _recolored(images: Tensor, generator: torch.Generator) -> Tensor:
    """Changes gain and offset of every channel in about half of the images [n, 3, H, W]."""
    chosen = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
    gain, offset = SETTINGS.color_jitter * chosen * torch.randn(2, len(images), 3, 1, 1, generator=generator)
    recolored: Tensor = images * (1 + gain).to(images) + offset.to(images)
    return recolored


def _initialized(network: SourceClassifier, generator: torch.Generator) -> SourceClassifier:
    """Uniform initialization (He et al. 2015, eq. 10) from `generator`: PyTorch's constructors use the global one."""
    network = network.to_empty(device="cpu")
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_uniform_(module.weight, nonlinearity="relu", generator=generator)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
    return network


@torch.inference_mode()
def network_features(network: SourceClassifier, images: Tensor) -> Tensor:
    """Features of images [n, 3, H, W] in [-1, 1], float32 [n, 1024]; a caller's autocast makes no difference."""
    with _fast(images.device):
        blocks = torch.split(images.float().contiguous(memory_format=torch.channels_last), NETWORK_BLOCK)
        return torch.cat([network.features(block) for block in blocks])


def _fast(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device.type))


@torch.no_grad()
def _rounded(network: SourceClassifier) -> SourceClassifier:
    """Rounds filters to bfloat16, so that hardware without it measures about the same distances."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.copy_(module.weight.bfloat16())
    return network


def frozen_network(network: SourceClassifier) -> SourceClassifier:
    """Makes a network ready to measure: channels last, so that a trained one and a loaded one use the same kernels."""
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
