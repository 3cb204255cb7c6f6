"""Images per second of a joint step: each option against plain float32, and several trials on one device.

    python tests/benchmarks/throughput.py                      the demo's size, here
    python tests/benchmarks/throughput.py --size seed          the seed's size (121x65, latent 1024, width 64)
    python tests/benchmarks/throughput.py --together 1,2,4     as many processes training at once

Frames are random bytes: the cost of a step does not depend on what they show. Ratios within one run are what to quote.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import time
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from vaegan_core.config import parse_trial
from vaegan_core.features import FrameFeatures
from vaegan_core.frames import FrameManifest, FrameSet, Source
from vaegan_core.trainer import Trainer, resolve

SIZES: dict[str, dict[str, int]] = {
    "demo": {"height": 27, "width": 48, "latent_dim": 64, "channels": 8, "depth": 2, "batch": 32},
    "seed": {"height": 65, "width": 121, "latent_dim": 1024, "channels": 64, "depth": 3, "batch": 64},
}
OPTIONS: dict[str, dict[str, Any]] = {
    "float32": {"precision": "float32", "channels_last": False},
    "float32, channels last": {"precision": "float32", "channels_last": True},
    "bfloat16": {"precision": "bfloat16", "channels_last": False},
    "bfloat16, channels last": {"precision": "bfloat16", "channels_last": True},
}
WARM_UP = 3


def make_trainer(size: dict[str, int], threads: int, **train: Any) -> Trainer:
    height, width = size["height"], size["width"]
    frames = np.random.default_rng(0).integers(0, 256, (512, height, width, 3), dtype=np.uint8)
    sources = (Source(name="a", split="train", start=0, count=500), Source(name="b", split="test", start=500, count=12))
    manifest = FrameManifest(height=height, width=width, sources=sources, made_by={}, sha256="0")
    features = FrameFeatures.__new__(FrameFeatures)
    features.baselines = {"train_variance": 0.25}
    config = parse_trial(
        {
            "frames": "none",
            "model": {"latent_dim": size["latent_dim"], "width": size["channels"], "depth": size["depth"]},
            "loss": {"pixel": {"weight": 1.0}, "kl": {"control": "fixed", "sigma": 0.2}},
            "train": {
                "steps": 10_000,
                "batch_size": size["batch"],
                "threads": threads,
                "deterministic": False,
                **train,
            },
            "evaluate": {"every": 10_000, "num_test": 8, "num_samples": 8},
        }
    )
    return Trainer(resolve(config), FrameSet(frames, manifest), features)


def images_per_second(trainer: Trainer, steps: int) -> float:
    """Median over three blocks of `steps`."""
    synchronize = torch.cuda.synchronize if trainer.device.type == "cuda" else lambda: None
    rates = []
    with trainer._runtime():
        for _ in range(WARM_UP):
            trainer.train_step()
        for _ in range(3):
            synchronize()
            start = time.perf_counter()
            for _ in range(steps):
                trainer.train_step()
            trainer._flush()
            synchronize()
            rates.append(steps * trainer.config.train.batch_size / (time.perf_counter() - start))
    return statistics.median(rates)


def flops_per_image(size: dict[str, int], threads: int) -> float:
    trainer = make_trainer(size | {"batch": 2}, threads, precision="float32")
    with FlopCounterMode(display=False) as counter:
        trainer.train_step()
    return counter.get_total_flops() / 2


def _one_of_many(size: dict[str, int], threads: int, steps: int, barrier: Any, rates: Any) -> None:
    trainer = make_trainer(size, threads)
    barrier.wait()
    rates.put(images_per_second(trainer, steps))


def together(size: dict[str, int], count: int, threads: int, steps: int) -> float:
    """Images per second of `count` processes training at once, summed."""
    context = multiprocessing.get_context("spawn")
    barrier, rates = context.Barrier(count), context.Queue()
    workers = [context.Process(target=_one_of_many, args=(size, threads, steps, barrier, rates)) for _ in range(count)]
    for worker in workers:
        worker.start()
    total = sum(rates.get(timeout=600) for _ in workers)
    for worker in workers:
        worker.join()
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="demo")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--together", default="", help="comma-separated numbers of processes")
    arguments = parser.parse_args()
    size = SIZES[arguments.size]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{arguments.threads} CPU threads"
    gflops = flops_per_image(size, arguments.threads) / 1e9
    print(
        f"{arguments.size} size, batch {size['batch']}, {device}, torch {torch.__version__}, {gflops:.1f} GF an image\n"
    )
    print("| option | images/s | against float32 | TFLOP/s |\n|---|---|---|---|")
    plain = 0.0
    for name, options in OPTIONS.items():
        rate = images_per_second(make_trainer(size, arguments.threads, **options), arguments.steps)
        plain = plain or rate
        print(f"| {name} | {rate:,.0f} | {rate / plain:.2f} | {rate * gflops / 1000:.2f} |", flush=True)
    for count in (int(part) for part in arguments.together.split(",") if part):
        rate = together(size, count, max(1, arguments.threads // count), arguments.steps)
        print(f"| {count} trials at once, all `auto` | {rate:,.0f} | {rate / plain:.2f} | {rate * gflops / 1000:.2f} |")


if __name__ == "__main__":
    main()
