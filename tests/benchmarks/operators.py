"""Where the time of a joint step goes, by kind of operator, from torch.profiler."""

from __future__ import annotations

import re
import time
import warnings
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from page import Section, bars
from setups import AUTO, PLAIN, Size, rate_trainer, synchronize
from throughput import WARM_UP
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile

from vaegan_core.training.trainer import Trainer

KINDS = {
    "convolutions, backward": r"convolution_backward",
    "convolutions, forward": r"convolution|conv_transpose|conv2d",
    "linear layers": r"addmm|::mm$|::linear$|::bmm$|::matmul$",
    "reflection padding": r"reflection_pad|::pad$",
    "normalization layers": r"batch_norm|group_norm|instance_norm|layer_norm",
    "spectral norm": r"addmv|::mv$|::dot$|::vdot$|linalg_vector_norm|clamp_min_|::normalize",
    "activations": r"relu|threshold|clamp_min|tanh|sigmoid|softplus",
    "Adam": r"adam",
    "averaged weights (EMA)": r"lerp",
    "copies, casts and fills": r"copy|::to$|::contiguous|::clone|zero|fill|empty|resize|::cat$",
    "data and noise": r"::index$|randn|normal_|randperm",
}
"""The first pattern that is found in an operator's name has it."""
OTHERS = "sums, losses, views and other small operators"
BETWEEN = "Python, and between operators"
READ = "aten::_local_scalar_dense"
"""What every read of a tensor's value on the host goes through."""
WAITING = "called a synchronizing CUDA operation"
"""What torch says of those in CUDA's synchronization debug mode."""


def measure(size: Size, threads: int, steps: int) -> Section:
    columns = {"float32": _profile(size, threads, steps, PLAIN), "auto": _profile(size, threads, steps, AUTO)}
    names = [*KINDS, OTHERS, BETWEEN]
    names.sort(key=lambda name: -columns["auto"][0][name])
    return Section(
        f"Where the time of a joint step goes: {size.label}, {threads} thread(s)",
        ["", "float32, ms/step", "share", "all auto, ms/step", "share"],
        [
            [name]
            + [
                cell
                for times, _ in columns.values()
                for cell in (f"{1000 * times[name]:.2f}", f"{times[name] / sum(times.values()):.1%}")
            ]
            for name in names
        ],
        [
            "Self time of operators, on a GPU of their kernels.",
            "Operations in a step for which the host waits: "
            + ", ".join(f"{waits:g} ({name})" for name, (_, waits) in columns.items())
            + (
                "."
                if torch.cuda.is_available()
                else "; on a CPU, reads of a tensor's value but for Adam's step counts."
            ),
        ],
        [bars("ms a step, all auto", {name: 1000 * columns["auto"][0][name] for name in names})],
    )


def _profile(size: Size, threads: int, steps: int, options: dict[str, Any]) -> tuple[dict[str, float], float]:
    """Seconds a step by kind of operator, and for how many operations of a step the host waits."""
    trainer = rate_trainer(size, threads, **options)
    on_gpu = trainer.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with trainer.runtime():
        for _ in range(WARM_UP):
            trainer.train_step()
        synchronize()
        with profile(activities=activities) as profiler:
            start = time.perf_counter()
            for _ in range(steps):
                trainer.train_step()
            synchronize()
            elapsed = time.perf_counter() - start
        waits = _waits_on_gpu(trainer) if on_gpu else _reads(profiler.events()) / steps
    times: Counter[str] = Counter(dict.fromkeys((*KINDS, OTHERS), 0.0))
    for event in profiler.key_averages():
        if event.device_type != DeviceType.CPU:
            continue  # a kernel, counted with the operator that launched it
        seconds = (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / 1e6
        times[_kind(event.key)] += seconds / steps
    return {**times, BETWEEN: max(0.0, elapsed / steps - sum(times.values()))}, waits


def _waits_on_gpu(trainer: Trainer) -> int:
    """For how many operations of one step the host waits."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        trainer.train_step()
        torch.cuda.set_sync_debug_mode("default")
    return sum(WAITING in str(warning.message) for warning in caught)


def _reads(events: Iterable[Any]) -> int:
    """How often a tensor's value is read, but for the step counts that fused Adam reads on a CPU only."""

    def inside_adam(event: Any) -> bool:
        return event is not None and ("adam" in event.name or inside_adam(event.cpu_parent))

    return sum(event.name == READ and not inside_adam(event) for event in events)


def _kind(operator: str) -> str:
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, operator, re.IGNORECASE)), OTHERS)
