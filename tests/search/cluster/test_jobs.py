"""A sweep's job: what is sent, which one is meant, what comes back; its parent process starts a dead driver again."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.job_submission import JobStatus
from sweeps import make_sweep

from search.advice import resume_command, sync_command
from search.cluster import job as parent
from search.cluster.jobs import SWEEP_KEY, follow, last_words, latest_job, packages, submit
from search.commands.cluster import _tracking_of_job
from search.commands.options import at_store
from search.names import JOB, JOB_OPTIONS


class Cluster:
    """A job server with jobs of its own, which drops connections now and then."""

    def __init__(self) -> None:
        self.jobs: list[SimpleNamespace] = []
        self.tails: list[list[str] | Exception] = []
        self.sent: dict[str, Any] = {}

    def add(self, id: str, name: str, status: JobStatus, exit_code: int | None = None) -> None:
        self.jobs.append(
            SimpleNamespace(
                submission_id=id,
                status=status,
                message="",
                driver_exit_code=exit_code,
                metadata={SWEEP_KEY: name},
                start_time=len(self.jobs),
            )
        )

    def list_jobs(self) -> list[SimpleNamespace]:
        return self.jobs

    def get_job_info(self, id: str) -> SimpleNamespace:
        if self.tails:
            return SimpleNamespace(**vars(self.jobs[0]) | {"status": JobStatus.RUNNING})
        return next(each for each in self.jobs if each.submission_id == id)

    async def tail_job_logs(self, _: str) -> AsyncIterator[str]:
        found = self.tails.pop(0)
        if isinstance(found, Exception):
            raise found
        for text in found:
            yield text

    def get_job_logs(self, _: str) -> str:
        return "2026-11-27 02:55:44,564\tINFO job_manager.py:581 -- Runtime env is setting up.\none\n\ntwo\nthree\n"

    def submit_job(self, **sent: Any) -> None:
        self.sent = sent | {"there": sorted(Path(path).name for path in sent["runtime_env"]["py_modules"])}


def test_the_newest_job_of_a_sweep_is_meant() -> None:
    cluster: Any = Cluster()
    cluster.add("vaegan-demo", "demo", JobStatus.FAILED, 2)
    cluster.add("vaegan-other", "other", JobStatus.RUNNING)
    cluster.add("vaegan-demo-2", "demo", JobStatus.SUCCEEDED, 0)
    assert (latest_job(cluster, "demo").id, latest_job(cluster, "demo").code) == ("vaegan-demo-2", 0)
    with pytest.raises(ValueError, match="no job of a sweep named demp is known there; there are: demo, other"):
        latest_job(cluster, "demp")


def test_a_sweep_is_submitted_once_at_a_time_and_without_secrets() -> None:
    cluster: Any = Cluster()
    words = ["sweep", "demo", "--cluster", "auto", "--storage", "s3://b/x y"]
    assert submit(cluster, "http://h:8265", "demo", words, "name: demo\n") == "vaegan-demo"
    command = shlex.split(cluster.sent["entrypoint"])
    assert command[:3] == ["python", "-m", "search.cluster.job"]
    assert json.loads(command[3]) == ["vaegan-demo", "http://h:8265", *words]
    assert cluster.sent["there"] == ["search", "vaegan_core", "vaegan_submitted"]
    assert set(cluster.sent["runtime_env"]) == {"py_modules", "env_vars"}
    assert set(cluster.sent["runtime_env"]["env_vars"]) == {"RAY_JOB_STOP_WAIT_TIME_S"}
    cluster.add("vaegan-demo", "demo", JobStatus.RUNNING)
    with pytest.raises(ValueError, match=r"the job vaegan-demo runs demo already.*attach demo --cluster http://h:8265"):
        submit(cluster, "http://h:8265", "demo", words, "")
    cluster.jobs[0].status = JobStatus.STOPPED
    assert submit(cluster, "http://h:8265", "demo", words, "") == "vaegan-demo-2"


def test_what_is_sent_runs_by_itself_and_knows_its_commit(tmp_path: Path) -> None:
    with packages("name: demo\n") as sent:
        size = sum(path.stat().st_size for each in sent for path in Path(each).rglob("*") if path.is_file())
        script = "import search.provenance as p, vaegan_submitted; print(p.__file__); print(p.provenance()['commit'])"
        paths = ":".join(str(Path(each).parent) for each in sent)
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=tmp_path,
            env={"PYTHONPATH": paths, "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
        )
    file, commit = done.stdout.split()
    assert file.startswith(str(Path(sent[0]).parent)), "not what is installed"
    assert len(commit) == 40
    assert size < 2_000_000


def test_a_job_is_followed_through_lost_connections_and_each_line_comes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    cluster: Any = Cluster()
    cluster.add("vaegan-demo", "demo", JobStatus.FAILED, 130)
    cluster.tails = [
        ["Running entrypoint for job vaegan-demo: python\none\ntw"],
        RuntimeError("WebSocket connection closed unexpectedly"),
        [
            "Running entrypoint for job vaegan-demo: python\none\n",
            "two\n[2026-11-27 10:38:16,569 I 501 501] logging.cc:303: Set ray log level\nthree\n",
        ],
    ]
    shown: list[str] = []
    job = follow(cluster, "vaegan-demo", shown.append)
    assert shown == ["one", "two", "three"]
    assert (job.has_ended, job.words, job.code) == (True, "failed", 130)
    assert last_words(cluster, "vaegan-demo", 2) == ["two", "three"]


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
    for variable in (JOB, JOB_OPTIONS):
        monkeypatch.setenv(variable, "")
    words = ["resume", "demo", "--cluster", "auto", "--storage", "s3://b/x y", "--retry-failed"]
    assert parent.main(["vaegan-demo-2", "http://h:8265", *words]) == 0
    assert begun == [[*words, "|", "resume", "demo", "--storage", "s3://b/x y", "--cluster", "auto"]]
    submitted = ["sweep.yaml", *words[2:]]
    monkeypatch.setattr(parent, "prepare", lambda _: ("demo", submitted))
    assert parent.main(["vaegan-demo", "http://h:8265", "sweep", *words[1:]]) == 0
    assert begun[1] == ["sweep", *submitted, "|", "sweep", *submitted, "--resume"], "there may be no sweep yet"
    options = "--cluster http://h:8265 --storage 's3://b/x y'"
    assert resume_command("demo", "--retry-failed") == f"vaegan resume demo --retry-failed {options}"
    assert sync_command("demo") == f"vaegan resume demo {options}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:hidden@mlflow.example")
    assert at_store("https://me:hidden@mlflow.example") == "MLFLOW_TRACKING_URI='https://…@mlflow.example' "
    assert at_store("http://mlflow:5000") == "MLFLOW_TRACKING_URI=http://mlflow:5000 ", "though it is set here"
    for variable in (JOB, JOB_OPTIONS):
        monkeypatch.delenv(variable)
    assert (resume_command("demo"), sync_command("demo")) == ("vaegan resume demo", "vaegan sync demo")


@pytest.mark.parametrize(
    ("given", "configured", "expected", "says"),
    [
        ("https://mlflow.example:5000", None, "https://mlflow.example:5000", False),
        ("https://mlflow.example:5000", "http://other:5000", "http://other:5000", False),
        ("http://127.0.0.1:5000", None, None, True),
        ("http://localhost:5000", None, None, True),
        ("https://me:hidden@mlflow.example", None, None, True),
        ("sqlite:///mine.db", None, None, False),
        ("", None, None, False),
    ],
)
def test_a_job_tracks_where_the_laptop_does_if_the_cluster_can_reach_that(
    given: str,
    configured: str | None,
    expected: str | None,
    says: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
    tracking = _tracking_of_job(make_sweep(tracking={"uri": configured, "experiment": "mine"}))
    assert (tracking.uri, tracking.experiment) == (expected, "mine")
    said = capsys.readouterr().out.replace("\n", " ")
    assert ("does not travel to the cluster" in said) == says
    assert "hidden" not in said
