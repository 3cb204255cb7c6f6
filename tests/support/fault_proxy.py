"""An HTTP proxy between a client and a real server that fails as a test tells it to."""

from __future__ import annotations

import http.client
import json
import threading
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit


class Request(NamedTuple):
    method: str
    path: str
    body: bytes


When = Callable[[Request], bool]
"""Whether a fault meets a request."""

JSON_ERRORS = {
    400: "INVALID_PARAMETER_VALUE",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    500: "INTERNAL_ERROR",
}
"""What MLflow itself answers; any other status comes as the HTML page of a reverse proxy."""
RETRY_AFTER_SECONDS = 1
FORWARD_SECONDS = 120
CONNECTION_HEADERS = {"connection", "content-length", "expect", "host", "keep-alive", "transfer-encoding"}


class FaultProxy:
    """Forwards every request to the server at `target` until told otherwise.

    Each of `answer`, `stall` and `drop_after` replaces the one before, and meets all requests or those for which
    `when(request)` is true.
    """

    def __init__(self, target: str) -> None:
        self.target = urlsplit(target)
        self.counts: Counter[str] = Counter()
        """Requests so far by path, whatever became of them."""
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._fault: tuple[Callable[[_Handler, bytes], None], When | None] = (_forward, None)
        self._server = _HttpServer(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, status: int, when: When | None = None) -> None:
        """Answers with `status`; the server sees nothing."""
        self._fault = (lambda handler, _: _answer_error(handler, status), when)

    def stall(self, seconds: float, when: When | None = None) -> None:
        """Holds each request that long before it goes on to the server."""

        def hold(handler: _Handler, body: bytes) -> None:
            if not self._closed.wait(seconds):
                _forward(handler, body)

        self._fault = (hold, when)

    def drop_after(self, when: When | None = None) -> None:
        """Lets the server do what it is asked to, and closes the connection without an answer."""

        def drop(handler: _Handler, body: bytes) -> None:
            _ask(handler, body)

        self._fault = (drop, when)

    def pass_on(self) -> None:
        self._fault = (_forward, None)

    def close(self) -> None:
        self._closed.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def handle(self, handler: _Handler, body: bytes) -> None:
        path = urlsplit(handler.path).path
        with self._lock:
            self.counts[path] += 1
        fault, when = self._fault
        if when is None or when(Request(handler.command, path, body)):
            fault(handler, body)
        else:
            _forward(handler, body)


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    proxy: FaultProxy

    def handle_error(self, *_: Any) -> None:
        """Clients that disconnect are what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    """Serves one request to a connection."""

    server: _HttpServer
    protocol_version = "HTTP/1.1"

    def handle_any(self) -> None:
        self.close_connection = True
        self.server.proxy.handle(self, self._read_body())

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

    def log_message(self, *_: Any) -> None:
        pass

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return body


def _ask(handler: _Handler, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
    """The server's answer and its content."""
    target = handler.server.proxy.target
    assert target.hostname is not None
    connection = http.client.HTTPConnection(target.hostname, target.port, timeout=FORWARD_SECONDS)
    try:
        headers = {name: value for name, value in handler.headers.items() if name.lower() not in CONNECTION_HEADERS}
        connection.request(handler.command, handler.path, body or None, headers)
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def _forward(handler: _Handler, body: bytes) -> None:
    try:
        response, content = _ask(handler, body)
    except OSError:
        _answer_error(handler, 502)
        return
    headers = {name: value for name, value in response.getheaders() if name.lower() not in CONNECTION_HEADERS}
    length = response.getheader("Content-Length") if handler.command == "HEAD" else None
    _send(handler, response.status, headers, content, length)


def _answer_error(handler: _Handler, status: int) -> None:
    reason = HTTPStatus(status).phrase
    if status in JSON_ERRORS:
        content = json.dumps({"error_code": JSON_ERRORS[status], "message": f"{reason}, says the test"}).encode()
        headers = {"Content-Type": "application/json"}
    else:
        title = f"{status} {reason}"
        content = f"<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>\n".encode()
        headers = {"Content-Type": "text/html"}
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    _send(handler, status, headers, content)


def _send(handler: _Handler, status: int, headers: dict[str, str], content: bytes, length: str | None = None) -> None:
    handler.send_response_only(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Connection", "close")
    handler.send_header("Content-Length", length or str(len(content)))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(content)
