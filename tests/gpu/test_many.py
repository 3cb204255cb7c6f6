"""Several trials on one CUDA device: the share that is measured, and a sweep that shares; and how fast it all is."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest
import setups
import throughput
import torch
from drawn_frames import drawn
from sweep_files import NAME, prepare, vaegan
from trials import tiny

from search.journal.journal import Journal
from search.paths import JOURNAL_FILE
from search.running.gpu_share import MARGIN, peak_memory, train_at_worst
from vaegan_core.data.frames import FrameSet
from vaegan_core.metrics.frame_features import FrameFeatures

Note = Callable[[str, str], None]


@pytest.fixture
def cuda(device: str) -> None:
    if device != "cuda":
        pytest.skip("its subject is a CUDA device")


@pytest.mark.usefixtures("cuda")
def test_the_probe_sees_what_a_whole_trial_takes(
    frame_set: FrameSet, frame_features: FrameFeatures, note: Note
) -> None:
    config = tiny(model__width=32, train__batch_size=64, train__device="cuda")
    with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
        probed = fresh.submit(peak_memory, config, frame_set, frame_features).result()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    outside = torch.cuda.device_memory_used(0) - torch.cuda.memory_reserved()
    train_at_worst(config, frame_set, frame_features)
    taken = torch.cuda.max_memory_reserved() + outside
    note("memory of a trial, MB: as probed, as taken", f"{probed.peak / 1e6:.0f}, {taken / 1e6:.0f}")
    assert taken <= probed.peak * (1 + MARGIN)
    assert probed.peak <= 1.5 * taken


def test_trials_share_the_device(device: str, frame_set_dir: Path, tmp_path: Path, note: Note) -> None:
    pytest.importorskip("ray")
    resources = {"cpu": 1, "gpu": "auto", "max_concurrent": 4} if device == "cuda" else {"cpu": 1}
    prepare(tmp_path, frame_set_dir, resources=resources, scheduler={"name": "none"}, budget={"trials": 4})
    done = vaegan(tmp_path, "sweep", "sweep.yaml")
    journal = Journal(tmp_path / "runs" / "sweeps" / NAME / JOURNAL_FILE)
    trials = journal.trials()
    assert {trial.outcome for trial in trials} <= {"completed", "diverged"}
    if device == "cuda":
        share = re.search(r"The largest trial takes .*", done.stdout)
        assert share is not None, done.stdout
        note("a sweep's words", share[0])
        environments = [journal.environment(trial.number) for trial in trials]
        assert {each["device"] for each in environments} == {torch.cuda.get_device_name()}
        assert all(float(each["gpu"]) <= 0.5 for each in environments)
    journal.close()


SEVERAL = {"demo": (4, 16), "seed": (4,)}
"""How many trainings of each size share the device."""


@pytest.fixture
def large_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The benchmark's sizes on drawn frames, its own being captured from a game. They lie where other processes, too,
    look for them."""
    monkeypatch.chdir(tmp_path)
    drawn(setups.OUTPUT / "frames", 27, 48, 2000)
    forget = (setups.captured, setups.features, setups.frames)
    for each in forget:
        each.cache_clear()
    yield
    for each in forget:
        each.cache_clear()


@pytest.mark.usefixtures("large_enough")
@pytest.mark.parametrize("name", ["demo", "seed"])
def test_rates(device: str, note: Note, name: str) -> None:
    """Measures; asserts only that the step that is counted is the step that runs."""
    size = setups.sizes(on_gpu=device == "cuda")[name]
    size = size if device == "cuda" else replace(size.quick(), steps=1)
    threads = os.cpu_count() or 1
    gflops = throughput._gflops(size, threads, "joint")

    def say(label: str, rate: float) -> None:
        peak = throughput._peak()
        share = f", {rate * gflops / 1000 / peak:.1%} of peak" if peak else ""
        steps = f"{rate / size.batch:.1f} steps/s, {rate:.0f} images/s"
        note(f"{size.label}, {label}", f"{steps}, {rate * gflops / 1000:.2f} TFLOP/s{share}")
        assert rate > 0

    for label, options in (("auto", setups.AUTO), ("float32", setups.PLAIN)):
        variant = throughput.Variant(lambda options=options: throughput.OurRunner(size, threads, **options), gflops)
        for _ in range(size.rounds):
            variant.turn(kept=True)
        say(label, sorted(variant.rates)[len(variant.rates) // 2])
    for count in SEVERAL[name] if device == "cuda" else (2,):
        say(f"auto, {count} at once, together", throughput.together(size, count, 1))
