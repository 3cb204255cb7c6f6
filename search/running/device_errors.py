"""Errors of a GPU: which mean that its memory is full, after which a process cannot go on, and which blame the GPU."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from search.journal.journal import Journal
from search.journal.records import Cause

MEMORY = re.compile(
    r"out of memory|OUT_OF_MEMORY|ALLOC_FAILED|MemoryAllocation|unable to allocate (cuda|gpu)", re.IGNORECASE
)
"""What CUDA, cuBLAS, cuDNN, cuSOLVER, cuFFT and HIP say when there is no memory for tensors, handles or contexts."""
DEVICE = re.compile(
    r"\b(CUDA|HIP|cuDNN|cuBLAS(Lt)?|cuSOLVER|cuSPARSE|cuFFT|cuRAND|NCCL|NVML|NVRTC|MIOpen)\b"
    r".{0,20}(error|fail|out of memory)"
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


@dataclass(frozen=True)
class Device:
    """The GPU, or GPUs, of an attempt."""

    host: str
    gpus: str
    """Ray's ids, with commas."""

    def __str__(self) -> str:
        return f"GPU {self.gpus} of {self.host}"


def bad_devices(journal: Journal) -> dict[Device, list[int]]:
    """GPUs on which two different trials or more failed, with those trials.

    A trial that failed on two different GPUs is to blame itself, and says nothing of them.
    """
    found: dict[int, set[Device]] = {}
    for trial, where in journal.device_failures():
        if where.get("gpus"):
            found.setdefault(trial, set()).add(Device(where["host"], where["gpus"]))
    failed: dict[Device, list[int]] = {}
    for trial, devices in sorted(found.items()):
        if len(devices) == 1:
            failed.setdefault(devices.pop(), []).append(trial)
    return {device: trials for device, trials in failed.items() if len(trials) > 1}
