"""Images per second of every update scheme and option, and of pythae's VAEGAN, as ratios within one run."""

from __future__ import annotations

import gc
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from page import Section, bars
from setups import AUTO, OPTIONS, PLAIN, Size, frames, rate_trainer, synchronize, trial
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from vaegan_core.training.update import Draw

PEAK_TFLOPS = {"H100": 989, "H200": 989, "A100": 312}
"""Dense bfloat16, from the makers' data sheets."""
WARM_UP = 3
REFERENCE, PLAIN_JOINT = "per_term, float32", "joint, float32"
BEST = "joint, bfloat16, channels last"
AIMS = {PLAIN_JOINT: 1.5, BEST: 2.5}
"""Aimed-for multiple of the reference's rate, on two CPU cores at the demo's size."""
PYTHAE = "pythae VAEGAN, float32"
NO_COMPILER = "no compiler"
TOO_LONG = 300
"""Seconds that trainings which are to run at once wait for each other."""
_barrier: Any = None
"""In a process of `together`: where all of them meet."""


class Runner(Protocol):
    def warm_up(self) -> None: ...
    def run(self) -> int:
        """One turn; how many images it saw."""


class OurRunner:
    """A trainer's own steps, as in a training that makes no curve point meanwhile."""

    def __init__(self, size: Size, threads: int, **train: Any) -> None:
        self.size = size
        self.trainer = rate_trainer(size, threads, **train)

    def warm_up(self) -> None:
        with self.trainer.runtime():
            if self.size.kept:
                for _ in range(WARM_UP):
                    self.trainer.train_step()
                self.trainer.curves.flush(self.trainer.step)
            else:  # Two images suffice for Adam's moments and the first touch of all memory, and cost little.
                draw = self.trainer._draw(0)
                self.trainer.update.step([Draw(draw.x[:2], draw.noise[:2], draw.z_prior[:2])], 0, False)

    def run(self) -> int:
        with self.trainer.runtime():
            for _ in range(self.size.steps):
                self.trainer.train_step()
            self.trainer.curves.flush(self.trainer.step)
        return self.size.steps * self.size.batch


@dataclass
class Variant:
    make: Callable[[], Runner]
    gflops: float
    """Per image."""
    rates: list[float] = field(default_factory=list)
    """Images per second, one for each round."""
    runner: Runner | None = None
    note: str = ""

    def turn(self, kept: bool) -> None:
        runner = self.runner
        if runner is None:
            runner = self.make()
            runner.warm_up()
        synchronize()
        start = time.perf_counter()
        images = runner.run()
        synchronize()
        self.rates.append(images / (time.perf_counter() - start))
        if kept:
            self.runner = runner
        else:
            del runner
            gc.collect()


def measure(size: Size, threads: int, say: Callable[[str], None]) -> tuple[Section, Section | None]:
    """Rates of all variants at one size, and those of pythae beside ours (None where it is not installed)."""
    say(f"{size.label}: floating-point operations")
    gflops = {scheme: _gflops(size, threads, scheme) for scheme in size.schemes}
    variants = {
        f"{scheme}, float32": Variant(lambda scheme=scheme: OurRunner(size, threads, update=scheme, **PLAIN), each)
        for scheme, each in gflops.items()
    }
    variants |= {
        f"joint, {name}": Variant(lambda options=options: OurRunner(size, threads, **options), gflops["joint"])
        for name, options in OPTIONS.items()
        if options is not PLAIN and (size.compiled or "compile" not in options)
    }
    with tempfile.TemporaryDirectory() as scratch:
        theirs = _pythae(size, threads, Path(scratch))
        if theirs:
            variants[PYTHAE] = theirs
        with _cold_compiler(Path(scratch)):
            _compile(size, variants, say)
            for number in range(size.rounds):
                say(f"{size.label}: round {number + 1} of {size.rounds}")
                for variant in variants.values():
                    if variant.note != NO_COMPILER:
                        variant.turn(size.kept)
    rates = _section(size, threads, {name: each for name, each in variants.items() if name != PYTHAE})
    return rates, _pythae_section(size, threads, variants, theirs) if theirs else None


class FlopCounter(TorchDispatchMode):
    """torch.utils.flop_counter's formulas. Its own counter follows modules with hooks, which `simultaneous`, taking
    gradients at parameters, does not get along with."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if formula := flop_registry.get(func._overloadpacket):
            self.flops += formula(*args, **kwargs, out_val=out)
        return out


def _gflops(size: Size, threads: int, scheme: str) -> float:
    trainer = rate_trainer(replace(size, batch=2), threads, update=scheme, **PLAIN)
    with trainer.runtime(), FlopCounter() as counter:
        trainer.train_step()
    del trainer
    gc.collect()
    return counter.flops / 2 / 1e9


# --- torch.compile ----------------------------------------------------------------------------------------------------


@contextmanager
def _cold_compiler(scratch: Path) -> Iterator[None]:
    """Inside, torch.compile finds nothing that it compiled before."""
    key = "TORCHINDUCTOR_CACHE_DIR"
    before = os.environ.get(key)
    os.environ[key] = str(scratch / "inductor")
    try:
        yield
    finally:
        del os.environ[key]
        if before is not None:
            os.environ[key] = before


def has_compiler() -> bool:
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "c++", "clang++"))


def _compile(size: Size, variants: dict[str, Variant], say: Callable[[str], None]) -> None:
    """The first steps of what is compiled; the variant's note says how long they took, or why there are none."""
    for name, variant in variants.items():
        if not name.endswith("compiled"):
            continue
        if not has_compiler():
            variant.note = NO_COMPILER
            continue
        say(f"{size.label}: compiling {name}")
        start = time.perf_counter()
        variant.runner = variant.make()
        variant.runner.warm_up()
        variant.note = f"compiled in {time.perf_counter() - start:.0f} s"


# --- pythae -----------------------------------------------------------------------------------------------------------


@dataclass
class PythaeVariant(Variant):
    num_parameters: int = 0
    updates: Counter[str] = field(default_factory=Counter)
    """One key per network, over all runners, and "steps"."""


def _pythae(size: Size, threads: int, scratch: Path) -> PythaeVariant | None:
    try:
        from pythae_vaegan import PythaeRunner
    except ModuleNotFoundError as error:
        if error.name != "pythae":
            raise
        return None
    model = trial(size, threads, steps=1, evaluate={"every": 1}).model
    images = frames(size.height, size.width).train
    updates: Counter[str] = Counter()

    few = PythaeRunner(model, images, 2, 1, threads, scratch, Counter())
    with FlopCounter() as counter:
        few.run()
    return PythaeVariant(
        lambda: PythaeRunner(model, images, size.batch, size.steps, threads, scratch, updates),
        counter.flops / 2 / 1e9,
        num_parameters=few.num_parameters,
        updates=updates,
    )


def _num_parameters(size: Size, threads: int) -> int:
    trainer = rate_trainer(size, threads, **PLAIN)
    networks = (*trainer.autoencoder.parameters(), *trainer.discriminator.parameters())
    return sum(parameter.numel() for parameter in networks)


def _pythae_section(size: Size, threads: int, variants: dict[str, Variant], theirs: PythaeVariant) -> Section:
    variants = {PYTHAE: theirs} | {name: variants[name] for name in (PLAIN_JOINT, BEST)}
    ours = _num_parameters(size, threads)
    rested = ", ".join(
        f"{name} {theirs.updates[name] / theirs.updates['steps']:.0%}" for name in ("decoder", "discriminator")
    )
    return Section(
        f"Against pythae's VAEGAN: {size.label}, {device(threads)}",
        ["", "parameters", "GFLOP/image", "images/s", "against pythae"],
        [
            [
                name,
                f"{theirs.num_parameters if variant is theirs else ours:,}",
                f"{variant.gflops:.3g}",
                f"{statistics.median(variant.rates):.3g}",
                _with_spread(_ratios(variants, name, PYTHAE)),
            ]
            for name, variant in variants.items()
        ],
        [
            "pythae: CoupledOptimizerAdversarialTrainer.train_step over one epoch, that is its data loader, "
            "VAEGAN.forward, its backward passes, its Adam steps and its .item() calls, all with its defaults but for "
            "the batch size. Encoder, decoder and discriminator are ours (the same classes, float32, contiguous), its "
            "reconstruction layer is our feature map; the same frames, device and threads. Its GFLOP: of a step that "
            "updates all three networks.",
            "Ours does more in a step: the discriminator also sees reconstructions, weights are averaged, every term "
            "is tracked, and it is deterministic.",
            f"pythae lets a network rest while losses are uneven. Steps in which it was updated: {rested}.",
        ],
    )


# --- Several at once --------------------------------------------------------------------------------------------------


def _meet(barrier: Any) -> None:
    global _barrier
    _barrier = barrier


def _one_of_many(size: Size, threads: int) -> float:
    variant = Variant(lambda: OurRunner(size, threads, **AUTO), 0.0)
    variant.runner = variant.make()
    variant.runner.warm_up()
    _barrier.wait(TOO_LONG)
    for _ in range(size.rounds):
        variant.turn(kept=True)
    return statistics.median(variant.rates)


def together(size: Size, count: int, threads: int) -> float:
    """Images per second of `count` processes training at once with `auto` options, summed."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, context, _meet, (context.Barrier(count),)) as pool:
        return sum(pool.map(_one_of_many, [size] * count, [threads] * count))


# --- What is shown ----------------------------------------------------------------------------------------------------


def device(threads: int) -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"{threads} CPU threads"


def _ratios(variants: dict[str, Variant], name: str, reference: str) -> list[float]:
    """Round by round: what slows the machine for a while slows both."""
    return [rate / plain for rate, plain in zip(variants[name].rates, variants[reference].rates, strict=True)]


def _with_spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def _peak() -> float | None:
    """TFLOP/s."""
    if not torch.cuda.is_available():
        return None
    return next((peak for name, peak in PEAK_TFLOPS.items() if name in torch.cuda.get_device_name()), None)


def _section(size: Size, threads: int, variants: dict[str, Variant]) -> Section:
    peak = _peak()
    header = ["", "GFLOP/image", "images/s", "against per_term", "against joint", "GFLOP/s"]
    rows = []
    for name, variant in variants.items():
        if not variant.rates:
            rows.append([f"{name}: {variant.note}", f"{variant.gflops:.3g}", *["–"] * (4 + bool(peak))])
            continue
        rate = statistics.median(variant.rates)
        row = [f"{name} ({variant.note})" if variant.note else name, f"{variant.gflops:.3g}", f"{rate:.3g}"]
        row += [_with_spread(_ratios(variants, name, reference)) for reference in (REFERENCE, PLAIN_JOINT)]
        row.append(f"{rate * variant.gflops:.3g}")
        if peak:
            row.append(f"{rate * variant.gflops / 1000 / peak:.1%}")
        rows.append(row)
    if size.kept:
        both = together(size, 2, max(1, threads // 2))
        plain = statistics.median(variants[PLAIN_JOINT].rates)
        name = f"two trials at once, all auto, {max(1, threads // 2)} thread(s) each"
        rows.append([name, "", f"{both:.3g}", "", f"{both / plain:.2f}", "", *([""] if peak else [])])
    measured = {name: _ratios(variants, name, REFERENCE) for name, each in variants.items() if each.rates}
    medians = {name: statistics.median(ratios) for name, ratios in measured.items()}
    notes = [
        f"Medians over {size.rounds} rounds of {size.steps} step(s) in which all variants took turns; in brackets the "
        "smallest and largest ratio within one round. Both columns of ratios are against float32."
    ]
    if peak:
        notes.append(f"Share of peak: of {peak} TFLOP/s, dense bfloat16, in every row.")
    if size.kept and not torch.cuda.is_available():
        notes += [
            f"Aim: {name} at least {aim} times {REFERENCE}: {medians[name]:.2f}, "
            + ("reached." if medians[name] >= aim else "missed.")
            for name, aim in AIMS.items()
        ]
    spread = {name: (min(ratios), max(ratios)) for name, ratios in measured.items()}
    return Section(
        f"Rates: {size.label}, {device(threads)}",
        [*header, "of peak"] if peak else header,
        rows,
        notes,
        [bars(f"images/s against {REFERENCE}", medians, spread)],
    )
