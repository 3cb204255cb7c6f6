"""README.md as a new user reads it: a fresh clone, a fresh shell, every command as it is printed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from clips import write_clip
from media_captures import save_images
from servers import free_port
from source_tree import ROOT

from vaegan_core.data.frames import FrameSet

pytestmark = pytest.mark.long

NOT_RUN = {
    "make test": "the continuous integration runs it",
    "make test-long": "this test is part of it",
    ".ci/run": "this test is part of it",
    "vaegan train": "a mention",
    "vaegan resume": "a mention",
    "vaegan sweep search/sweeps/night.yaml --set resources.gpu=0.1": "minutes of an H200",
    "vaegan sweep search/sweeps/history.yaml --set preset=small": "an hour; tests/search/sweeps trains its points",
}
"""Commands of the README that are not run here, and why."""
OF_THIS_PROCESS = ("PYTHON", "VIRTUAL_ENV", "MLFLOW_", "RAY_", "OMP_", "PYTEST_", "COV_")
"""Beginnings of variables that a new user's shell does not have."""
SECONDS = 1500


def printed() -> set[str]:
    """Every command of README.md, in code blocks and in backticks."""
    readme = (ROOT / "README.md").read_text()
    blocks = re.findall(r"^    ((?:make|vaegan) [^#\n]+?)\s*(?:#.*)?$", readme, re.MULTILINE)
    inline = re.findall(r"`((?:make|vaegan|\.ci/run)\b[^`]*)`", readme)
    return {" ".join(command.split()) for command in (*blocks, *inline)} - {"make", "vaegan"}


class Shell:
    """A fresh shell in the clone, with the environment that `make` made on its path; it knows what was typed."""

    def __init__(self, clone: Path) -> None:
        self.clone = clone
        self.typed: set[str] = set()
        kept = {key: value for key, value in os.environ.items() if not key.startswith(OF_THIS_PROCESS)}
        self.environment = kept | {"PATH": f"{clone / '.venv' / 'bin'}:/usr/local/bin:/usr/bin:/bin"}

    def run(self, command: str, *more: tuple[str, str], where: Path | None = None) -> str:
        """Types `command` with what a person would put in the place of names; returns what it printed."""
        line = self._typed(command, more)
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=where or self.clone,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        said = done.stdout + done.stderr
        assert done.returncode == 0, f"{line} ended with {done.returncode}:\n{said}"
        assert "Traceback" not in said, said
        return said

    def start(self, command: str, *more: tuple[str, str]) -> subprocess.Popen[bytes]:
        """The same for a command that runs until it is interrupted."""
        line = f"exec {self._typed(command, more)}"
        return subprocess.Popen(["bash", "-c", line], cwd=self.clone, env=self.environment, start_new_session=True)

    def _typed(self, command: str, more: tuple[tuple[str, str], ...]) -> str:
        self.typed.add(command)
        for name, value in more:
            assert name in command or not name, f"{name} is not in {command}"
            command = command.replace(name, value) if name else f"{command} {value}"
        return command


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A clone of the last commit in which `make sweep` has run."""
    clone = tmp_path_factory.mktemp("new-user") / "vaegan-search"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    shell = Shell(clone)
    said = shell.run("make sweep")
    assert "The report is runs/sweeps/demo/report.html." in said
    return shell


@pytest.mark.timeout(SECONDS + 60)
def test_make_sweep_ends_with_a_report_and_again_is_quick(shell: Shell) -> None:
    page = (shell.clone / "runs/sweeps/demo/report.html").read_text()
    assert "demo" in page
    started = time.monotonic()
    assert "The sweep demo is complete." in shell.run("make sweep")
    assert time.monotonic() - started < 240, "a finished sweep is only shown again"


@pytest.mark.timeout(600)
def test_frames_of_a_game_of_videos_and_of_images(shell: Shell, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    scenes = [random.integers(0, 255, (40, 66, 122, 3), dtype=np.uint8) for _ in range(4)]
    (tmp_path / "clips").mkdir()
    for number, scene in enumerate(scenes):
        write_clip(tmp_path / "clips" / f"{number}.mp4", scene)
        save_images(tmp_path / "photos" / str(number), scene)
    shell.run("vaegan data doom -o runs/frames/doom", ("", "--frames 400 --size 31x17"), where=tmp_path)
    shell.run("vaegan data videos clips/ -o runs/frames/mine", ("", "--every 5 --size 31x17"), where=tmp_path)
    shell.run("vaegan data images photos/ -o runs/frames/photos", ("", "--size 31x17"), where=tmp_path)
    for name in ("doom", "mine", "photos"):
        assert FrameSet.open(tmp_path / "runs" / "frames" / name).num_train > 0


@pytest.mark.timeout(SECONDS + 60)
def test_a_finished_sweep_is_looked_at_promoted_and_asked_for_images(shell: Shell, tmp_path: Path) -> None:
    assert "is not running" in shell.run("vaegan status demo")
    assert "is not running" in shell.run("vaegan stop demo")
    said = shell.run("vaegan resume demo")
    assert "is complete" in said
    assert "report.html" in shell.run("vaegan report demo")
    assert "alias champion" in shell.run("vaegan promote demo")
    out = tmp_path / "samples"
    shell.run("vaegan sample models:/vaegan-demo@champion -o DIR --grid", ("DIR", str(out)))
    assert len(list(out.glob("*.png"))) == 33
    rebuilt = tmp_path / "rebuilt"
    shell.run(
        "vaegan reconstruct MODEL FRAMES… -o DIR",
        ("MODEL", "models:/vaegan-demo@champion"),
        ("FRAMES…", "runs/frames/doom"),
        ("DIR", str(rebuilt)),
    )
    assert list(rebuilt.glob("*.png"))


@pytest.mark.timeout(SECONDS + 60)
def test_one_training_and_the_same_again_bit_for_bit(shell: Shell, tmp_path: Path) -> None:
    assert "Identical" in shell.run("vaegan rerun demo/0")
    shell.run(
        "vaegan train search/sweeps/demo.yaml --point z-like-the-prior",
        ("", f"-o {tmp_path / 'single'} --set base.train.steps=90"),
    )
    assert (tmp_path / "single" / "model.safetensors").is_file()


@pytest.mark.timeout(600)
def test_a_check_with_a_forecast_and_a_sweep_that_is_stopped_from_another_shell(shell: Shell) -> None:
    assert "hours" in shell.run("vaegan check search/sweeps/demo.yaml --probe")
    shutil.copyfile(shell.clone / "search/sweeps/demo.yaml", shell.clone / "mine.yaml")
    driver = shell.start(
        "vaegan sweep search/sweeps/demo.yaml", ("search/sweeps/demo.yaml", "mine.yaml --set name=mine")
    )
    wait_until(lambda: "is running" in shell.run("vaegan status demo", ("demo", "mine")), driver)
    shell.run("vaegan stop demo", ("demo", "mine"))
    assert driver.wait(timeout=300) == 0
    assert "is not running" in shell.run("vaegan status demo", ("demo", "mine"))


@pytest.mark.timeout(300)
def test_mlflow_s_pages_open_on_the_sweep(shell: Shell) -> None:
    port = free_port()
    server = shell.start("vaegan ui demo", ("", f"--port {port}"))
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/"), server)
    finally:
        os.killpg(server.pid, signal.SIGINT)
        server.wait(timeout=60)


def test_every_command_of_the_readme_was_typed(shell: Shell) -> None:
    """The last test of this file: what the README prints and nothing above has run is named."""
    assert printed() - shell.typed - NOT_RUN.keys() == set()
    assert (shell.typed | NOT_RUN.keys()) - printed() == set(), "typed here, and no longer printed there"


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def wait_until(holds: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    while True:
        assert process.poll() is None, f"it ended with {process.returncode}"
        try:
            if holds():
                return
        except AssertionError:  # a sweep is not there yet
            pass
        time.sleep(1)
