"""A bucket (`s3://`, `gs://`) or a directory, as one flat store of objects: written whole, or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import LocalStore, ObjectStore, from_url

from search.paths import BUCKETS, with_storage_scheme
from search.redaction import redact
from vaegan_core.files import sync_directory

ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "MLFLOW_S3_ENDPOINT_URL")
"""Variables with the address of an S3 service other than Amazon's; the first that is set."""
NO_BUCKET = ("NoSuchBucket", "bucket does not exist")
"""What S3 and Google say of a bucket that is not there."""
TIMEOUT_SECONDS = 30
"""Longest wait for the whole of a small answer."""
STALL_SECONDS = 60
"""Longest wait for the next bytes of a large object, which may take as long as it takes."""
SMALL = 2**20
"""Bytes of content that is sent as a small request."""
UPLOADS = 4
"""Parts of a large object that are sent at once: each has STALL_SECONDS, also on a slow line."""


class StorageUnavailable(OSError):
    """The storage does not answer now; the same call may succeed later."""


class Store:
    """Objects by key, as `sweeps/demo/lease/1.json`. Raises StorageUnavailable for whatever may pass, and ValueError
    where it is refused for good."""

    def __init__(self, uri: str) -> None:
        """Raises ValueError for a URI that cannot be one."""
        self.uri = checked(uri)
        self.is_directory = urlsplit(self.uri).scheme not in BUCKETS
        self.expected = ""
        """Prefix of keys that a directory has for sure: without it, it is the place where a disk is to be mounted."""
        self._store = _open(self.uri, {"timeout": f"{TIMEOUT_SECONDS}s"})

    @cached_property
    def _large(self) -> ObjectStore:
        """The same for large objects."""
        return _open(self.uri, {"timeout": "1day", "read_timeout": f"{STALL_SECONDS}s"})

    def put(self, key: str, content: bytes | Path) -> None:
        """Writes an object, over one of that key; from a file without reading it into memory."""
        is_large = isinstance(content, Path) or len(content) > SMALL
        with self._told(key):
            obstore.put(self._large if is_large else self._store, key, content, max_concurrency=UPLOADS)

    def create(self, key: str, content: bytes) -> bool:
        """Writes an object unless there is one of that key; whether the one that is there is ours. Of several callers
        with different contents, that is one."""
        with self._told(key):
            try:
                obstore.put(self._store, key, content, mode="create")
            except AlreadyExistsError:  # also for an answer that was lost, after which the library asks again
                return self.read(key) == content
        return True

    def read(self, key: str) -> bytes | None:
        """A small object's content; None where there is none."""
        with self._told(key):
            try:
                return bytes(obstore.get(self._store, key).bytes())
            except FileNotFoundError:
                return None

    def download(self, key: str, path: Path) -> bool:
        """Writes an object to `path`, whole or not at all; whether there is such an object."""
        unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            with self._told(key), unfinished.open("wb") as file:
                try:
                    for block in obstore.get(self._large, key).stream():
                        file.write(block)
                except FileNotFoundError:
                    return False
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, path)
            sync_directory(path.parent)
        finally:
            unfinished.unlink(missing_ok=True)
        return True

    def keys(self, prefix: str) -> list[str]:
        """Keys below a prefix, which is a whole part of a path, in order."""
        with self._told(prefix):
            blocks = obstore.list(self._store, prefix)
            return sorted(str(each["path"]) for block in blocks for each in block)

    def delete(self, keys: Iterable[str]) -> None:
        """Removes objects; those that are not there are no error."""
        for key in keys:
            with self._told(key), suppress(FileNotFoundError):
                obstore.delete(self._store, key)

    def check_is_there(self) -> None:
        """Raises StorageUnavailable where the storage is a directory that is away; asks no bucket."""
        if self.is_directory and not os.path.isdir(self.uri):
            raise StorageUnavailable(f"the storage {self.uri} is not there; is it mounted?")
        if self.is_directory and not os.path.isdir(Path(self.uri, self.expected)):
            raise StorageUnavailable(
                f"the storage {self.uri} has no {self.expected} any more; mount it (if it is lost for good, begin it "
                f"anew: mkdir -p {self.uri}/{self.expected})"
            )

    def make_folder(self, key: str) -> None:
        """Makes the directory for a file of that key, in a storage that is a directory."""
        with self._told(key):
            folder = Path(self.uri)
            for part in PurePosixPath(key).parent.parts:
                folder /= part
                folder.mkdir(exist_ok=True)  # and none above, where the storage may have been

    @contextmanager
    def _told(self, key: str) -> Iterator[None]:
        """Has errors of the store say where and what, in one line."""
        self.check_is_there()  # the library would make it anew
        try:
            yield
        except (PermissionDeniedError, UnauthenticatedError, PermissionError) as error:
            raise ValueError(
                f"the storage {redact(self.uri)} refuses access to {key}: {first_line(error)}; give this machine the "
                "rights to read and write there (a role, AWS_… or GOOGLE_… variables, or the directory's mode)"
            ) from None
        except (BaseError, FileNotFoundError) as error:
            if any(words in str(error) for words in NO_BUCKET):
                told = f"the storage {redact(self.uri)} names a bucket that is not there; make it first"
                raise ValueError(told) from None
            raise StorageUnavailable(f"the storage {redact(self.uri)} failed at {key}: {first_line(error)}") from None


def checked(uri: str) -> str:
    """A storage URI itself. Raises ValueError unless it is a bucket, or an absolute directory that is there."""
    uri = with_storage_scheme(uri)
    if urlsplit(uri).scheme not in BUCKETS and not os.path.isdir(uri):
        raise ValueError(f"the storage {uri} is no directory on this machine; mount it, or make it")
    return uri


def _open(uri: str, waits: dict[str, str]) -> ObjectStore:
    if urlsplit(uri).scheme not in BUCKETS:
        return LocalStore(uri, automatic_cleanup=True)
    options: dict[str, Any] = {**waits, "connect_timeout": "5s"}
    keywords: dict[str, Any] = {"client_options": options, "retry_config": {"max_retries": 2}}
    endpoint = next(filter(None, map(os.environ.get, ENDPOINTS)), None) if uri.startswith("s3:") else None
    if endpoint is not None:
        options["allow_http"] = endpoint.startswith("http:")
        keywords["endpoint"] = endpoint
    store: ObjectStore = from_url(uri, **keywords)
    return store


def first_line(error: BaseException) -> str:
    """What happened, without the library's account of itself."""
    return redact(str(error).strip().splitlines()[0]) if str(error).strip() else type(error).__name__
