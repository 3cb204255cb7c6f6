"""What a sweep asks of a machine that it does not have, and numbers that cannot be meant."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sweeps import sweep_data

from search.config.load import parse_sweep
from search.config.sweep import Sweep
from search.preflight import machine
from search.preflight.machine import beyond_this_machine, check_machine, odd_numbers
from search.terminal import counted
from vaegan_core.data.frames import FrameManifest, FrameSet, Source
from vaegan_core.strict_yaml import set_override

FRAMES = FrameSet(
    np.zeros((120, 33, 61, 3), np.uint8),
    FrameManifest(
        height=33,
        width=61,
        sources=(
            Source(name="a", split="train", start=0, count=100),
            Source(name="b", split="test", start=100, count=20),
        ),
        made_by={},
        sha256="",
    ),
)


def sweep_with(*assignments: str) -> Sweep:
    data: dict[str, Any] = sweep_data()
    for assignment in assignments:
        set_override(data, assignment)
    return parse_sweep(data, "sweep")


@pytest.fixture(autouse=True)
def small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr(machine, "memory_bytes", lambda: 8 * 10**9)
    monkeypatch.setattr("search.config.space.COMBINATIONS_TRIED", 20)
    monkeypatch.setattr(FrameSet, "open", lambda _: FRAMES)


BEYOND = [
    ("resources.cpu=500", "resources.cpu: one trial takes 500 CPU cores, but this machine has 4"),
    ("resources.gpu=2", "resources.gpu: one trial takes 2, but this machine has 1 GPU"),
    ("base.model.latent_dim=1024", ""),
    ("space.model.width=[8, 4096]", "model: one trial with latent_dim 4, width 4096, depth "),
    ("base.train.batch_size=65536", "and batch_size 65536 takes about 101 GB, but this machine has 8"),
]


@pytest.mark.parametrize(("assignment", "message"), BEYOND, ids=[row[0] for row in BEYOND])
def test_what_no_trial_here_could_have_is_named_with_what_the_machine_has(assignment: str, message: str) -> None:
    sweep = sweep_with(assignment)
    lines = list(beyond_this_machine(sweep, FRAMES))
    assert [message in line for line in lines] == [True] * bool(message)
    if message:
        with pytest.raises(ValueError, match="cannot run on this machine; change it, or give a --cluster") as caught:
            check_machine(sweep)
        assert message in str(caught.value)


@pytest.mark.parametrize("share", ["auto", "0", "0.25", "1"])
def test_a_gpu_that_is_there_may_be_shared(share: str) -> None:
    check_machine(sweep_with(f"resources.gpu={share}"))


def test_cuda_is_refused_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    check_machine(sweep_with("base.train.device=cuda"))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(ValueError, match=r"base\.train\.device: a trial takes cuda, but this machine has 0 GPUs"):
        check_machine(sweep_with("base.train.device=cuda"))


ODD = [
    ("base.train.batch_size=128", "train.batch_size 128 holds each of the 100 training frames several times."),
    ("base.train.batch_size='128'", "train.batch_size 128 holds each of the 100 training frames several times."),
    ("base.evaluate.every='481'", "evaluate.every is more than the 480 steps"),
    ("base.train.log_every='481'", "train.log_every is more than the 480 steps"),
    ("base.evaluate.every=481", "evaluate.every is more than the 480 steps, so only the last step is evaluated."),
    ("base.train.log_every=481", "train.log_every is more than the 480 steps"),
    ("sampler={name: tpe, startup_trials: 6}", "sampler.startup_trials 6 lets none of 6 trials learn."),
    ("confirm={top: 7, seeds: 2}", "confirm.top 7 is more than 6 trials: all are trained again."),
    ("points={a: {}, b: {}, c: {}, d: {}, e: {}, f: {}, g: {}}", "budget.trials 6 is less than the 7 named points"),
]


@pytest.mark.parametrize(("assignment", "message"), ODD, ids=[row[0] for row in ODD])
def test_numbers_that_cannot_be_meant_are_said(assignment: str, message: str) -> None:
    assert not list(odd_numbers(sweep_with(), FRAMES))
    [line] = odd_numbers(sweep_with(assignment), FRAMES)
    assert line.startswith(message)


def test_one_thing_is_singular() -> None:
    assert [counted(number, "trial") for number in (0, 1, 2, 12345)] == [
        "0 trials",
        "1 trial",
        "2 trials",
        "12,345 trials",
    ]
    assert [counted(number, "hour") for number in (0.5, 1.0, 2.5)] == ["0.5 hours", "1 hour", "2.5 hours"]
