"""What the machine is and can do."""

from __future__ import annotations

import os
import platform
import re
from functools import cache
from pathlib import Path


@cache
def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def cpu_name() -> str:
    """The processor's model, or its architecture where the system does not name the model."""
    match = re.search(r"^model name\s*: (.+)$", _cpuinfo(), re.MULTILINE)
    return match[1] if match else platform.machine()


def cpu_has_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware; without that it is slower than float32."""
    return "avx512_bf16" in _cpuinfo() or "amx_bf16" in _cpuinfo()


def has_bfloat16(device: str) -> bool:
    """Whether the "cpu" or "cuda" device multiplies bfloat16 in hardware; emulated, it is slower than float32."""
    if device != "cuda":
        return cpu_has_bfloat16()
    import torch

    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def memory_bytes() -> int:
    """Memory of this machine, or of the container that this process is in."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(whole, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no container, or one without a limit
        return whole
