"""Trained models for sample_metric.py: plain VAEs, VAE-GANs, collapsed ones and the seed's own, on one frame set.

    python tests/benchmarks/sample_models.py runs/frames/doom -o runs/sample-models --jobs 2

Each is a file that `load_model` reads. A model that is there already is left alone; on two CPU cores all of them take
some hours, on one GPU with `--jobs 14` minutes.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from copy import deepcopy
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from vaegan_core.config.trial import TrialConfig, parse_trial
from vaegan_core.evaluation import Evaluation

BASE: dict[str, Any] = {
    "model": {
        "latent_dim": 64,
        "width": 8,
        "depth": 2,
        "encoder": {"norm": "batch"},
        "decoder": {"norm": "group"},
        "discriminator": {"norm": "none", "spectral_norm": True, "feature_activation": "leaky_relu"},
    },
    "loss": {
        "adversarial": "hinge",
        "discriminator": {"real": 1.0, "recon": 0.5, "prior": 0.5},
        "generator": {"recon": 0.01, "prior": 0.01, "gradient": "decoder"},
        "feature": {"recon": 0.1, "prior": 0.0, "scale_free": True, "gradient": "autoencoder"},
        "pixel": {"weight": 1.0, "kind": "mse", "scale_free": True},
        "kl": {"control": "fixed", "sigma": 0.2},
    },
    "optimizer": {
        "autoencoder": {"lr": 1e-3, "beta1": 0.5, "beta2": 0.99},
        "discriminator": {"lr_ratio": 1.0, "beta1": 0.5, "beta2": 0.99},
    },
    "train": {"steps": 1600, "batch_size": 32, "log_every": 20, "ema_decay": 0.98, "seed": 0},
    "evaluate": {"every": 400, "num_test": 400, "num_samples": 500},
}
PLAIN: dict[str, Any] = {"loss.generator.recon": 0, "loss.generator.prior": 0, "loss.feature.recon": 0}
SEED: dict[str, Any] = {"loss.pixel.weight": 0, "model.encoder.norm": "instance", "model.decoder.norm": "instance"}


def weights(recon: float, prior: float, feature: float = 0.1, sigma: float = 0.2) -> dict[str, Any]:
    """A VAE-GAN with these weights of its generator and feature terms."""
    return {
        "loss.generator.recon": recon,
        "loss.generator.prior": prior,
        "loss.feature.recon": feature,
        "loss.kl.sigma": sigma,
    }


def capacity(nats: float) -> dict[str, Any]:
    """A KL controlled by this capacity."""
    return {"loss.kl": {"control": "capacity", "gamma_sigma": 0.3, "capacity_max": nats, "ramp": 0.5}}


MODELS: dict[str, dict[str, Any]] = {
    **{f"vae-sigma-{sigma}": PLAIN | {"loss.kl.sigma": sigma} for sigma in (0.05, 0.1, 0.2, 0.4, 0.6, 0.8)},
    "autoencoder": PLAIN | {"loss.kl": {"control": "fixed", "beta": 0}},
    "collapsed": PLAIN | {"loss.kl.sigma": 3},
    **{f"gan-sigma-{sigma}": {"loss.kl.sigma": sigma} for sigma in (0.1, 0.2, 0.5)},
    "gan-strong": weights(0.1, 0.1),
    "gan-strong-sigma-0.5": weights(0.1, 0.1, sigma=0.5),
    "gan-prior-only": weights(0, 0.05),
    "gan-recon-only": weights(0.05, 0),
    "gan-bce-strong": weights(0.3, 0.3) | {"loss.adversarial": "bce", "model.discriminator.spectral_norm": False},
    "gan-batch-norm": weights(0.03, 0.03) | {"model.decoder.norm": "batch"},
    "gan-instance-norm": weights(0.03, 0.03) | {"model.encoder.norm": "instance", "model.decoder.norm": "instance"},
    "features": weights(0.01, 0.01, feature=1),
    "features-only": weights(0.01, 0.01, feature=1) | {"loss.pixel.weight": 0},
    **{f"capacity-{nats}": capacity(nats) for nats in (15, 40, 120)},
    "adaptive-30": {"loss.kl": {"control": "adaptive", "target": 30, "rate": 0.03}},
    "wide": {"model.width": 24, "model.decoder.norm": "batch"},
    "deep": {"model.depth": 3, "model.width": 16},
    "seed": weights(1, 1, feature=1) | SEED | {"loss.adversarial": "bce", "model.discriminator.spectral_norm": False},
    "seed-in-may": weights(1, 1, feature=1, sigma=0.1)
    | SEED
    | {"model.encoder.norm": "batch", "loss.adversarial": "bce", "model.discriminator.spectral_norm": False},
    "fast": {"optimizer.autoencoder.lr": 1e-2},
    "short": {"train.steps": 200},
}


def trial(name: str, frames: Path) -> TrialConfig:
    """The configuration of one of MODELS."""
    data = deepcopy(BASE)
    for path, value in MODELS[name].items():
        *parents, key = path.split(".")
        part = data
        for parent in parents:
            part = part[parent]
        part[key] = value
    return parse_trial(data | {"frames": str(frames)}, name)


@cache
def _frames(frames: Path) -> Any:
    from vaegan_core.data.frames import FrameSet
    from vaegan_core.metrics.frame_features import ensure_features

    frame_set = FrameSet.open(frames)
    return frame_set, ensure_features(frame_set)


def train(name: str, frames: Path, directory: Path) -> tuple[str, float, dict[str, float]]:
    """Trains one model into DIRECTORY/NAME.safetensors; its name, seconds and last metrics."""
    from vaegan_core.training.resolve import resolve
    from vaegan_core.training.trainer import Trainer

    started = time.monotonic()
    trainer = Trainer(resolve(trial(name, frames), threads=1), *_frames(frames))
    last: list[Evaluation] = []
    trainer.run(last.append)
    if last[-1].outcome == "completed":
        trainer.save_model(directory / f"{name}.safetensors")
    return name, time.monotonic() - started, last[-1].metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("frames", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    _frames(arguments.frames)
    missing = [name for name in MODELS if not (arguments.output / f"{name}.safetensors").exists()]
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        for job in as_completed([pool.submit(train, name, arguments.frames, arguments.output) for name in missing]):
            name, seconds, metrics = job.result()
            print(
                f"{name:24} {seconds:6.1f} s  {metrics.get('val/pixel_mse')} {metrics.get('val/samples_fd')}",
                flush=True,
            )


if __name__ == "__main__":
    main()
