from __future__ import annotations

import http.client
import socket
import subprocess
import time
from pathlib import Path

import pytest
from delivered import make_sweep_directory, open_journal, write
from servers import MlflowServer, free_port, is_open
from sweep_files import command, environment, vaegan

from search.journal.meta import Meta
from search.tracking import ui


def test_the_page_of_a_sweep_is_its_parent_run(tmp_path: Path) -> None:
    directory, uri = make_sweep_directory(tmp_path, "pages"), f"sqlite:///{tmp_path}/mlflow.db"
    write(directory, uri).finish("")
    run_id = open_journal(directory).meta(Meta.PARENT_RUN_ID)
    assert ui.page_of(uri, "toy").endswith(f"/runs/{run_id}?workflowType=machine_learning")
    assert ui.page_of(uri, None) == "/#/experiments?workflowType=machine_learning", "never the pages for chats"
    with pytest.raises(ValueError, match="no sweep named other"):
        ui.page_of(uri, "other")
    with pytest.raises(ValueError, match=r"no sweep named it's at .*; sweeps there: toy"):
        ui.page_of(uri, "it's")
    with pytest.raises(ValueError, match=r"sweeps there: toy; did you mean toy\?"):
        ui.page_of(uri, "toyy")
    with pytest.raises(ValueError, match="there are no runs at"):
        ui.page_of(f"sqlite:///{tmp_path}/nothing.db", None)


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"cannot listen on 127.0.0.1:{port}.*--port"):
            ui.check_free("127.0.0.1", port)


def test_where_a_server_runs_already_the_command_says_where(
    tmp_path: Path, sqlite_server: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "sweep_files.environment", lambda directory: environment(directory) | {"MLFLOW_TRACKING_URI": sqlite_server.uri}
    )
    done = vaegan(tmp_path, "ui")
    assert f"MLflow is already running; open {sqlite_server.uri}" in done.stdout


@pytest.mark.parametrize("arguments", [("ui", "toy"), ("report", "toy"), ("rerun", "abc"), ("promote", "toy")])
def test_a_server_that_is_gone_is_one_clear_error(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = {"MLFLOW_TRACKING_URI": "http://me:hunter22@127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    monkeypatch.setattr("sweep_files.environment", lambda directory: environment(directory) | away)
    done = vaegan(tmp_path, *arguments, check=False)
    assert done.returncode == 1
    where = "MLflow at http://…@127.0.0.1:9 cannot be used (tracking.uri, MLFLOW_TRACKING_URI)"
    assert done.stderr == f"Error: {where}: MlflowException: [Errno 111] Connection refused\n"
    assert "hunter22" not in done.stdout + done.stderr


def test_the_pages_are_served_on_loopback_only(tmp_path: Path) -> None:
    directory = make_sweep_directory(tmp_path, "served")
    write(directory, f"sqlite:///{tmp_path}/runs/mlflow.db").finish("")
    port = free_port()
    process = subprocess.Popen(command("ui", "--port", str(port)), cwd=tmp_path, env=environment(tmp_path))
    try:
        assert status(port) == 200
        listening = Path("/proc/net/tcp").read_text()
        assert f"0100007F:{port:04X} 00000000:0000 0A" in listening, "it must listen on 127.0.0.1"
        assert f"00000000:{port:04X} 00000000:0000 0A" not in listening
    finally:
        process.terminate()
        process.wait(20)
    wait_until_closed(port)


def wait_until_closed(port: int) -> None:
    deadline = time.monotonic() + 20
    while is_open(port):
        assert time.monotonic() < deadline, "the server must end with the command"
        time.sleep(0.1)


def status(port: int) -> int:
    deadline = time.monotonic() + 60
    while True:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/")
            return connection.getresponse().status
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.2)
