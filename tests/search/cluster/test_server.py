"""What keeps a job server from being used is one line with what to do, within a time limit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import ray
from servers import free_port

from search.cluster import server
from search.cluster.server import check_address, open_server


class Answer(BaseHTTPRequestHandler):
    """Answers as it is told to."""

    status, body = 200, json.dumps({"ray_version": ray.__version__})

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(self.body.encode())

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server that says what `Answer` says; there is no token, and none is asked for."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{made.server_port}"
        made.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (401, "", "does not let this machine in: it asks for a token; put the head's ~/.ray/auth_token here"),
        (
            200,
            json.dumps({"ray_version": "1.13.0"}),
            f"runs Ray 1.13.0, but this machine has {ray.__version__};",
        ),
        (200, "<html>", "is not Ray's job server; name the head's port 8265"),
    ],
)
def test_a_server_that_cannot_be_used_says_why(
    answering: str, status: int, body: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Answer, "status", status)
    monkeypatch.setattr(Answer, "body", body)
    with pytest.raises(ValueError, match=message) as raised:
        open_server(f"{answering}/")
    assert "\n" not in str(raised.value)


def test_a_server_of_the_same_ray_is_used(answering: str) -> None:
    assert open_server(answering).get_address() == answering


def test_nobody_there_is_told_of_the_tunnel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(ValueError, match=r"no job server .* open a tunnel \(ssh -L 8265:127.0.0.1:8265 HEAD\)"):
        open_server(f"http://127.0.0.1:{free_port()}")


def test_a_machine_without_a_token_is_told_where_it_goes(tmp_path: Path) -> None:
    """In a process of its own, since Ray reads a token once."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", "from search.cluster.server import open_server; open_server('http://127.0.0.1:1')"],
        env=environment | {"HOME": str(tmp_path), "RAY_AUTH_MODE": "token"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "this machine has no token; put the head's ~/.ray/auth_token here" in done.stderr


@pytest.mark.parametrize("address", ["10.0.0.1:6379", "ray://10.0.0.1:10001", "10.0.0.1"])
def test_addresses_of_other_kinds_are_answered_with_what_to_type(address: str) -> None:
    with pytest.raises(ValueError, match=r"must be http://HEAD:8265.*use --cluster http://10.0.0.1:8265"):
        check_address(address)


@pytest.mark.parametrize("address", [None, "auto", "http://head:8265", "https://head"])
def test_addresses_that_can_be(address: str | None) -> None:
    check_address(address)
    assert server.is_job_server(address) == (address is not None and address.startswith("http"))
