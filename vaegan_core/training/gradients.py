"""Gradients at images, their sums and norms."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


def image_gradient(values: Sequence[Tensor], images: Sequence[Tensor]) -> list[Tensor]:
    """d(sum of scalar values)/d(image) for each image, zeros where an image is not used. Keeps the graph."""
    grads = torch.autograd.grad(torch.stack(list(values)).sum(), images, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(image) if grad is None else grad for grad, image in zip(grads, images, strict=True)]


def add_grad(parameter: nn.Parameter, grad: Tensor | None) -> None:
    """Adds to `.grad`, in the parameter's own memory layout: fused Adam reads both side by side, ignoring strides."""
    if grad is None:
        return
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    parameter.grad.add_(grad)


def sum_gradients(gradients: Iterable[list[Tensor]]) -> list[Tensor] | None:
    """Elementwise sum of lists of tensors; None for no list."""
    total: list[Tensor] | None = None
    for tensors in gradients:
        total = tensors if total is None else [a + b for a, b in zip(total, tensors, strict=True)]
    return total


def gradient_norm(grads: Iterable[Tensor | None]) -> Tensor:
    """Euclidean norm over all tensors together, a scalar in float32; None counts as zeros."""
    norm: Tensor = torch.stack([grad.float().norm() for grad in grads if grad is not None]).norm()
    return norm
