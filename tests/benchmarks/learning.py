"""Whether options leave learning unchanged: the demo's configuration trained with each, curves overlaid."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

import torch
from page import Curve, Section, overlaid
from setups import OPTIONS, PLAIN, Size, captured, features, trial
from throughput import has_compiler

from vaegan_core.evaluation import KL, PIXEL_MSE, Evaluation
from vaegan_core.training.trainer import Trainer

STEPS = 300
CURVES = ("train/pixel", "train/kl", "train/feature_recon")
SEEDS = (0, 1, 2)
TRIED = [name for name in OPTIONS if OPTIONS[name] is not PLAIN][:-1]
"""Only the plain one of the two compiled settings: compiling takes as long as training here."""
OTHER_SCHEMES = ("simultaneous", "per_term")


def measure(size: Size, threads: int, steps: int, say: Callable[[str], None]) -> Section:
    """All trainings side by side on a CPU, one thread each; one after the other on a GPU."""
    seeds = [f"float32, seed {seed}" for seed in SEEDS]
    plain = seeds[0]
    settings = {name: PLAIN | {"seed": seed} for name, seed in zip(seeds, SEEDS, strict=True)}
    settings |= {name: OPTIONS[name] for name in TRIED}
    settings |= {scheme: PLAIN | {"update": scheme} for scheme in OTHER_SCHEMES}
    uncompiled = {name for name in settings if "compile" in settings[name] and not has_compiler()}
    runs = _train_all(size, threads, steps, {k: settings[k] for k in settings if k not in uncompiled}, say)
    curves = {name: each for name, (each, _) in runs.items()}
    finals = {name: final for name, (_, final) in runs.items()}
    spread = {
        key: max(finals[name][key] for name in seeds) - min(finals[name][key] for name in seeds)
        for key in (PIXEL_MSE, KL)
    }
    rows = []
    for name in settings:
        if name in uncompiled:
            rows.append([f"{name}: no compiler", *["–"] * 4])
            continue
        shares = [(finals[name][key] - finals[plain][key]) / spread[key] for key in spread]
        label = f"{name} (another update, may differ)" if name in OTHER_SCHEMES else name
        rows.append(
            [
                label,
                f"{finals[name][PIXEL_MSE]:.5f}",
                f"{shares[0]:+.2f}",
                f"{finals[name][KL]:.2f}",
                f"{shares[1]:+.2f}",
            ]
        )
    return Section(
        f"Learning with each option: {size.label}, {steps} steps",
        ["", PIXEL_MSE, "difference / seeds", KL, "difference / seeds"],
        rows,
        [
            "Joint updates unless named otherwise. Final validation; differences are to float32 with seed 0, "
            "divided by what three seeds of plain float32 differ by (largest less smallest: "
            f"{spread[PIXEL_MSE]:.5f} in {PIXEL_MSE}, {spread[KL]:.2f} nats in {KL}): "
            "between -1 and 1, an option changes less than a seed."
        ],
        [
            overlaid(
                "Options; gray: three seeds of float32",
                CURVES,
                {k: curves[k] for k in curves if k not in OTHER_SCHEMES},
                set(seeds),
            ),
            overlaid(
                "Update schemes; gray: three seeds of joint",
                CURVES,
                {k: curves[k] for k in (*seeds, *OTHER_SCHEMES)},
                set(seeds),
            ),
        ],
    )


def _train_all(
    size: Size, threads: int, steps: int, settings: dict[str, dict[str, Any]], say: Callable[[str], None]
) -> dict[str, tuple[dict[str, Curve], dict[str, float]]]:
    """What `_train` gives of all settings, the longest trainings first."""
    runs: dict[str, tuple[dict[str, Curve], dict[str, float]]] = {}
    workers = 1 if torch.cuda.is_available() else threads
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, max_tasks_per_child=1) as pool:
        waiting = {pool.submit(_train, size, steps, settings[name]): name for name in reversed(settings)}
        for done in as_completed(waiting):
            runs[waiting[done]] = done.result()
            say(f"learning: {waiting[done]}, {len(runs)} of {len(waiting)}")
    return runs


def _train(size: Size, steps: int, settings: dict[str, Any]) -> tuple[dict[str, Curve], dict[str, float]]:
    """Curves by key, and the last validation."""
    evaluate = {"every": steps, "num_test": 400, "num_samples": 500}
    config = trial(size, 1, steps=steps, evaluate=evaluate, **(settings | {"log_every": max(1, steps // 30)}))
    reports: list[Evaluation] = []
    Trainer(config, captured(), features()).run(reports.append)
    last = reports[-1]
    if last.outcome != "completed":
        raise ValueError(f"a training of the benchmark must complete, this one did not: {last.reason}")
    curves: dict[str, Curve] = {key: ([], []) for key in CURVES}
    for point in last.points:
        if point.key in curves:
            curves[point.key][0].append(point.step)
            curves[point.key][1].append(point.value)
    return curves, last.metrics
