"""Where a local store puts what it keeps."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from servers import PostgresServer

from search.paths import tracking_uri
from search.preflight.storage import check_tracking
from search.tracking.client import directory_name, ensure_experiment, open_client, open_existing


@pytest.mark.parametrize("name", ["vaegan", "my sweeps", "größe-2.1", "a_b"])
def test_a_plain_experiment_has_the_directory_of_its_name(name: str) -> None:
    assert directory_name(name) == name


@pytest.mark.parametrize(
    "name", ["../../outside", "/etc/vaegan", "/Shared/name", "..", ".", " ", "a/b", "a" * 300, "ü" * 100, "a?b", "a%2F"]
)
def test_any_other_name_is_one_directory_below_the_artifacts(name: str, tmp_path: Path) -> None:
    place = tmp_path / directory_name(name)
    place.mkdir()
    assert place.resolve().parent == tmp_path.resolve()
    assert place.resolve() != tmp_path.resolve()


def test_different_experiments_have_different_directories() -> None:
    names = ["a/b", "a%2Fb", "a b", "..", ".", "a" * 300, "a" * 301]
    assert len({directory_name(name) for name in names}) == len(names)


def test_a_working_directory_that_no_uri_can_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "what?").mkdir()
    monkeypatch.chdir(tmp_path / "what?")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ValueError, match="without a question mark in its path"):
        tracking_uri()
    assert tracking_uri("http://host") == "http://host"


KILLED_AFTER_STATEMENTS = """
import os, signal, sys
from sqlalchemy import event
from sqlalchemy.engine import Engine
left = int(sys.argv[2])

@event.listens_for(Engine, "before_cursor_execute")
def count(*_):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

from search.tracking.client import open_client
open_client(sys.argv[1]).search_experiments()
"""


@pytest.mark.parametrize("statements", [60, 400])
def test_a_process_killed_while_it_makes_the_store_leaves_no_half_of_one(statements: int, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/runs/mlflow.db"
    killed = subprocess.run([sys.executable, "-c", KILLED_AFTER_STATEMENTS, uri, str(statements)], check=False)
    assert killed.returncode == -signal.SIGKILL
    client = open_client(uri)
    assert client.get_experiment(ensure_experiment(client, "doom")).name == "doom"


def test_a_database_server_that_cannot_be_reached_says_so_at_once_and_without_its_password() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        uri = f"postgresql+psycopg2://me:secret@127.0.0.1:{closed.getsockname()[1]}/mlflow"
        with pytest.raises(ConnectionError, match=r"MLflow at .* cannot be used .*Connection refused") as caught:
            open_existing(uri)
    assert "secret" not in str(caught.value)


def test_a_database_server_that_refuses_says_so_at_once_and_without_the_password(postgres: PostgresServer) -> None:
    with postgres.database("refusing") as uri:
        wrong = uri.replace(f":{postgres.password}@", ":wrong-secret@")
        with pytest.raises(ValueError, match=r"does not answer .*password authentication failed") as caught:
            check_tracking(wrong, "demo")
        assert "wrong-secret" not in str(caught.value)
        with pytest.raises(ConnectionError, match=r'database "elsewhere" does not exist'):
            open_existing(uri.replace("/refusing", "/elsewhere"))


def test_the_port_of_a_database_server_is_that_of_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def refuse(address: Any, timeout: float) -> None:  # noqa: ARG001
        asked.append(address)
        raise ConnectionError("refused")

    monkeypatch.setattr(socket, "create_connection", refuse)
    for uri in ("postgresql://db/mlflow", "mysql+pymysql://me@db:1234/mlflow"):
        with pytest.raises(ConnectionError, match="refused"):
            open_client(uri)
    assert asked == [("db", 5432), ("db", 1234)]
