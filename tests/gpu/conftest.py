"""The GPU tests' device, frames, and the table that they leave behind.

    pytest -m gpu          all of it, on one CUDA device; the table goes to runs/gpu.md (or $GPU_TABLE)

`GPU_TESTS_ON=cpu` runs what can run without one, to try the tests themselves.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from drawn_frames import drawn

DEVICE = os.environ.get("GPU_TESTS_ON", "cuda")
TABLE = Path(os.environ.get("GPU_TABLE", "runs/gpu.md"))
Note = Callable[[str, str], None]
"""Adds a row: what was measured, and what came out."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = DEVICE == "cuda" and not torch.cuda.is_available()
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if missing:
                item.add_marker(pytest.mark.skip(reason="torch finds no CUDA device"))


@pytest.fixture(scope="session")
def device() -> str:
    return DEVICE


@pytest.fixture(scope="session")
def note(device: str) -> Iterator[Note]:
    rows: list[tuple[str, str]] = []
    yield lambda what, result: rows.append((what, result))
    name = torch.cuda.get_device_name() if device == "cuda" else "the CPU"
    lines = [
        f"{name}, torch {torch.__version__}, {datetime.datetime.now(datetime.UTC):%Y-%m-%d}; by `pytest -m gpu`",
        "",
        "| what | result |",
        "|---|---|",
        *(f"| {what} | {result} |" for what, result in rows),
    ]
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    TABLE.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="session")
def frame_set_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("frames") / "drawn"
    drawn(path, 17, 31)
    return path
