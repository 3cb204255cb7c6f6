"""A sweep's job: what is sent, which one is meant, what comes back."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.job_submission import JobStatus
from sweeps import make_sweep

from search.cluster import jobs, server
from search.cluster.jobs import SWEEP_KEY, follow, last_words, latest_job, packages, submit
from search.cluster.server import open_server
from search.commands.cluster import _tracking_of_job, attach
from search.commands.errors import explain


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


def test_each_job_has_an_id_of_its_own_whatever_sweeps_are_named_and_whoever_has_others() -> None:
    cluster: Any = Cluster()
    cluster.add("raysubmit_x", "", JobStatus.RUNNING)
    cluster.add("", "", JobStatus.RUNNING)
    cluster.jobs[0].metadata, cluster.jobs[1].submission_id = None, None
    ids = []
    for name in ("demo", "demo-2", "demo", "demo", "demo-2"):
        ids.append(submit(cluster, "http://h:8265", name, ["resume", name, "--storage", "s3://b"], ""))
        cluster.add(ids[-1], name, JobStatus.SUCCEEDED, 0)
    assert ids == ["vaegan-demo", "vaegan-demo-2", "vaegan-demo-3", "vaegan-demo-4", "vaegan-demo-2-2"]
    assert [latest_job(cluster, name).id for name in ("demo", "demo-2")] == ids[-2:]
    with pytest.raises(ValueError, match=r"there are: demo, demo-2$"):
        latest_job(cluster, "other")


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


CLOSED, SILENT = "closed", "silent"
"""What a server does instead of giving an answer: it ends the connection, or says nothing more."""
UNKNOWN = (404, "Job vaegan-demo does not exist")


class Head:
    """A job server that answers what it is told to, in order, and the last of it for ever."""

    def __init__(self) -> None:
        self.tails: list[Any] = [CLOSED]
        self.states: list[Any] = [UNKNOWN]
        self.held: list[socket.socket] = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.socket.getsockname()[1]}"

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:  # it was closed
                return
            self.answer(connection, connection.recv(65536).decode())

    def answer(self, connection: socket.socket, request: str) -> None:
        path = request.split()[1]
        said: Any = (200, json.dumps({"version": "4", "ray_version": ray.__version__, "ray_commit": ""}))
        if path == "/api/jobs/":
            said = (200, json.dumps([details(JobStatus.RUNNING)]))
        elif path.startswith("/api/jobs/"):
            left = self.tails if path.endswith("/logs/tail") else self.states
            said = left.pop(0) if len(left) > 1 else left[0]
        if said == SILENT:
            self.held.append(connection)
            if path.endswith("/logs/tail"):
                connection.sendall(begin_log(request, "one\n"))
            return
        if said != CLOSED:
            status, body = (200, json.dumps(details(said))) if isinstance(said, JobStatus) else said
            head = f"HTTP/1.1 {status} OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            connection.sendall((head + body).encode())
        connection.close()


def begin_log(request: str, text: str) -> bytes:
    """What opens a WebSocket, and its first message."""
    key = next(line.split()[1] for line in request.splitlines() if line.lower().startswith("sec-websocket-key"))
    accept = base64.b64encode(hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()).decode()
    head = f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}"
    return f"HTTP/1.1 101 Switching\r\n{head}\r\n\r\n\x81".encode("latin-1") + bytes([len(text)]) + text.encode()


def details(status: JobStatus) -> dict[str, Any]:
    """What a server says of a job."""
    known = {"type": "SUBMISSION", "submission_id": "vaegan-demo", "entrypoint": "x", "metadata": {SWEEP_KEY: "demo"}}
    return known | {"status": status.value, "driver_exit_code": 0 if status == JobStatus.SUCCEEDED else None}


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Iterator[Head]:
    """A server without a token, whose silence is noticed at once."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setattr(jobs, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(jobs, "SILENT_SECONDS", 0.3)
    monkeypatch.setattr(server, "ANSWER_SECONDS", 0.3)
    made = Head()
    thread = threading.Thread(target=made.serve)
    thread.start()
    yield made
    made.socket.shutdown(socket.SHUT_RDWR)
    made.socket.close()
    thread.join()
    for connection in made.held:
        connection.close()


@pytest.mark.timeout(30)
def test_a_job_is_followed_through_silence_and_its_loss_is_said_once_each_time(head: Head) -> None:
    head.tails = [SILENT, CLOSED, (404, ""), SILENT]
    head.states = [CLOSED, SILENT, JobStatus.RUNNING, SILENT, JobStatus.SUCCEEDED]
    shown: list[str] = []
    job = follow(open_server(head.address), "vaegan-demo", shown.append)
    assert (job.words, job.code) == ("succeeded", 0)
    lost = "The job server does not answer. The job vaegan-demo is followed again once it does; Ctrl-C ends that."
    assert shown == ["one", lost, lost]


@pytest.mark.parametrize("tail", [(404, ""), CLOSED, SILENT])
@pytest.mark.timeout(30)
def test_a_job_that_a_new_head_does_not_know_is_no_longer_followed_and_what_to_type_is_said(
    tail: Any, head: Head
) -> None:
    head.tails, head.states = [tail], [CLOSED, JobStatus.RUNNING, UNKNOWN]
    with pytest.raises(ValueError, match="does not know the job vaegan-demo any more") as told:
        attach("demo", head.address)
    assert str(told.value).endswith(f": vaegan resume demo --storage s3://BUCKET/FOLDER --cluster {head.address}")


@pytest.mark.timeout(30)
def test_a_job_server_that_falls_silent_or_has_another_token_is_said_in_words(head: Head) -> None:
    client = open_server(head.address)
    head.states = [SILENT]
    with pytest.raises(OSError, match="does not answer; is the head alive, and the tunnel to it open") as told:
        client.get_job_info("vaegan-demo")
    message, code = explain(told.value)
    assert message.startswith(f"the job server at {head.address} does not answer")
    assert code == 1
    head.states = [(401, "")]
    with pytest.raises(ValueError, match="does not let this machine in: this machine has another token"):
        follow(client, "vaegan-demo", print)


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
