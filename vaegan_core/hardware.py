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


def memory_bytes() -> int:
    """Memory of this machine, or of the container that this process is in."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(whole, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no container, or one without a limit
        return whole
