"""The first tensor of a training that is not finite, named where it appears: for a training that diverges.

Every module's inputs and outputs, every loss term, every gradient before its optimizer step and every parameter after
it is looked at, in the order of computation. Looking waits for the device each time, and changes no number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vaegan_core.training.trainer import Trainer
from vaegan_core.training.update import DECODER, DISCRIMINATOR, ENCODER

Range = tuple[float, float]
"""Smallest and largest value of a tensor."""


@dataclass(eq=False)
class NonFinite(Exception):
    """A tensor holds infinity or NaN, and every one computed before it was finite."""

    step: int
    """From 1."""
    tensor: str
    """What it is and where: `activation of decoder.blocks.0`, `gradient of encoder.posterior.weight`, …"""
    count: int
    """Values that are not finite, of `size`."""
    size: int
    before: str
    """The tensor looked at right before; "" for the very first."""
    range_before: Range | None
    at_last: Range | None
    """Range of the same tensor the last time that it was computed; None if it never was."""

    def __str__(self) -> str:
        lines = [f"{self.tensor} is not finite at step {self.step}: {self.count:,} of {self.size:,} values"]
        if self.range_before is not None:
            lines.append(f"right before it, {self.before} was in {_in_words(self.range_before)}")
        if self.at_last is not None:
            lines.append(f"itself was in {_in_words(self.at_last)} the time before")
        return "; ".join(lines)


def _in_words(values: Range) -> str:
    return f"[{values[0]:.4g}, {values[1]:.4g}]"


@contextmanager
def stopping_at_nonfinite(trainer: Trainer) -> Iterator[None]:
    """Training and evaluation of `trainer` raise NonFinite at the first value that is not finite. Needs networks that
    are not compiled."""
    assert not trainer.config.train.compile, "compiled networks call no hooks"
    watch = _Watch(trainer)
    networks = {
        ENCODER: trainer.autoencoder.encoder,
        DECODER: trainer.autoencoder.decoder,
        DISCRIMINATOR: trainer.discriminator,
        f"averaged {ENCODER}": trainer.averaged.encoder,
        f"averaged {DECODER}": trainer.averaged.decoder,
    }
    update = trainer.update
    with ExitStack() as stack:
        for name, network in networks.items():
            for handle in watch.hooks(name, network):
                stack.callback(handle.remove)
        for name, optimizer in update.optimizers.items():
            for handle in watch.around_steps(name, update.networks[name], optimizer):
                stack.callback(handle.remove)
        for owner, function in ((update.terms, "discriminator"), (update.terms, "images"), (update, "penalties")):
            stack.callback(delattr, owner, function)
            setattr(owner, function, watch.watched("loss term", getattr(owner, function)))
        stack.callback(setattr, update, "kl", update.kl)
        watched: Any = watch.watched("loss term kl", update.kl)
        update.kl = watched
        yield


class _Watch:
    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._last: tuple[str, Range] | None = None
        self._ranges: dict[str, Range] = {}

    def check(self, tensor: Tensor, name: str) -> None:
        """Raises NonFinite unless every value is finite."""
        if not tensor.is_floating_point() or not tensor.numel():
            return
        values = tensor.detach()
        low, high = torch.stack(torch.aminmax(values)).tolist()
        if not (math.isfinite(low) and math.isfinite(high)):
            before, range_before = self._last or ("", None)
            count = int((~torch.isfinite(values)).sum())
            raise NonFinite(
                self._step, name, count, values.numel(), before, range_before, self._ranges.get(name)
            ) from None
        self._last = name, (low, high)
        self._ranges[name] = low, high

    @property
    def _step(self) -> int:
        return self._trainer.step + (not torch.is_inference_mode_enabled())

    def hooks(self, network: str, module: nn.Module) -> Iterator[torch.utils.hooks.RemovableHandle]:
        """Checks what goes into the network, and what comes out of each of its modules."""
        yield module.register_forward_pre_hook(self._before(f"input of {network}"))
        for path, part in module.named_modules():
            if "parametrizations" in path:
                what = "weight" if path.endswith((".weight", ".bias")) else "normalization"
                yield part.register_forward_hook(self._after(f"{what} {network}.{path}"))
            else:
                yield part.register_forward_hook(
                    self._after(f"activation of {'.'.join(filter(None, (network, path)))}")
                )

    def _before(self, what: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any) -> None:  # noqa: ARG001
            self._check_all(inputs, what)

        return hook

    def _after(self, what: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ARG001
            self._check_all(output, what)

        return hook

    def around_steps(
        self, network: str, module: nn.Module, optimizer: Optimizer
    ) -> Iterator[torch.utils.hooks.RemovableHandle]:
        """Checks gradients before a step of the optimizer, the last layer's first, and the parameters after it."""
        named = list(module.named_parameters())

        def before(optimizer: Optimizer, args: Any, kwargs: Any) -> None:  # noqa: ARG001
            for name, parameter in reversed(named):
                if parameter.grad is not None:
                    self.check(parameter.grad, f"gradient of {network}.{name}")

        def after(optimizer: Optimizer, args: Any, kwargs: Any) -> None:  # noqa: ARG001
            for name, parameter in named:
                self.check(parameter, f"parameter {network}.{name}")

        yield optimizer.register_step_pre_hook(before)
        yield optimizer.register_step_post_hook(after)

    def watched(self, what: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with every tensor that it returns checked."""

        def call(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            self._check_all(result, what)
            return result

        return call

    def _check_all(self, values: Any, what: str) -> None:
        for tensor, name in _tensors_in(values, what):
            self.check(tensor, name)


def _tensors_in(values: Any, name: str) -> Iterator[tuple[Tensor, str]]:
    """Every tensor in (nested) results, each with a name."""
    if isinstance(values, Tensor):
        yield values, name
    elif isinstance(values, Mapping):
        for key, value in values.items():
            yield from _tensors_in(value, f"{name} {key}")
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _tensors_in(value, name)
    elif is_dataclass(values):
        for field in fields(values):
            yield from _tensors_in(getattr(values, field.name), f"{name} ({field.name})")
