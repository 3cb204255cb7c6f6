"""What curves, pictures, validation and checkpoints cost in a trial at default settings."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from page import Section
from setups import Size, captured, features, synchronize, trial
from throughput import WARM_UP

from vaegan_core.config.trial import TrialConfig
from vaegan_core.training.trainer import Trainer

STEPS = 1000
EVALUATIONS = 10
REPEATS = 3
AIMS = {"curves and image grids": 0.03, "validation": 0.10}
"""Share of a trial's time that each must stay under."""


def measure(size: Size, threads: int, blocks: int, steps: int) -> Section:
    """`blocks` of `steps` steps with a curve point after each step take turns with as many without."""
    log_every = 20
    evaluate = {"every": STEPS // EVALUATIONS}
    config = trial(size, threads, steps=STEPS, evaluate=evaluate, log_every=log_every)
    trainer = Trainer(config, captured(), features())
    measures = False
    trainer._makes_point = lambda step: measures  # noqa: ARG005

    def steps_with_points() -> None:
        for _ in range(steps):
            trainer.train_step()
            if measures:
                trainer.curves.flush(trainer.step)
        if not measures:
            trainer.curves.flush(trainer.step)

    with trainer.runtime(), tempfile.TemporaryDirectory() as scratch:
        for _ in range(WARM_UP):
            trainer.train_step()
        times: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(blocks):
            for measures in times:
                times[measures].append(_seconds(steps_with_points) / steps)
        measures = False
        step = statistics.median(times[False])
        point = statistics.median(more - less for less, more in zip(times[False], times[True], strict=True))
        evaluation = trainer.evaluate()
        path = Path(scratch) / "state.safetensors"
        validation, pictures, saving = (
            statistics.median(_seconds(call) for _ in range(REPEATS))
            for call in (
                lambda: trainer.evaluator.metrics(trainer.averaged, trainer.discriminator, trainer.update.terms.score),
                lambda: trainer.evaluator.images(trainer.averaged),
                lambda: trainer.save(path, evaluation),
            )
        )

    rows = {
        "training steps": (step, STEPS),
        "curve points (gradient norms, fetch)": (point, STEPS // log_every),
        "image grids": (pictures, EVALUATIONS),
        "validation": (validation, EVALUATIONS),
        "checkpoints": (saving, EVALUATIONS),
    }
    return _section(config, f"{size.label}, {threads} thread(s)", rows)


def _section(config: TrialConfig, where: str, rows: dict[str, tuple[float, int]]) -> Section:
    """The table of what takes how long (seconds) and happens how often."""
    total = sum(each * times for each, times in rows.values())
    shares = {name: each * times / total for name, (each, times) in rows.items()}
    seen = {
        "curves and image grids": shares["curve points (gradient norms, fetch)"] + shares["image grids"],
        "validation": shares["validation"],
    }
    return Section(
        f"Overheads of a trial of {STEPS} steps at default settings: {where}",
        ["", "ms each", "times", "share of the trial"],
        [[name, f"{1000 * each:.1f}", str(times), f"{shares[name]:.1%}"] for name, (each, times) in rows.items()],
        [
            f"A point every {config.train.log_every} steps, an evaluation every {config.evaluate.every} with "
            f"{config.evaluate.num_test} test frames and {config.evaluate.num_samples} samples.",
            *(
                f"Aim: {name} under {aim:.0%}: {seen[name]:.1%}, {'reached' if seen[name] < aim else 'missed'}."
                for name, aim in AIMS.items()
            ),
        ],
    )


def _seconds(call: Callable[[], object]) -> float:
    synchronize()
    start = time.perf_counter()
    call()
    synchronize()
    return time.perf_counter() - start
