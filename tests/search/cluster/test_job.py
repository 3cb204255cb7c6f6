"""The process of a job: its driver is started again when it dies, and no more once it is stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from search.advice import resume_command, sync_command
from search.cluster import job as parent
from search.commands.options import at_store
from search.names import ASKED, JOB, JOB_OPTIONS
from search.storage.store import StorageUnavailable


@pytest.mark.parametrize(
    ("codes", "expected", "starts"),
    [
        ([0], 0, 1),
        ([130], 130, 1),
        ([2], 2, 1),
        ([-9, -11, 0], 0, 3),
        ([-9] * 6, 1, 6),
        ([75, 75, 0], 0, 3),
        ([75] * 40 + [-9] * 5 + [2], 2, 46),
        ([75] * 61, 75, 61),
    ],
)
def test_a_driver_that_died_is_started_again_and_one_that_ended_is_not(
    codes: list[int], expected: int, starts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[list[str]] = []
    left = iter(codes)

    def popen(command: list[str], **_: object) -> SimpleNamespace:
        begun.append(command[3:])
        return SimpleNamespace(wait=lambda: next(left))

    said: list[str] = []
    slept: list[float] = []
    monkeypatch.setattr(subprocess, "Popen", popen)
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    again = ["resume", "demo", "--storage", "s3://b"]
    assert parent.restarted(["sweep", "x.yaml"], again, "demo", said.append) == expected
    assert begun == [["sweep", "x.yaml"], *[again] * (starts - 1)]
    given_up = len(set(codes)) == 1 and starts > 1
    assert len(said) == starts - 1 + given_up
    assert round(sum(slept)) == sum(30 if code == 75 else 5 for code in codes[: starts - 1])
    if starts > 1:
        how = "did not reach its storage" if codes[0] == 75 else "died (SIGKILL)"
        often = "in 30 s (1 of 60)" if codes[0] == 75 else "in 5 s (1 of 5)"
        assert said[0] == f"The driver {how}; it is started again {often}."
    if given_up:
        assert said[-1].endswith(f" {starts} times. Once the cause is fixed, continue with: vaegan resume demo")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("when", ["while it waits", "while a driver is started"])
def test_a_job_that_is_stopped_between_two_drivers_starts_no_other(
    when: str, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[list[int]] = []
    slept: list[float] = []

    def popen(*_: object, **__: object) -> SimpleNamespace:
        sent: list[int] = []
        begun.append(sent)
        if len(begun) == 2 and when == "while a driver is started":
            signal.raise_signal(number)
        return SimpleNamespace(wait=lambda: -sent[0] if sent else -9, send_signal=sent.append)

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if when == "while it waits":
            signal.raise_signal(number)

    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    monkeypatch.setattr(subprocess, "Popen", popen)
    monkeypatch.setattr(time, "sleep", sleep)
    try:
        assert parent.restarted(["sweep", "x.yaml"], ["resume", "demo"], "demo", lambda _: None) == 128 + number
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    if when == "while it waits":
        assert len(begun) == 1
        assert sum(slept) < 1, "at once"
    else:
        assert begun[1] == [number], "which is told although it came before there was one to tell"


def test_a_driver_is_in_the_process_group_that_ray_kills_with_its_job(monkeypatch: pytest.MonkeyPatch) -> None:
    popen = subprocess.Popen
    ask = f"import os, sys; sys.exit(0 if os.getpgrp() == {os.getpgrp()} else 2)"
    monkeypatch.setattr(subprocess, "Popen", lambda _, **options: popen([sys.executable, "-c", ask], **options))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert parent.restarted(["sweep", "x.yaml"], ["resume", "demo"], "demo", lambda _: None) == 0


def test_the_process_of_a_job_knows_what_a_person_types_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(parent, "HOME", tmp_path)
    begun: list[list[str]] = []
    monkeypatch.setattr(parent, "restarted", lambda first, again, *_: begun.append([*first, "|", *again]) or 0)
    for variable in (ASKED, JOB, JOB_OPTIONS):
        monkeypatch.setenv(variable, "")
    words = ["resume", "demo", "--cluster", "auto", "--storage", "s3://b/x y", "--retry-failed"]
    assert parent.main(["vaegan-demo-2", "http://h:8265", *words]) == 0
    assert begun == [[*words, "|", *words]], "the first may have reached nothing"
    submitted = ["sweep.yaml", *words[2:]]
    monkeypatch.setattr(parent, "prepare", lambda *_: ("demo", submitted))
    assert parent.main(["vaegan-demo", "http://h:8265", "sweep", *words[1:]]) == 0
    assert begun[1] == ["sweep", *submitted, "|", "sweep", *submitted, "--resume"], "there may be no sweep yet"
    options = "--cluster http://h:8265 --storage 's3://b/x y'"
    assert resume_command("demo", "--retry-failed") == f"vaegan resume demo --retry-failed {options}"
    assert sync_command("demo") == f"vaegan resume demo {options}"
    assert len(os.environ[ASKED]) == 32
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:hidden@mlflow.example")
    assert at_store("https://me:hidden@mlflow.example") == "MLFLOW_TRACKING_URI='https://…@mlflow.example' "
    assert at_store("http://mlflow:5000") == "MLFLOW_TRACKING_URI=http://mlflow:5000 ", "though it is set here"
    for variable in (JOB, JOB_OPTIONS):
        monkeypatch.delenv(variable)
    assert (resume_command("demo"), sync_command("demo")) == ("vaegan resume demo", "vaegan sync demo")


@pytest.mark.parametrize(("outages", "code"), [(0, 0), (3, 0), (100, 75), (-1, 1)])
def test_a_job_waits_for_the_storage_that_has_its_frames(
    outages: int, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(parent, "HOME", tmp_path)
    (tmp_path / "sweep.yaml").write_text("name: demo\nbase: {frames: runs/frames/abc}\n")
    module = SimpleNamespace(__file__=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(parent, "import_module", lambda _: module)
    asked: list[str] = []

    def fetch(_: object, fingerprint: str) -> None:
        asked.append(fingerprint)
        if outages < 0:
            raise ValueError("the frames abc are not in s3://b")
        if len(asked) <= outages:
            raise StorageUnavailable("s3://b does not answer")

    monkeypatch.setattr(parent, "fetch_frames", fetch)
    monkeypatch.setattr(parent, "restarted", lambda *_: 0)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    for variable in (JOB, JOB_OPTIONS):
        monkeypatch.setenv(variable, "")
    assert parent.main(["vaegan-demo", "http://h:8265", "sweep", "sweep.yaml", "--storage", "s3://b"]) == code
    assert asked == ["abc"] * min(abs(outages) + (outages >= 0), 60)
    said = capsys.readouterr().out
    assert said.count("s3://b does not answer; it is tried again in 30 s.") == min(max(outages, 0), 59)
    assert ("Error: " in said) == (code != 0)
