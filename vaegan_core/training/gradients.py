"""Gradients at images, their sums and norms."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


def image_gradient(terms: Sequence[Tensor], images: Sequence[Tensor]) -> list[Tensor]:
    """d(sum of terms)/d(image) for each image, zeros where there is none."""
    grads = torch.autograd.grad(torch.stack(list(terms)).sum(), images, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(image) if grad is None else grad for grad, image in zip(grads, images, strict=True)]


def add_grad(parameter: nn.Parameter, grad: Tensor | None) -> None:
    """Adds to `.grad` in the parameter's own memory layout: fused Adam reads both side by side and minds no strides."""
    if grad is None:
        return
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    parameter.grad.add_(grad)


def sum_gradients(gradients: Iterable[list[Tensor]]) -> list[Tensor] | None:
    """Elementwise sum of lists of tensors; None for none."""
    total: list[Tensor] | None = None
    for each in gradients:
        total = each if total is None else [a + b for a, b in zip(total, each, strict=True)]
    return total


def gradient_norm(grads: Iterable[Tensor | None]) -> Tensor:
    norm: Tensor = torch.stack([grad.float().norm() for grad in grads if grad is not None]).norm()
    return norm
