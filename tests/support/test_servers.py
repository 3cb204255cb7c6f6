"""The servers that other tests start truly work, through MLflow's own client."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fault_proxy import FaultProxy
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import Metric, ViewType
from mlflow.exceptions import MlflowException
from servers import HOST, S3, MlflowServer, PostgresServer, Server, is_open

NUM_POINTS = 100
UPLOAD = "/mlflow-artifacts/"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that gives up at once, and has no login of the machine's user."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD", raising=False)


@pytest.fixture
def proxy(sqlite_server: MlflowServer) -> Iterator[FaultProxy]:
    with FaultProxy(sqlite_server.uri) as proxy:
        yield proxy


def start_run(client: MlflowClient, experiment: str) -> str:
    return str(client.create_run(client.create_experiment(experiment)).info.run_id)


def points(count: int = NUM_POINTS) -> list[Metric]:
    now = int(time.time() * 1000)
    return [Metric("loss", 1 / (step + 1), now, step) for step in range(count)]


def values(client: MlflowClient, run_id: str) -> list[float]:
    return [point.value for point in client.get_metric_history(run_id, "loss")]


def artifacts(client: MlflowClient, run_id: str, tmp_path: Path) -> dict[str, bytes]:
    """Every file of a run by its path, downloaded."""
    root = Path(download_artifacts(run_id=run_id, dst_path=str(tmp_path), tracking_uri=client.tracking_uri))
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def write_and_read_back(uri: str, experiment: str, tmp_path: Path) -> str:
    """Points, a text and a picture come back as they went; returns the run's id."""
    client = MlflowClient(uri)
    run_id = start_run(client, experiment)
    client.log_batch(run_id, points())
    assert values(client, run_id) == [1 / (step + 1) for step in range(NUM_POINTS)]
    client.log_text(run_id, "a note", "notes/note.txt")
    client.log_image(run_id, np.zeros((4, 6, 3), np.uint8), "picture.png")
    files = artifacts(client, run_id, tmp_path)
    assert files["notes/note.txt"] == b"a note"
    assert files["picture.png"].startswith(b"\x89PNG")
    return run_id


def test_sqlite(sqlite_server: MlflowServer, tmp_path: Path) -> None:
    run_id = write_and_read_back(sqlite_server.uri, "sqlite", tmp_path)
    assert list((sqlite_server.directory / "artifacts").rglob(f"{run_id}/artifacts/picture.png"))


def test_an_outage_keeps_the_data(sqlite_server: MlflowServer) -> None:
    client = MlflowClient(sqlite_server.uri)
    run_id = start_run(client, "outage")
    client.log_batch(run_id, points())
    with sqlite_server.outage(), pytest.raises(MlflowException, match="Connection refused"):
        client.log_batch(run_id, points())
    assert len(values(client, run_id)) == NUM_POINTS


def test_postgresql(postgres_server: MlflowServer, postgres: PostgresServer, tmp_path: Path) -> None:
    assert postgres_server.store == postgres.uri("mlflow")
    write_and_read_back(postgres_server.uri, "postgresql", tmp_path)


@pytest.mark.usefixtures("postgres_server")
def test_the_password_of_a_store_is_on_no_command_line(postgres: PostgresServer) -> None:
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if is_readable(path)]
    assert any(b"mlflow\0server" in line for line in lines)
    assert not any(postgres.password.encode() in line for line in lines)


def is_readable(path: Path) -> bool:
    try:
        path.read_bytes()
    except OSError:
        return False
    return True


def test_auth(auth_server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MlflowException) as anonymous:
        MlflowClient(auth_server.uri).create_experiment("auth")
    assert anonymous.value.get_http_status_code() == 401
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", str(auth_server.user))
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", str(auth_server.password))
    write_and_read_back(auth_server.uri, "auth", tmp_path)


def test_artifacts_through_the_server_into_s3(s3_server: MlflowServer, s3: S3, tmp_path: Path) -> None:
    run_id = write_and_read_back(s3_server.uri, "s3", tmp_path)
    assert any(key.endswith(f"{run_id}/artifacts/picture.png") for key in s3.keys("proxied/"))


def test_artifacts_straight_into_s3(
    s3_direct_server: MlflowServer, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    run_id = write_and_read_back(s3_direct_server.uri, "s3 direct", tmp_path)
    assert any(key.endswith(f"{run_id}/artifacts/picture.png") for key in s3.keys("direct/"))


def test_a_proxy_changes_nothing_until_told_to(proxy: FaultProxy, tmp_path: Path) -> None:
    write_and_read_back(proxy.uri, "proxy", tmp_path)
    assert proxy.counts["/api/2.0/mlflow/runs/log-batch"] == 1


def test_a_proxy_refuses_uploads_that_are_too_large(proxy: FaultProxy, tmp_path: Path) -> None:
    client = MlflowClient(proxy.uri)
    run_id = start_run(client, "too large")
    proxy.answer(
        413, when=lambda request: request.method == "PUT" and UPLOAD in request.path and len(request.body) > 1000
    )
    with pytest.raises(OSError, match="413"):
        client.log_text(run_id, "x" * 2000, "large.txt")
    client.log_text(run_id, "x", "small.txt")
    client.log_text(run_id, "", "empty.txt")
    assert artifacts(client, run_id, tmp_path) == {"small.txt": b"x", "empty.txt": b""}


def test_a_proxy_drops_an_answer_after_the_server_has_done_its_work(proxy: FaultProxy) -> None:
    client = MlflowClient(proxy.uri)
    run_id = start_run(client, "dropped")
    proxy.drop_after()
    with pytest.raises(MlflowException, match="without response"):
        client.log_batch(run_id, points())
    proxy.pass_on()
    assert len(values(client, run_id)) == NUM_POINTS


def test_a_proxy_stalls_longer_than_a_client_waits(proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    client = MlflowClient(proxy.uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    proxy.stall(3)
    with pytest.raises(MlflowException, match="timed out"):
        client.search_experiments(ViewType.ALL)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 502, 503])
def test_a_proxy_answers_with_an_error(proxy: FaultProxy, status: int) -> None:
    proxy.answer(status)
    with pytest.raises(MlflowException) as refused:
        MlflowClient(proxy.uri).log_batch("0" * 32, points(1))
    assert refused.value.get_http_status_code() == status or f"too many {status} error" in str(refused.value)


class Plain(Server):
    """A server that takes no time to start."""

    name = "the plain server"

    def command(self) -> list[str]:
        return [sys.executable, "-m", "http.server", "--bind", HOST, str(self.port)]

    def is_ready(self) -> bool:
        return is_open(self.port)


class Broken(Plain):
    def command(self) -> list[str]:
        return [sys.executable, "-c", "raise SystemExit('no such store')"]


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)the plain server ended before it answered.*no such store"):
        Broken(tmp_path).start()


OWNER = """
import sys
from pathlib import Path
from test_servers import Plain

server = Plain(Path(sys.argv[1])).start()
print(server.port, flush=True)
sys.stdin.read()
"""


def test_a_server_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with owner:
        assert owner.stdout is not None
        port = int(owner.stdout.readline())
        assert is_open(port)
        owner.kill()
    deadline = time.monotonic() + 10
    while is_open(port):
        assert time.monotonic() < deadline
        time.sleep(0.05)
