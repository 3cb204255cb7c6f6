"""The files that trials save: in the sweep's own directory, or in a storage that every machine reaches.

An attempt writes below `trials/TRIAL/attempt-K/` and never touches another attempt's files, so that a machine that was
cut off and goes on training overwrites nothing.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from search.storage.store import StorageUnavailable, Store
from vaegan_core.tensor_files import DamagedCheckpoint, read_metadata

TRIALS = "trials"
OF_DRIVER = "-of-driver-"
PATIENCE_SECONDS = 900.0
"""How long a trial waits for a storage that is away."""
RETRY_SECONDS = 2.0


def trial_folder(trial: int) -> str:
    """Key prefix of a trial's files."""
    return f"{TRIALS}/{trial:05d}"


def attempt_folder(trial: int, attempt: int, epoch: int = 0) -> str:
    """Key prefix of the files of an attempt, which no other attempt has: also none that a driver begins who restored a
    journal that did not know of this one, and holds the storage's lease under another `epoch`."""
    return f"{trial_folder(trial)}/attempt-{attempt}{f'{OF_DRIVER}{epoch}' if epoch else ''}"


def driver_of(key: str) -> int:
    """Epoch of the driver under which a file of a trial was written; 0 where its attempt names none."""
    return int(key.split("/")[2].partition(OF_DRIVER)[2] or 0)


def state_name(step: int) -> str:
    """Name of the state after the evaluation at `step`."""
    return f"step-{step:08d}.safetensors"


def trial_of(key: str) -> int:
    """Number of the trial whose file has that key."""
    return int(key.split("/")[1])


@dataclass(frozen=True)
class Described:
    """What a file of a trial says of itself."""

    step: int
    config: dict[str, Any]
    """The trial's configuration as plain data."""
    sha256: str


class TrialFiles:
    """Files below `prefix` of the storage at `uri`, which may be a directory."""

    def __init__(
        self, uri: str, prefix: str = "", *, epoch: int = 0, waiting: Callable[[], None] = lambda: None
    ) -> None:
        """`epoch` is that of the driver whose files they are; `waiting` is called at every new try while the storage is
        away."""
        self.uri = uri
        self.prefix = prefix
        self.store = Store(uri)
        self.store.expected = prefix
        self._epoch = epoch
        self._waiting = waiting

    def path(self, key: str) -> Path | None:
        """Where a file lies, if the storage is a directory."""
        return Path(self.uri, self._full(key)) if self.store.is_directory else None

    def address(self, key: str) -> str:
        """Where a file lies, as a path or a URI."""
        return f"{self.uri}/{self._full(key)}"

    @contextmanager
    def writing(self, key: str) -> Iterator[Path]:
        """A path to write a file to, atomically; afterwards it is in the storage."""
        if path := self.path(key):
            self._patiently(lambda: self.store.make_folder(self._full(key)))
            yield path
            return
        with TemporaryDirectory(prefix="vaegan-") as directory:
            path = Path(directory) / "file"
            yield path
            self._patiently(lambda: self.store.put(self._full(key), path))

    @contextmanager
    def reading(self, key: str, sha256: str | None = None) -> Iterator[Path]:
        """A path to read a file from. Raises DamagedCheckpoint where it is not there, or has not the hash that is asked
        for."""
        with self._here(key) as path:
            if not path.is_file():
                raise DamagedCheckpoint(f"{self.address(key)} is not there any more")
            if sha256 and (found := digest_of(path)) != sha256:
                raise DamagedCheckpoint(
                    f"{self.address(key)} is not what was saved: its SHA-256 is {found}, but {sha256} was reported"
                )
            yield path

    @contextmanager
    def _here(self, key: str) -> Iterator[Path]:
        """Where a file lies on this machine, if it is there at all."""
        if path := self.path(key):
            self._patiently(self.store.check_is_there)
            yield path
            return
        with TemporaryDirectory(prefix="vaegan-") as directory:
            path = Path(directory, Path(key).name)
            self._patiently(lambda: self.store.download(self._full(key), path))
            yield path

    def all_keys(self) -> list[str]:
        """Keys of all files of all trials."""
        return self._keys(TRIALS)

    def _keys(self, folder: str) -> list[str]:
        return [key[len(self._full("")) :] for key in self.store.keys(self._full(folder))]

    def describe(self, key: str) -> Described | None:
        """What a file says of itself; None where it is damaged, or no file of tensors."""
        with suppress(DamagedCheckpoint), self.reading(key) as path:
            metadata = read_metadata(path)
            return Described(int(metadata["step"]), metadata["config"], digest_of(path))
        return None

    def delete(self, keys: list[str]) -> None:
        """Deletes files; those that are not there are no error."""
        self.store.delete(map(self._full, keys))

    def delete_others(self, trial: int, needed: Container[str]) -> None:
        """Deletes all files of a trial but those that are needed, and those of drivers that came after this one."""
        self._delete_others(self._keys(trial_folder(trial)), needed)

    def delete_all_others(self, needed: Container[str]) -> None:
        """Deletes all files of all trials, as `delete_others` does."""
        self._delete_others(self.all_keys(), needed)

    def _delete_others(self, keys: list[str], needed: Container[str]) -> None:
        self.delete([key for key in keys if key not in needed and driver_of(key) <= self._epoch])

    def _full(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    def _patiently(self, call: Callable[[], bool | None]) -> bool | None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return call()
            except StorageUnavailable:
                if time.monotonic() > deadline:
                    raise
                self._waiting()
                time.sleep(RETRY_SECONDS)


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
