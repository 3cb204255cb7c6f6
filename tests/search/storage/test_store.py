"""Objects are there whole or not at all, in a directory and in a bucket; what cannot be a storage is said."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from servers import S3, free_port

from search.storage.store import StorageUnavailable, Store


@pytest.fixture(params=["directory", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    if request.param == "directory":
        (tmp_path / "storage").mkdir()
        return Store(str(tmp_path / "storage"))
    s3: S3 = request.getfixturevalue("s3")
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return Store(f"s3://{s3.bucket}/{tmp_path.name}")


def test_objects_are_written_read_listed_and_deleted(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"w" * 20_000_000)
    store.put("a/1", b"one")
    store.put("a/1", b"two")
    store.put("a/b/2", file)
    assert store.read("a/1") == b"two"
    assert store.read("a/0") is None
    assert store.keys("a") == ["a/1", "a/b/2"]
    assert store.keys("nothing") == []
    assert store.download("a/b/2", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == file.read_bytes()
    assert not store.download("a/0", tmp_path / "none")
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["back", "weights"]
    store.delete(["a/1", "a/0"])
    assert store.keys("a") == ["a/b/2"]


def test_one_creates_and_the_others_are_told(store: Store) -> None:
    assert store.create("lease/1", b"me")
    assert not store.create("lease/1", b"you")
    assert store.read("lease/1") == b"me"
    assert store.create("lease/1", b"me"), "an answer may be lost, and the request repeated"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("runs/storage", "or the absolute path of a directory"),
        ("/nowhere/at/all", "is no directory on this machine"),
        ("s3://", "must be s3://BUCKET"),
        ("http://host/bucket", "must be s3://"),
        ("s4://bucket", "must be s3://"),
    ],
)
def test_what_cannot_be_a_storage(uri: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Store(uri)


def test_a_bucket_that_does_not_answer_may_answer_later(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "hunter22",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StorageUnavailable, match=r"the storage s3://bucket/x failed at a: ") as told:
        Store("s3://bucket/x").read("a")
    assert "\n" not in str(told.value)
    assert "hunter22" not in str(told.value)


@pytest.fixture
def slow_bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket that needs six seconds for any object, of which it sends a byte every tenth of a second."""
    size = 60

    class Slow(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
            self.send_response(206 if asked else 200)
            self.send_header("Content-Length", str(size - start))
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
            self.send_header("ETag", '"e"')
            self.send_header("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT")
            self.end_headers()
            with suppress(OSError):
                for _ in range(start, size):
                    self.wfile.write(b"w")
                    time.sleep(0.1)

    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.server_port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "a")
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        yield "s3://bucket"
        server.shutdown()


def test_a_download_may_take_longer_than_any_wait_for_an_answer(
    slow_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.storage.store.TIMEOUT_SECONDS", 1)
    store = Store(slow_bucket)
    assert store.download("weights", tmp_path / "weights")
    assert (tmp_path / "weights").read_bytes() == b"w" * 60
    with pytest.raises(StorageUnavailable):
        store.read("lease")


def test_a_bucket_that_is_not_there_is_said(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    store = Store("s3://nobody-made-it/sweeps")
    for act in (lambda: store.put("a", b"one"), lambda: store.create("a", b"one"), lambda: store.keys("a")):
        with pytest.raises(ValueError, match="s3://nobody-made-it/sweeps names a bucket that is not there"):
            act()
