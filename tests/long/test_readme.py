"""README.md as a new user reads it: a fresh clone, a fresh shell, every command as it is printed.

Two things are smaller than a user's, so that this takes minutes. The clone's environment reads its packages from the
one that runs the tests (`make` on a bare machine is what the continuous integration begins with). And its `vaegan` adds
the options of SMALLER to the commands that would capture or train for minutes; what is typed stays as printed.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import sysconfig
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from clips import write_clip
from media_captures import save_images
from readmes import Readme
from servers import free_port
from source_tree import ROOT

from vaegan_core.data.frames import FrameSet

pytestmark = [pytest.mark.readme, pytest.mark.timeout(1000)]

OF_A_SWEEP = {
    "base.train.steps": "40",
    "base.evaluate": "{every: 20, num_test: 32, num_samples: 64}",
    "base.train.log_every": "5",
    "scheduler.min_steps": "20",
    "budget.trials": "3",
    "promote": "{seeds: 2, baseline: null, diagnoses: []}",  # 40 steps beat no trivial picture
}
SMALLER = {
    "data doom": "--frames 300 --size 31x17",
    "data videos": "--size 31x17",
    "data images": "--size 31x17",
    **dict.fromkeys(("sweep", "check", "train"), " ".join(f"--set '{k}={v}'" for k, v in OF_A_SWEEP.items())),
}
"""By the beginning of a command, the options that are added to it; a later option counts more than one before it."""
NOT_TYPED = {
    "make test": "the continuous integration runs it",
    "make test-long": "the continuous integration runs it",
    ".ci/run": "it is the continuous integration",
    "vaegan resume": "a mention",
    "vaegan sweep search/sweeps/questions.yaml": "hours; tests/search/running/test_blocks.py runs its kind",
    "vaegan sweep search/sweeps/night.yaml --set resources.gpu=0.1": "minutes of an H200",
    "vaegan sweep search/sweeps/history.yaml --set preset=small": "an hour; tests/search/sweeps trains its points",
}
"""Commands of the README that are not typed here, and why."""
OF_THIS_PROCESS = ("PYTHON", "VIRTUAL_ENV", "MLFLOW_", "RAY_", "PYTEST_", "COV_")
"""Beginnings of variables that a new user's shell does not have."""


def printed() -> set[str]:
    """Every command of README.md, in code blocks and in backticks."""
    readme = Readme("README.md")
    lines = [line for block in readme.blocks if block.language == "sh" for line in block.text.splitlines()]
    commands = {line.partition("  #")[0].strip() for line in (*lines, *readme.spans)}
    return {each for each in commands if re.match(r"(make|vaegan|\.ci/run)( |$)", each)} - {"make", "vaegan"}


def make_environment(clone: Path) -> None:
    """What `make` would install into .venv, without installing it; newer than what it is made from."""
    path = clone / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", path], check=True)
    packages = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (installed,) = path.glob("lib/python*/site-packages")
    (installed / "clone.pth").write_text("".join(f"{folder}\n" for folder in (clone, *packages)))
    cases = "\n".join(f'"{words} "*) set -- "$@" {options} ;;' for words, options in SMALLER.items())
    run = 'exec .venv/bin/python -c "from search.cli import main; main()" "$@"'
    script = path / "bin" / "vaegan"
    script.write_text(f'#!/bin/bash\ncase "$*" in\n{cases}\nesac\n{run}\n')
    script.chmod(0o755)
    (path / ".installed").touch()


class Shell:
    """A fresh shell in the clone, with the environment that `make` made on its path; it knows what was typed."""

    def __init__(self, clone: Path) -> None:
        self.clone = clone
        self.typed: set[str] = set()
        kept = {key: value for key, value in os.environ.items() if not key.startswith(OF_THIS_PROCESS)}
        self.environment = kept | {"PATH": f"{clone / '.venv' / 'bin'}:/usr/local/bin:/usr/bin:/bin"}
        self.environment |= {"RAY_AUTH_MODE": "disabled"}

    def run(self, command: str, *more: tuple[str, str]) -> str:
        """Types `command` with what a person would put in the place of names; returns what it printed."""
        line = self._typed(command, more)
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=self.clone,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        said = done.stdout + done.stderr
        assert done.returncode == 0, f"{line} ended with {done.returncode}:\n{said}"
        assert "Traceback" not in said, said
        return said

    def start(self, command: str, *more: tuple[str, str]) -> subprocess.Popen[bytes]:
        """The same for a command that runs until it is interrupted."""
        line = f"exec {self._typed(command, more)}"
        return subprocess.Popen(
            ["env", "--default-signal=INT", "bash", "-c", line],
            cwd=self.clone,
            env=self.environment,
            start_new_session=True,
        )

    def _typed(self, command: str, more: tuple[tuple[str, str], ...]) -> str:
        self.typed.add(command)
        for name, value in more:
            assert name in command, f"{name!r} is not in {command}"
            command = command.replace(name, value) if name else f"{command} {value}"
        return command


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A clone of the last commit, with what lies changed here, in which `make sweep` has run."""
    clone = tmp_path_factory.mktemp("new-user") / "vaegan-search"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    changed = subprocess.run(["git", "diff", "--binary", "HEAD"], cwd=ROOT, capture_output=True, check=True).stdout
    if changed:
        subprocess.run(["git", "apply"], cwd=clone, input=changed, check=True)
    make_environment(clone)
    shell = Shell(clone)
    said = shell.run("make sweep")
    assert "The report is runs/sweeps/demo/report.html." in said
    return shell


def test_make_sweep_ends_with_a_report_and_again_it_is_only_shown(shell: Shell) -> None:
    assert "demo" in (shell.clone / "runs/sweeps/demo/report.html").read_text()
    before = (shell.clone / "runs/sweeps/demo/journal.db").read_bytes()
    assert "The sweep demo is complete." in shell.run("make sweep")
    assert (shell.clone / "runs/sweeps/demo/journal.db").read_bytes() == before


def test_frames_of_a_game_of_videos_and_of_images(shell: Shell) -> None:
    random = np.random.default_rng(0)
    scenes = [random.integers(0, 255, (40, 66, 122, 3), dtype=np.uint8) for _ in range(8)]
    (shell.clone / "clips").mkdir()
    for number, scene in enumerate(scenes):
        write_clip(shell.clone / "clips" / f"{number}.mp4", scene)
        save_images(shell.clone / "photos" / str(number), scene)
    shell.run("vaegan data doom -o runs/frames/doom")  # found there, because `make sweep` has captured it
    shell.run("vaegan data videos clips/ -o runs/frames/mine")
    shell.run("vaegan data images photos/ -o runs/frames/photos")
    for name in ("doom", "mine", "photos"):
        assert FrameSet.open(shell.clone / "runs" / "frames" / name).num_train > 0


def test_a_sweep_is_checked_run_watched_stopped_and_resumed(shell: Shell) -> None:
    assert "Forecast" in shell.run("vaegan check search/sweeps/demo.yaml --probe")
    driver = shell.start("vaegan sweep search/sweeps/demo.yaml", ("", "--set name=mine"))
    wait_until(lambda: "is running" in shell.run("vaegan status demo", ("demo", "mine")), driver)
    shell.run("vaegan stop demo", ("demo", "mine"))
    assert driver.wait(timeout=300) == 0
    assert "is not running" in shell.run("vaegan status demo")
    assert "is complete" in shell.run("vaegan resume demo")


def test_a_finished_sweep_is_compared_promoted_and_asked_for_images(shell: Shell, tmp_path: Path) -> None:
    assert "report.html" in shell.run("vaegan report demo")
    assert "version 1 of vaegan-demo, alias champion" in shell.run("vaegan promote demo")
    samples, rebuilt = tmp_path / "samples", tmp_path / "rebuilt"
    shell.run("vaegan sample models:/vaegan-demo@champion -o DIR --grid", ("DIR", str(samples)))
    assert len(list(samples.glob("*.png"))) == 33
    places = ("MODEL", "models:/vaegan-demo@champion"), ("FRAMES…", "runs/frames/doom"), ("DIR", str(rebuilt))
    shell.run("vaegan reconstruct MODEL FRAMES… -o DIR", *places)
    assert list(rebuilt.glob("*.png"))


def test_one_training_and_the_same_again_bit_for_bit(shell: Shell, tmp_path: Path) -> None:
    assert "Identical" in shell.run("vaegan rerun demo/0")
    demo = "search/sweeps/demo.yaml --point z-like-the-prior"
    shell.run(f"vaegan train {demo}", ("", f"-o {tmp_path / 'point'}"))
    best = "search/sweeps/night.yaml --point best-of-the-first-night"
    options = "--set base.train.seed=1 -o DIR"
    rows = Readme("search/sweeps/README.md").spans  # where README.md says that the commands of its table are
    assert {best, "vaegan train", options} <= set(rows)
    shell.run(f"vaegan train {demo}", (demo, f"{best} {options.replace('DIR', str(tmp_path / 'night'))}"))
    for name in ("point", "night"):
        assert (tmp_path / name / "model.safetensors").is_file()


def test_mlflow_s_pages_open_on_the_sweep(shell: Shell) -> None:
    port = free_port()
    server = shell.start("vaegan ui demo", ("", f"--port {port}"))
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/"), server)
    finally:
        os.killpg(server.pid, signal.SIGINT)
        server.wait(timeout=60)


def test_every_command_of_the_readme_was_typed(shell: Shell) -> None:
    """The last test of this file: what the README prints and nothing above has typed is named."""
    assert printed() - shell.typed - NOT_TYPED.keys() == set()
    assert (shell.typed | NOT_TYPED.keys()) - printed() == set(), "typed here, and no longer printed there"


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
        time.sleep(0.5)
