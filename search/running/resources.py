"""What a trial takes, and how many fit at once."""

from __future__ import annotations

from collections.abc import Iterable

from search.config.sweep import Sweep
from vaegan_core.config.trial import TrialConfig
from vaegan_core.data.frames import FrameSet


def concurrent_trials(sweep: Sweep, available: dict[str, float]) -> int:
    """How many trials fit at once, at most `resources.max_concurrent`."""
    resources = sweep.config.resources
    slots = resources.fitting(available)
    return max(1, min(slots, resources.max_concurrent or slots))


def share_in_words(sweep: Sweep) -> str:
    """Cores and GPUs of one trial."""
    resources = sweep.config.resources
    cpu = f"{resources.cpu} CPU core" + ("s" if resources.cpu > 1 else "")
    return f"{cpu} and {float(resources.gpu):g} GPU" if resources.gpu else cpu


def suggestions(sweep: Sweep) -> Iterable[TrialConfig]:
    """Random trials of the space, or without a space the named points; and the first block of each question."""
    for values in sweep.space.combinations() if sweep.space.nodes else sweep.config.points.values():
        yield sweep.trial(values)
    for group in sweep.groups:
        for trial in group.trials(0):
            yield sweep.trial(trial.values)


def largest(configs: Iterable[TrialConfig], frame_set: FrameSet) -> TrialConfig:
    """The configuration that needs the most memory: weights, Adam's moments and averages, activations of a batch."""
    return max(configs, key=lambda config: estimated_bytes(config, frame_set))


def estimated_bytes(config: TrialConfig, frame_set: FrameSet) -> int:
    """Roughly 20 bytes per weight, and a dozen maps of the first width per image of the batch."""
    import torch  # which `vaegan check` does without

    from vaegan_core.model.networks import Autoencoder, Discriminator

    size = (frame_set.manifest.height, frame_set.manifest.width)
    with torch.device("meta"):
        networks = (Autoencoder(config.model, size), Discriminator(config.model, size))
    weights = sum(parameter.numel() for network in networks for parameter in network.parameters())
    return 20 * weights + 4 * 12 * config.train.batch_size * config.model.width * size[0] * size[1]
