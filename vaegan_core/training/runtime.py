"""The state of PyTorch that a training runs in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.utils.deterministic

from vaegan_core.config.training import TrainConfig

# Deterministic matrix products on CUDA need this before the first one runs.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

deterministic_mode: Any = torch.utils.deterministic


@contextmanager
def runtime(train: TrainConfig) -> Iterator[None]:
    """Threads and determinism as configured (resolved); restored afterwards, as a worker's process outlives a trial."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    fill = deterministic_mode.fill_uninitialized_memory
    torch.set_num_threads(int(train.threads))
    torch.use_deterministic_algorithms(train.deterministic)
    # Filling new memory guards against reading it before it is written, which nothing here does; it costs a tenth.
    deterministic_mode.fill_uninitialized_memory = False
    try:
        with _compiling() if train.compile else nullcontext():
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
        deterministic_mode.fill_uninitialized_memory = fill


@contextmanager
def _compiling() -> Iterator[None]:
    """Settings of torch.compile that a step needs: several backward passes follow one forward pass, and a network is
    compiled once for each way it is used (with gradients to its weights, to its input, to both, frozen, …)."""
    import torch._dynamo.config
    import torch._functorch.config

    dynamo: Any = torch._dynamo.config
    functorch: Any = torch._functorch.config
    with functorch.patch(donated_buffer=False), dynamo.patch(recompile_limit=64):
        yield
