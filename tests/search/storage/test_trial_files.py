"""Trials wait for a storage that is away, be it a bucket or a directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.storage import trial_files
from search.storage.trial_files import TrialFiles

KEY = "trials/00000/attempt-1-of-driver-1/step-00000040.safetensors"


@pytest.fixture
def mount(tmp_path: Path) -> Path:
    (tmp_path / "mnt" / "vaegan").mkdir(parents=True)
    return tmp_path / "mnt" / "vaegan"


@pytest.fixture(params=["nothing is left", "an empty directory is left"])
def files(mount: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> TrialFiles:
    """Files in a directory that was unmounted, and is mounted again at the second try."""
    monkeypatch.setattr(trial_files, "RETRY_SECONDS", 0.0)
    away, tries = mount.with_name("away"), list[list[Path]]()

    def mount_again() -> None:
        tries.append(list(mount.rglob("*")))
        assert tries[-1] == [], "nothing is written in its place"
        if len(tries) == 2:
            away.rename(mount)

    (mount / "sweeps/demo/lease").mkdir(parents=True)
    files = TrialFiles(str(mount), "sweeps/demo", waiting=mount_again)
    with files.writing("trials/00001/attempt-1/there") as path:
        path.write_bytes(b"weights")
    mount.rename(away)
    if request.param == "an empty directory is left":
        mount.mkdir()
    return files


def test_a_file_is_written_once_the_directory_is_mounted_again(files: TrialFiles, mount: Path) -> None:
    with files.writing(KEY) as path:
        path.write_bytes(b"state")
    assert (mount / "sweeps/demo" / KEY).read_bytes() == b"state"
    assert (mount / "sweeps/demo/trials/00001/attempt-1/there").is_file(), "beside what was there"


def test_a_file_is_read_once_the_directory_is_mounted_again(files: TrialFiles) -> None:
    with files.reading("trials/00001/attempt-1/there") as path:
        assert path.read_bytes() == b"weights"
