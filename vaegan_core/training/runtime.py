"""The state of PyTorch that a training runs in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def compiling() -> Iterator[None]:
    """Settings of torch.compile that a step needs: passes back are repeated over one pass forward, and a network is
    compiled once for each way it is used (with gradients to its weights, to its input, to both, frozen, …)."""
    import torch._dynamo.config
    import torch._functorch.config

    dynamo: Any = torch._dynamo.config
    functorch: Any = torch._functorch.config
    with functorch.patch(donated_buffer=False), dynamo.patch(recompile_limit=64):
        yield
