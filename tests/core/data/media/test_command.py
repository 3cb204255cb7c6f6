"""The commands `vaegan data videos` and `vaegan data images`, on real files."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from clips import cut
from PIL import Image
from typer.testing import CliRunner

from search.cli import main  # noqa: F401  registers the commands
from search.commands.app import app
from vaegan_core.metrics import frame_features as features


def test_the_command_says_what_became_of_the_files(
    tmp_path: Path, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        features,
        "ensure_features",
        lambda *_, **__: SimpleNamespace(baselines={"mean_color_mse": 0.5, "mean_image_mse": 0.4}),
    )
    cut(tmp_path / "cut.mp4", clips / "c.mp4", 0.7)
    (tmp_path / "empty.mp4").touch()
    command = ["data", "videos", str(clips), str(tmp_path / "cut.mp4"), str(tmp_path / "empty.mp4")]
    command += ["-o", str(tmp_path / "set"), "--size", "20x20", "--every", "0.2s", "--allow-bad", "0.2"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert re.search(r"1 of 5 videos .*skipped", said)
    assert "empty.mp4: empty file (0 bytes)" in said
    assert "1 of 5 videos are damaged" in said
    assert re.search(r"4 of 5 videos had another aspect .*cropped around the (middle|center)", said)
    assert "training frames of 2 videos" in said, "the cut one shows what another one shows"
    assert "test frames of 1 other video, 20x20" in said
    assert json.loads((tmp_path / "set" / "manifest.json").read_text())["made_by"]["settings"]["every"] == "0.2s"


def test_ctrl_c_stops_the_command_with_a_word(tmp_path: Path) -> None:
    folder = tmp_path / "large"
    folder.mkdir()
    Image.effect_noise((3000, 2000), 50).save(folder / "0.png")
    for number in range(1, 300):  # many seconds of work, to be stopped in the midst of it
        os.link(folder / "0.png", folder / f"{number}.png")
    command = [sys.executable, "-m", "search.cli", "data", "images", str(folder), "-o", str(tmp_path / "set")]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # ignored where the tests run in the background
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".set.parts-*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.search(r"Stopped; the same command .* from here\.", said)
    assert "Traceback" not in said
    assert not (tmp_path / "set").exists()
