"""Whatever goes wrong is one message for a person: what, which value, which rule, and the nearest right spelling."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from mlflow.exceptions import MlflowException
from pydantic import BaseModel, ValidationError
from source_tree import ROOT
from sweeps import sweep_data

from search.cli import main
from search.commands.errors import explain
from search.config.load import load_sweep
from search.storage.store import StorageUnavailable
from search.terminal import Screen
from vaegan_core.data.frames import FRAMES_FILE, MANIFEST_FILE, FrameManifest, FrameSet, write_manifest
from vaegan_core.problems import ConfigError, reason


def said(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[str, int]:
    """What `vaegan WORDS` says on stderr, and its exit code."""
    monkeypatch.setattr(sys, "argv", ["vaegan", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return capsys.readouterr().err, int(ended.value.code or 0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("swep demo", "No such command 'swep'. Did you mean 'sweep'? For more: vaegan --help"),
        ("sweep", "Missing argument 'SWEEP.yaml'. For more: vaegan sweep --help"),
        ("sweep --resum x.yaml", "No such option: --resum; did you mean --resume? For more: vaegan sweep --help"),
        ("sweep x.yaml --extend=ten", "must be a valid integer, but got 'ten'. For more: vaegan sweep --help"),
        ("data doom -o x --frames 3", "must be greater than or equal to 40, but got '3'. For more: vaegan data doom"),
        ("data doom --seed 99999999999999999999 -o x", "must be less than or equal to 4294967295, but got '9999"),
        ("sample x -o y --seed 99999999999999999999", "must be less than or equal to 4294967295, but got '9999"),
        ("ui a b", "Got unexpected extra argument(s) (b). For more: vaegan ui --help"),
        ("schema trail", "the schema must be sweep or trial, but got 'trail'; did you mean trial?"),
        ("schema sweep -o /", "--output must be a file, but / is a directory"),
        ("check /dev/zero", "/dev/zero has 1 error:\n  cannot be read: it is no file, but a device or a pipe"),
        ("status demoo", "there is no sweep named demoo; there are: demo, random; did you mean demo?"),
        ("status demo", "runs/sweeps/demo/journal.db is damaged, or no journal of a sweep"),
        ("status random", "runs/sweeps/random/journal.db is damaged, or no journal of a sweep"),
        ("status demo/", "'demo/' is no name of a sweep, but a path; did you mean demo?"),
        ("status sub/../demo", "'sub/../demo' is no name of a sweep, but a path; did you mean demo?"),
        ("schema sweep -o mine.yaml", "--output would replace mine.yaml, which may be a configuration"),
        ("report demo --csv mine.yaml", "--csv would replace mine.yaml, which may be a configuration"),
        (
            "export demo -o runs/sweeps/demo/journal.db",
            "--output would replace runs/sweeps/demo/journal.db, which holds the",
        ),
        ("report demo --json runs/mlflow.db", "--json would replace runs/mlflow.db, which holds the runs of sweeps"),
        ("data videos sub -o x --every 0", "--every must be key, a time like 1s or 0.5s, or a whole number from 1"),
        ("check mine.yaml --set preset=", "mine.yaml has 1 error:\n  preset: is given without a value (--set preset=)"),
        ("check mine.yaml --set preset=[a]", "1 error:\n  preset: this file has no presets, but got ['a']"),
        ("data images  -o x", "must name a folder or a file, but got ''"),
        ("report demo -o sub/dir", "--output must be a file, but sub/dir is a directory"),
    ],
)
def test_a_wrong_command_line_is_one_message_that_is_never_wrapped(
    words: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr("search.terminal.program", lambda name: name)
    (tmp_path / "runs/sweeps/demo").mkdir(parents=True)
    (tmp_path / "runs/sweeps/demo/journal.db").touch()
    (tmp_path / "runs/sweeps/random").mkdir()
    (tmp_path / "runs/sweeps/random/journal.db").write_bytes(bytes(range(256)) * 40)
    (tmp_path / "runs/mlflow.db").touch()
    (tmp_path / "sub/dir").mkdir(parents=True)
    (tmp_path / "mine.yaml").write_text("a: 1")
    text, code = said(words.split(" "), monkeypatch, capsys)
    assert text.startswith("Error: ")
    assert message in text
    assert code == 2
    assert len(text.splitlines()) == 1 + message.count("\n")
    assert (tmp_path / "mine.yaml").read_text() == "a: 1"


def test_a_preset_that_nobody_has_chosen_is_checked_too(tmp_path: Path) -> None:
    presets = {"a": {"budget.trial": 3}, "b": {"base.train.batch_size": 0, "name": "x"}, "c": {"budget.trials": 3}}
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(sweep_data(presets=presets)))
    with pytest.raises(ConfigError) as caught:
        load_sweep(path)
    wrong = [where for where, _ in caught.value.problems]
    assert wrong == ["presets.a: budget.trial", "presets.b: base.train.batch_size"]
    assert load_sweep(path, ["name=y"]).config.name == "y", "what a file has not may be given beside it"


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_what_an_encoding_has_no_sign_for_is_no_error(encoding: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "search.cli", "data", "images", "ünï …", "-o", "x"]
    variables = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(b"Error: ")
    assert b"not foreseen" not in done.stderr
    assert b"Traceback" not in done.stderr


class Shape(BaseModel):
    sides: int


def raised(act: Callable[[], object]) -> Exception:
    try:
        act()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def fail(error: Exception) -> Callable[[], object]:
    def act() -> None:
        raise error

    return act


FOREIGN: list[tuple[Callable[[], object], str, int]] = [
    (lambda: Path("/none").read_bytes(), "/none: No such file or directory", 1),
    (fail(OSError(errno.ENOSPC, "No space left on device")), "No space left on device", 1),
    (fail(MlflowException("first line\nsecond line")), "MLflow cannot be used: MlflowException: first line", 1),
    (lambda: torch.empty(10**15), "the memory of this machine (", 1),
    (fail(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")), "lower model.width, model.lat", 1),
    (lambda: Shape(sides="many"), "ValidationError: 1 validation error for Shape. This was not foreseen", 1),
    (lambda: np.zeros(3).reshape(2, 2), "ValueError: cannot reshape array of size 3 into shape (2,2). This was", 1),
    (lambda: sqlite3.connect("/none/x"), "OperationalError: unable to open database file. This was not foreseen", 1),
    (fail(StorageUnavailable("the storage s3://b failed at a: no")), "failed at a: no (try again once it answers)", 75),
    (fail(EOFError()), "EOFError. This was not foreseen", 1),
    (fail(RecursionError("maximum recursion depth exceeded")), "RecursionError: maximum recursion depth", 1),
]


@pytest.mark.parametrize(("act", "message", "code"), FOREIGN, ids=[row[1] for row in FOREIGN])
def test_an_error_of_a_library_is_one_line(
    act: Callable[[], object], message: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("MY_TOKEN", "hunter22")
    text, ended = explain(raised(act))
    assert message in text
    assert "\n" not in text
    assert ended == code
    kept = list(tmp_path.iterdir())
    assert len(kept) == ("not foreseen" in text)
    assert all("Traceback" in file.read_text() and str(file) in text for file in kept)


def test_an_error_of_ours_is_said_whole() -> None:
    error = ConfigError("x.yaml", [("a", "is wrong"), ("b", "is wrong")])
    assert explain(error) == (str(error), 2)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "frames.npy is no file, or is empty": lambda d: (d / FRAMES_FILE).write_bytes(b""),
    "the magic string is not correct": lambda d: (d / FRAMES_FILE).write_bytes(b"PK\3\4 a zip file"),
    "height: must be a valid integer": lambda d: (d / MANIFEST_FILE).write_text('{"height": "x"}'),
    "Invalid JSON": lambda d: (d / MANIFEST_FILE).write_text("[" * 100_000),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_a_damaged_frame_set_is_one_line_whatever_is_damaged(message: str, tmp_path: Path) -> None:
    np.save(tmp_path / FRAMES_FILE, np.zeros((1, 8, 8, 3), np.uint8))
    write_manifest(tmp_path, FrameManifest(height=8, width=8, sources=(), made_by={}, sha256=""))
    DAMAGES[message](tmp_path)
    with pytest.raises(ValueError, match=f"is damaged: .*{message}") as caught:
        FrameSet.open(tmp_path)
    assert "\n" not in str(caught.value)
    assert "pydantic" not in str(caught.value)


def test_a_reason_is_one_short_line() -> None:
    with pytest.raises(ValidationError) as caught:
        Shape.model_validate({})
    assert reason(caught.value) == "sides: Field required"
    assert reason(KeyError("size")) == "it has no 'size'"
    assert reason(ValueError("one\ntwo")) == "one"
    assert len(reason(ValueError("x" * 5000))) == 300


def test_what_is_said_is_never_wrapped_or_read_as_markup(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.terminal.program", lambda name: name)
    line = "Continue with: vaegan resume [demo] " + "x" * 500
    Screen().say(line)
    assert capsys.readouterr().out == f"{line}\n"


@pytest.mark.parametrize("words", ["train pipe", "check pipe", "data images pipe.txt -o out", "sample pipe -o out"])
def test_nothing_waits_for_what_never_comes(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("pipe", "pipe.txt"):
        os.mkfifo(name)
    text, code = said(words.split(), monkeypatch, capsys)
    assert code == 2
    assert text.startswith("Error: pipe")
