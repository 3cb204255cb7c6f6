"""The process that writes to MLflow ends with its driver, whatever it is busy with."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from delivered import make_sweep_directory

from search.tracking.delivery import LOCK_FILE

IMPORTS_FOREVER = """
import pathlib, sys, time

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "mlflow":
            pathlib.Path("importing").touch()
            time.sleep(3600)

sys.meta_path.insert(0, Slow())
"""


@pytest.mark.parametrize("busy", ["with importing", "with waiting for another"])
def test_the_death_of_the_driver_is_heard_whatever_the_delivery_is_busy_with(busy: str, tmp_path: Path) -> None:
    directory = make_sweep_directory(tmp_path, "dying")
    (tmp_path / "sitecustomize.py").write_text(IMPORTS_FOREVER)
    paths = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    with (directory / LOCK_FILE).open("w") as lock:
        if busy == "with waiting for another":
            fcntl.flock(lock, fcntl.LOCK_EX)
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "search.tracking.delivery", str(directory)],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": paths},
            stdin=subprocess.PIPE,
        )
        while busy == "with importing" and not (tmp_path / "importing").exists():
            assert process.poll() is None
            time.sleep(0.1)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(120) == 1
