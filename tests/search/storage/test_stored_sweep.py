"""A sweep in a storage is found, fetched where it is newer, and held by one driver; its frames lie there once."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
from sweeps import evaluation, make_journal

from search.commands.errors import explain
from search.journal.journal import Journal
from search.journal.meta import Meta
from search.paths import JOURNAL_FILE, storage_uri
from search.storage import keeper, lease
from search.storage.frames import fetch_frames, put_frames
from search.storage.lease import LeaseLost, StorageLease
from search.storage.store import StorageUnavailable, Store
from search.storage.stored_sweep import check_name_is_free_in, hold, is_stored, storage_of
from vaegan_core.data.frames import FrameSet


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A directory that every machine has; this one is at `here`."""
    for name in ("storage", "here", "there"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("VAEGAN_STORAGE", raising=False)
    return str(tmp_path / "storage")


def begin(machine: Path, storage: str) -> Path:
    """A sweep with a trial on a machine; its directory."""
    directory = machine / "runs" / "sweeps" / "demo"
    directory.mkdir(parents=True)
    journal = make_journal(directory)
    journal.set_meta(Meta.STORAGE, storage)
    journal.add_trial(0, {}, "threads: auto", "random")
    journal.close()
    return directory


def add(directory: Path, step: int) -> None:
    journal = Journal(directory / JOURNAL_FILE)
    journal.add_evaluation(0, evaluation(step))
    journal.close()


def steps(directory: Path) -> list[int]:
    journal = Journal(directory / JOURNAL_FILE)
    found = list(journal.evaluations(0))
    journal.close()
    return found


def test_the_newest_journal_counts_wherever_it_is(storage: str, tmp_path: Path) -> None:
    said: list[str] = []
    here = begin(tmp_path / "here", storage)
    with hold(here, storage, said.append):
        add(here, 40)
    assert said == []
    there = tmp_path / "there" / "runs" / "sweeps" / "demo"
    there.mkdir(parents=True)
    with hold(there, storage, said.append) as held:
        assert (held.place.storage, held.place.prefix, held.place.epoch) == (storage, "sweeps/demo", 2)
        assert steps(there) == [40]
        add(there, 80)
    assert "The journal was restored from" in said.pop()
    with hold(here, storage, said.append):
        assert steps(here) == [40, 80], "this machine's own is older by now"
        add(here, 120)
    assert len(said) == 1
    assert (here / f"driver-1-{JOURNAL_FILE}").is_file(), "and is set aside"
    with hold(here, storage, said.append):
        assert steps(here) == [40, 80, 120]
    assert len(said) == 1, "nothing is fetched where it is the newest"


def test_a_sweep_is_held_in_the_storage_that_its_journal_names_or_not_at_all(storage: str, tmp_path: Path) -> None:
    here = begin(tmp_path / "here", storage)
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match=r"^the sweep demo lives in .*/storage, and cannot be continued without it; "):
        hold(here, "", print).__enter__()
    with pytest.raises(ValueError, match=r"lives in .*/storage, and cannot be continued in .*/other; continue it with"):
        hold(here, str(tmp_path / "other"), print).__enter__()
    assert list((tmp_path / "other").iterdir()) == []
    with hold(here, storage, print):
        pass
    shutil.copytree(storage, tmp_path / "other", dirs_exist_ok=True)
    there = tmp_path / "there" / "runs" / "sweeps" / "demo"
    there.mkdir(parents=True)
    with pytest.raises(ValueError, match=r"lives in .*/storage, and cannot be continued in .*/other"):
        hold(there, str(tmp_path / "other"), print).__enter__()
    with pytest.raises(ValueError, match="has no storage but its own directory, and cannot be continued in"):
        hold(begin(tmp_path / "alone", ""), storage, print).__enter__()


def test_what_was_not_shipped_is_still_here(storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = begin(tmp_path / "here", storage)
    said: list[str] = []
    with hold(here, storage, said.append) as held:
        held.flush()  # or its first shipment may find the directory and write when there is none any more
        monkeypatch.setattr(keeper, "LAST_SECONDS", 0.0)
        add(here, 40)
        shutil.move(storage, f"{storage} away")
    assert f"{storage} does not have all of the journal;" in said[-1]
    assert said[-1].endswith("continued here: vaegan resume demo")
    assert not Path(storage).exists(), "nothing is written in place of a directory that is not mounted"
    Path(storage).mkdir()
    with pytest.raises(StorageUnavailable, match=r"has no sweeps/demo any more; mount it .* mkdir -p ") as empty:
        hold(here, storage, said.append).__enter__()
    assert list(Path(storage).iterdir()) == [], "it may be where a disk is to be mounted"
    subprocess.run(shlex.split(str(empty.value).rpartition("anew: ")[2].rstrip(")")), check=True)
    with hold(here, storage, said.append):
        assert steps(here) == [40]
    assert is_stored(storage, "demo")


def test_a_driver_that_loses_its_storage_ends_with_a_code_that_has_it_started_again(
    storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.01)
    monkeypatch.setattr(keeper, "LAST_SECONDS", 0.0)
    here = begin(tmp_path / "here", storage)
    said: list[str] = []
    codes: list[int] = []
    ended = threading.Event()
    monkeypatch.setattr(os, "_exit", lambda code: [codes.append(code), ended.set()])
    with hold(here, storage, said.append):
        shutil.move(storage, f"{storage} away")
        monkeypatch.setattr(lease, "LOST_SECONDS", -1.0)
        assert ended.wait(20)
    assert set(codes) == {75}, "the one who finds it first ends the process"
    assert any("could not be renewed for" in each and "writes nothing any more" in each for each in said)
    with pytest.raises(StorageUnavailable, match="is no directory on this machine; mount it, or make it") as away:
        hold(here, storage, said.append).__enter__()
    assert explain(away.value)[1] == 75
    shutil.move(f"{storage} away", storage)
    monkeypatch.setattr(lease, "LOST_SECONDS", 45.0)
    monkeypatch.setattr(lease, "EXPIRY_SECONDS", 0.0)
    with hold(here, storage, said.append):
        assert steps(here) == [], "and is held again once it is back"


def test_a_sweep_is_continued_in_the_storage_that_it_lives_in(
    storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert storage_of("demo", None) == ""
    here = begin(tmp_path / "here", storage)
    with hold(here, storage, print):
        pass
    assert storage_of("demo", None) == storage_of("demo", storage) == storage
    with pytest.raises(ValueError, match=r"demo lives in .*, and cannot be continued with --storage s3://other"):
        storage_of("demo", "s3://other")
    with pytest.raises(ValueError, match=r"a sweep named demo exists in .*vaegan resume demo --storage"):
        check_name_is_free_in(storage, "demo")
    with pytest.raises(ValueError, match=r"vaegan resume demo --cluster http://h:8265 --storage"):
        check_name_is_free_in(storage, "demo", "http://h:8265")
    check_name_is_free_in(storage, "other")
    monkeypatch.chdir(tmp_path / "there")
    monkeypatch.setenv("VAEGAN_STORAGE", storage)
    assert storage_of("demo", None) == storage
    with pytest.raises(ValueError, match=r"no sweep named demp in .*; there are: demo; did you mean demo\?"):
        storage_of("demp", None)


@pytest.mark.parametrize(
    ("given", "configured", "variable", "used"),
    [
        ("s3://a/", "s3://b", "s3://c", "s3://a"),
        (None, "gs://b/folder/", "s3://c", "gs://b/folder"),
        (None, None, "/mnt/c", "/mnt/c"),
        (None, None, "", ""),
    ],
)
def test_an_option_goes_before_the_yaml_and_the_environment(
    given: str | None, configured: str | None, variable: str, used: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAEGAN_STORAGE", variable)
    assert storage_uri(given, configured) == used


def test_a_storage_that_cannot_be_is_named_with_where_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAEGAN_STORAGE", "runs/storage")
    with pytest.raises(ValueError, match=r"^VAEGAN_STORAGE must be s3://BUCKET .* got 'runs/storage'"):
        storage_uri(None)
    with pytest.raises(ValueError, match=r"^--storage must be"):
        storage_uri("http://host/bucket")


@pytest.mark.parametrize("output", ["closed", "full", "blocked"])
def test_a_driver_that_lost_its_lease_ends_whatever_became_of_its_output(
    output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unblocked, ended = threading.Event(), threading.Event()

    def say(_: str) -> None:
        if output == "closed":
            raise SystemExit(1)  # as rich does
        if output == "full":
            raise OSError(errno.ENOSPC, "No space left on device")
        unblocked.wait()

    def lose(_: StorageLease) -> None:
        raise LeaseLost("this driver has lost the sweep")

    monkeypatch.setattr("search.terminal.SAY_SECONDS", 0.05)
    monkeypatch.setattr("search.storage.lease.RENEW_SECONDS", 0.01)
    monkeypatch.setattr(StorageLease, "renew", lose)
    monkeypatch.setattr("os._exit", lambda _: ended.set())
    with hold(begin(tmp_path / "here", str(tmp_path)), str(tmp_path), say):
        has_ended = ended.wait(10)
        unblocked.set()
    assert has_ended


def test_frames_are_sent_once_and_fetched_whole(storage: str, frame_set: FrameSet) -> None:
    store = Store(storage)
    assert frame_set.path is not None
    with pytest.raises(ValueError, match=rf"the frames {frame_set.fingerprint} are not in"):
        fetch_frames(store, frame_set.fingerprint)
    assert put_frames(store, frame_set.path, frame_set.fingerprint)
    assert not put_frames(store, frame_set.path, frame_set.fingerprint)
    directory = fetch_frames(store, frame_set.fingerprint)
    assert FrameSet.open(directory).fingerprint == frame_set.fingerprint
    assert [path.name for path in directory.parent.iterdir()] == [directory.name]
    assert fetch_frames(Store(storage), frame_set.fingerprint) == directory
