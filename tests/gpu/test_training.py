"""One trainer on a CUDA device: exact where it says so, and near the CPU's numbers where that is what can be asked."""

from __future__ import annotations

import gc
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from trials import tiny

from search.journal.records import Cause
from search.running.device_errors import cause_of
from vaegan_core.config.trial import TrialConfig
from vaegan_core.data.frames import FrameSet
from vaegan_core.evaluation import PIXEL_MSE, Evaluation
from vaegan_core.hardware import has_bfloat16
from vaegan_core.metrics.frame_features import FrameFeatures
from vaegan_core.training.resolve import resolve
from vaegan_core.training.trainer import UPDATES, Trainer

Train = Callable[..., tuple[Trainer, list[Evaluation]]]
NORMS = ("none", "batch", "instance", "group", "layer")
EVERYTHING = {
    "loss__discriminator__augment": "all",
    "loss__discriminator__r1": 0.1,
    "model__decoder__upsampling": "resize",
    "model__decoder__residual_blocks": 1,
}
"""Options whose gradients take further kernels."""


@pytest.fixture
def train(device: str, frame_set: FrameSet, frame_features: FrameFeatures) -> Train:
    def run(**changes: Any) -> tuple[Trainer, list[Evaluation]]:
        seen: list[Evaluation] = []
        trainer = Trainer(tiny(**{"train__device": device} | changes), frame_set, frame_features)
        trainer.run(seen.append)
        return trainer, seen

    return run


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return trainer.averaged.state_dict() | trainer.discriminator.state_dict()


def assert_same(first: Trainer, second: Trainer) -> None:
    before, after = weights(first), weights(second)
    assert [name for name in before if not torch.equal(before[name], after[name])] == []


def curve(evaluations: list[Evaluation], key: str) -> dict[int, float]:
    return {point.step: point.value for each in evaluations for point in each.points if point.key == key}


def first_losses(evaluations: list[Evaluation]) -> dict[str, float]:
    step = min(point.step for point in evaluations[0].points)
    return {p.key: p.value for p in evaluations[0].points if p.step == step and p.key.startswith("train/")}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("update", [*UPDATES])
def test_the_same_seed_gives_the_same_bits(train: Train, update: str, precision: str) -> None:
    options = EVERYTHING if update == "joint" else {}
    runs = [train(train__update=update, train__precision=precision, **options) for _ in range(2)]
    assert_same(runs[0][0], runs[1][0])
    assert runs[0][1][-1].metrics == runs[1][1][-1].metrics


@pytest.mark.parametrize("norm", NORMS)
def test_every_norm_is_exact_in_channels_last(train: Train, norm: str) -> None:
    changes = {f"model__{part}__norm": norm for part in ("encoder", "decoder", "discriminator")}
    assert_same(train(train__channels_last=True, **changes)[0], train(train__channels_last=True, **changes)[0])


def test_reflection_padding_has_an_exact_gradient(device: str) -> None:
    torch.use_deterministic_algorithms(True)
    try:
        gradients = []
        for _ in range(3):
            x = torch.linspace(-1, 1, 2 * 3 * 17 * 31, device=device).reshape(2, 3, 17, 31).requires_grad_()
            y = torch.nn.functional.pad(x, (2, 2, 2, 2), mode="reflect")
            (y.sin() * torch.arange(y.numel(), device=device).reshape(y.shape)).sum().backward()
            gradients.append(x.grad)
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(gradients[0], gradients[1])
    assert torch.equal(gradients[0], gradients[2])


def test_the_device_starts_where_the_cpu_does(train: Train) -> None:
    """The same weights, frames and losses; noise is the device's own, so terms that see noise may differ a little."""
    here, there = (
        train(train__steps=6, evaluate__every=3)[1],
        train(train__steps=6, evaluate__every=3, train__device="cpu")[1],
    )
    ours, theirs = first_losses(here), first_losses(there)
    assert ours.keys() == theirs.keys()
    assert all(math.isclose(ours[key], theirs[key], rel_tol=0.15, abs_tol=0.02) for key in ours), (ours, theirs)


def test_fused_adam_takes_the_steps_of_a_plain_loop(device: str, train: Train) -> None:
    trainer = train(train__steps=3, train__channels_last=True)[0]
    random = torch.Generator(device).manual_seed(0)
    for optimizer in trainer.update.optimizers.values():
        group = optimizer.param_groups[0]
        assert group["fused"]
        ours = [each for each in group["params"] if each in optimizer.state]
        twins = [torch.nn.Parameter(each.detach().double().cpu()) for each in ours]
        plain = torch.optim.AdamW(
            twins, lr=group["lr"], betas=group["betas"], weight_decay=group["weight_decay"], foreach=False, fused=False
        )
        for each, twin in zip(ours, twins, strict=True):
            state = optimizer.state[each]
            plain.state[twin] = {
                "step": state["step"].double().cpu(),
                "exp_avg": state["exp_avg"].double().cpu(),
                "exp_avg_sq": state["exp_avg_sq"].double().cpu(),
            }
            each.grad = torch.randn(each.shape, generator=random, device=device).contiguous(
                memory_format=torch.channels_last if each.dim() == 4 else torch.contiguous_format
            )
            twin.grad = each.grad.double().cpu()
        optimizer.step()
        plain.step()
        for each, twin in zip(ours, twins, strict=True):
            torch.testing.assert_close(each.detach().double().cpu(), twin.detach(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("channels last", {"train__channels_last": True}),
        ("bfloat16", {"train__precision": "bfloat16"}),
        ("compiled", {"train__compile": True}),
        (
            "compiled, bfloat16, channels last",
            {"train__compile": True, "train__precision": "bfloat16", "train__channels_last": True},
        ),
    ],
)
def test_options_for_speed_learn_the_same(
    train: Train, note: Callable[[str, str], None], name: str, options: Any
) -> None:
    if "compiled" in name and not (shutil.which("g++") or shutil.which("c++")):
        pytest.skip("no compiler")
    steps = {"train__steps": 60, "evaluate__every": 30, "optimizer__autoencoder__lr": 3e-3}
    plain, fast = train(**steps)[1], train(**steps, **options)[1]
    before, after = plain[-1].metrics[PIXEL_MSE], fast[-1].metrics[PIXEL_MSE]
    note(f"{name}: val/pixel_mse after 60 steps, plain and so", f"{before:.4f}, {after:.4f}")
    assert after == pytest.approx(before, rel=0.15)


def test_auto_takes_bfloat16_only_where_the_hardware_has_it(device: str) -> None:
    wished = tiny(train__device=device, train__precision="auto")
    hardware = device == "cuda" and torch.cuda.get_device_capability() >= (8, 0)
    if device == "cuda":
        assert has_bfloat16(device) == hardware
    assert resolve(wished).train.precision == ("bfloat16" if has_bfloat16(device) else "float32")


def test_a_training_moves_from_the_cpu_to_the_device_and_back(
    device: str, frame_set: FrameSet, frame_features: FrameFeatures, train: Train, tmp_path: Path
) -> None:
    class Moved(Exception):
        pass

    steps = {"train__steps": 90, "evaluate__every": 30, "optimizer__autoencoder__lr": 3e-3}
    seen: list[Evaluation] = []

    def report(evaluation: Evaluation) -> None:
        if evaluation.step in {each.step for each in seen}:
            return
        seen.append(evaluation)
        if evaluation.outcome == "running":
            raise Moved

    for place in ("cpu", device, "cpu"):
        trainer = Trainer(tiny(**steps, train__device=place), frame_set, frame_features)
        try:
            trainer.run(report, checkpoint=tmp_path / "checkpoint.safetensors")
        except Moved:
            continue
    assert [each.step for each in seen] == [30, 60, 90]
    stayed = train(**steps, train__device="cpu")[1]
    assert seen[-1].metrics[PIXEL_MSE] == pytest.approx(stayed[-1].metrics[PIXEL_MSE], rel=0.2)


@pytest.mark.parametrize("update", [*UPDATES])
def test_a_resume_on_the_device_is_exact(
    device: str, frame_set: FrameSet, frame_features: FrameFeatures, train: Train, tmp_path: Path, update: str
) -> None:
    class Killed(Exception):
        pass

    def killed(_: Evaluation) -> None:
        raise Killed

    config = tiny(train__device=device, train__update=update)
    with pytest.raises(Killed):
        Trainer(config, frame_set, frame_features).run(killed, checkpoint=tmp_path / "checkpoint.safetensors")
    resumed = Trainer(config, frame_set, frame_features)
    resumed.run(lambda _: None, checkpoint=tmp_path / "checkpoint.safetensors")
    assert_same(resumed, train(train__update=update)[0])


def need_cuda(device: str) -> None:
    if device != "cuda":
        pytest.skip("its subject is a CUDA device's memory")


def test_the_second_trial_of_a_process_takes_no_more_memory(
    device: str, train: Train, note: Callable[[str, str], None]
) -> None:
    need_cuda(device)
    peaks = []
    for _ in range(3):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        train(model__width=32, train__batch_size=64)
        peaks.append(torch.cuda.max_memory_allocated())
    note("peak memory of three trials in one process, MB", ", ".join(f"{peak / 1e6:.1f}" for peak in peaks))
    assert max(peaks[1:]) <= 1.02 * peaks[0]


def test_no_memory_is_out_of_memory_whatever_runs_out_and_goes_on_afterwards(device: str, train: Train) -> None:
    need_cuda(device)
    gc.collect()
    torch.cuda.empty_cache()
    free = torch.cuda.mem_get_info()[0]
    filler = torch.empty(free - 64 * 2**20, dtype=torch.uint8, device=device)
    with pytest.raises(Exception, match=r"(?i)memory|alloc") as caught:
        train(model__width=64, train__batch_size=256)
    assert cause_of(caught.value) == Cause.OUT_OF_MEMORY
    del filler, caught
    gc.collect()
    torch.cuda.empty_cache()
    assert train()[1][-1].outcome == "completed"


def test_a_step_waits_for_the_device_at_curve_points_only(
    device: str, frame_set: FrameSet, frame_features: FrameFeatures
) -> None:
    need_cuda(device)
    trainer = Trainer(config_without_points(device), frame_set, frame_features)
    with trainer.runtime():
        for _ in range(3):
            trainer.train_step()
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(3):
                trainer.train_step()
        finally:
            torch.cuda.set_sync_debug_mode("default")


def config_without_points(device: str) -> TrialConfig:
    return tiny(train__device=device, train__steps=1000, train__log_every=1000, evaluate__every=1000)
