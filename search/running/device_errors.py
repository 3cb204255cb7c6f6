"""Errors of a GPU: which of them mean that its memory is full, and after which a process cannot go on."""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch

from search.journal.records import Cause

MEMORY = re.compile(
    r"out of memory|OUT_OF_MEMORY|ALLOC_FAILED|MemoryAllocation|unable to allocate (cuda|gpu)", re.IGNORECASE
)
"""What CUDA, cuBLAS, cuDNN, cuSOLVER, cuFFT and HIP say when there is no memory for tensors, handles or contexts."""
DEVICE = re.compile(
    r"\b(CUDA|HIP|cuDNN|cuBLAS(Lt)?|cuSOLVER|cuSPARSE|cuFFT|cuRAND|NCCL|NVML|NVRTC|MIOpen)\b.{0,20}(error|fail|out of memory)"
    r"|\b(CUDNN|CUBLAS|CUSOLVER|CUSPARSE|CUFFT|CURAND|HIPBLAS|MIOPEN)_[A-Z_]+|\bCUDA_ERROR_\w+|\b(cuda|hip)Error[A-Z]\w+"
    r"|device-side assert|illegal memory access|misaligned address|unspecified launch failure|uncorrectable ECC",
    re.IGNORECASE,
)
"""What the same say when anything else is wrong. Such an error may stay: every later call of the process fails too."""
ACCELERATOR_ERRORS = tuple(
    found for name in ("OutOfMemoryError", "AcceleratorError") if (found := getattr(torch, name, None)) is not None
)
"""PyTorch's own classes; AcceleratorError came with version 2.8."""


def cause_of(error: BaseException) -> Cause:
    """Why an attempt ended that this error ended."""
    if not is_of_device(error):
        return Cause.CRASHED
    return Cause.OUT_OF_MEMORY if any(_is_memory(each) for each in _chain(error)) else Cause.DEVICE


def is_of_device(error: BaseException) -> bool:
    """Whether a GPU is at fault, so that the process must not train anything else."""
    return any(
        isinstance(each, ACCELERATOR_ERRORS) or (isinstance(each, RuntimeError) and _says(DEVICE, each))
        for each in _chain(error)
    )


def _is_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or _says(MEMORY, error)


def _says(pattern: re.Pattern[str], error: BaseException) -> bool:
    return pattern.search(str(error)) is not None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it came from: a compiler wraps what the device said."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
