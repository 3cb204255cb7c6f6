"""What ships a journal says that the storage has everything only where it has."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from sweeps import evaluation, make_journal

from search.journal.journal import Journal
from search.journal.meta import Meta
from search.journal.outbox import Outbox
from search.storage import keeper
from search.storage.keeper import Keeper
from search.storage.lease import LeaseLost, StorageLease
from search.storage.shipping import Shipper, restore
from search.storage.store import StorageUnavailable, Store
from search.storage.trial_files import TrialFiles, attempt_folder, state_name

SWEEP = "sweeps/demo"
Make = Callable[..., Keeper]


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def lost() -> list[str]:
    """Why the lease was lost, as the driver is told."""
    return []


@pytest.fixture
def make(tmp_path: Path, said: list[str], lost: list[str], monkeypatch: pytest.MonkeyPatch) -> Make:
    """What makes a keeper of a journal with one point, which waits for nothing at its end."""
    monkeypatch.setattr(keeper, "LAST_SECONDS", 0.5)
    (tmp_path / "storage").mkdir()
    journal = make_journal(tmp_path)
    journal.set_meta(Meta.STORAGE, str(tmp_path / "storage"))
    journal.add_trial(0, {}, "threads: auto", "random")
    journal.add_evaluation(0, evaluation(40))
    journal.close()

    def make(say: Callable[[str], None] = said.append) -> Keeper:
        lease = StorageLease(Store(str(tmp_path / "storage")), SWEEP, "this driver", clock=lambda: 0.0)
        lease.take()
        files = TrialFiles(str(tmp_path / "storage"), SWEEP, epoch=1)
        return Keeper(tmp_path / "journal.db", files, lease, say, lost.append)

    return make


def sendable(tmp_path: Path) -> int:
    """Points that may go to MLflow."""
    journal = Journal(tmp_path / "journal.db")
    found = len(Outbox(journal).points_after(0, 1000))
    journal.close()
    return found


def test_points_go_to_mlflow_once_the_storage_has_them(make: Make, said: list[str], tmp_path: Path) -> None:
    assert sendable(tmp_path) == 0
    held = make()
    held.flush()
    assert sendable(tmp_path) == len(evaluation(40).points) > 0
    journal = Journal(tmp_path / "journal.db")
    journal.add_evaluation(0, evaluation(80))
    assert sendable(tmp_path) == len(evaluation(40).points)
    held.flush()
    assert sendable(tmp_path) == len(evaluation(40).points + evaluation(80).points)
    assert held.close()
    journal.close()
    restore(Store(str(tmp_path / "storage")), SWEEP, tmp_path / "there" / "journal.db")
    assert list(Journal(tmp_path / "there" / "journal.db").evaluations(0)) == [40, 80]
    assert said == []


@pytest.mark.parametrize("how", ["refused", "not whole"])
def test_a_shipment_that_failed_is_none(
    how: str, make: Make, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ship(_: Shipper) -> bool:
        if how == "refused":
            raise ValueError("the storage refuses access")
        return False

    deleted: list[list[str]] = []
    with monkeypatch.context() as patch:
        patch.setattr(Shipper, "ship", ship)
        held = make()
        monkeypatch.setattr(held.files, "delete", deleted.append)
        held.delete(["trials/00000/attempt-1/step-00000040.safetensors"])
        held.flush()
        assert sendable(tmp_path) == 0
        assert deleted == [], "the storage still needs it"
        if how == "not whole":
            assert not held.close()
    if how == "refused":
        assert said == ["the storage refuses access; trials wait for it, and the sweep goes on once it is back."]
        held.flush()
        assert held.close(), "rights came back"
        assert len(deleted) == 1
        assert said[1:] == ["The storage has everything again."]


def test_a_keeper_that_finds_the_lease_lost_tells_the_driver(make: Make, lost: list[str], said: list[str]) -> None:
    held = make()
    held.flush()
    held.lease.store.put(f"{SWEEP}/lease/000002.json", b'{"holder": "w2", "beat": "a"}')
    with pytest.raises(LeaseLost):
        held.lease.renew()
    held.flush()
    assert len(lost) == 1
    assert lost[0].endswith("w2 has taken it over")
    assert not held.close()
    assert said == []


@pytest.mark.parametrize("where", ["newest_point", "ship", "note_points"])
def test_shipping_outlasts_whatever_goes_wrong_on_this_machine(
    where: str, make: Make, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Shipper, where, fail)
        held = make()
        held.flush()
    held.flush()
    assert held.close()
    assert sendable(tmp_path) == len(evaluation(40).points)
    assert said == [
        f"The journal cannot be brought to {tmp_path}/storage: [Errno 28] No space left on device. It is tried again "
        "every 5 s.",
        "The storage has everything again.",
    ]


def test_shipping_outlasts_an_output_that_is_closed(make: Make, said: list[str], tmp_path: Path) -> None:
    def say(text: str) -> None:
        said.append(text)
        raise SystemExit(1)  # as rich does

    held = make(say)
    (tmp_path / "storage").rename(tmp_path / "away")
    held.flush()
    (tmp_path / "away").rename(tmp_path / "storage")
    held.flush()
    assert held.close()
    assert len(said) == 2


STATE = "trials/00017/attempt-1-of-driver-1/step-00000040.safetensors"


def test_nothing_is_deleted_on_a_lease_that_another_driver_has_taken(make: Make, lost: list[str]) -> None:
    held = make()
    store = held.lease.store
    store.put(f"{SWEEP}/{STATE}", b"state")
    held.flush()
    store.put(f"{SWEEP}/lease/000002.json", b'{"holder": "w2", "beat": "a"}')
    held.lease.check()  # its clock stood still, as that of a machine which was suspended
    held.delete_others(17, set())
    held.flush()
    assert not held.close()
    assert store.read(f"{SWEEP}/{STATE}") == b"state"
    assert lost[0].endswith("w2 has taken it over")


def test_a_driver_that_finds_its_lease_lost_between_two_deletions_does_only_the_first(
    make: Make, lost: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = make()
    held.flush()
    deleted: list[str] = []

    def delete(keys: list[str]) -> None:
        deleted.extend(keys)
        held.lease.release()

    monkeypatch.setattr(held.files, "delete", delete)
    held.delete(["a"])
    held.delete(["b"])
    held.flush()
    assert deleted == ["a"]
    assert lost[0].endswith("it has released it")


def test_a_deletion_that_fails_at_the_end_is_tried_again(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    held = make()
    held.flush()
    monkeypatch.setattr(keeper, "LAST_SECONDS", 30.0)
    tried: list[str] = []

    def delete(keys: list[str]) -> None:
        tried.extend(keys)
        if len(tried) == 1:
            raise StorageUnavailable("the storage does not answer")

    monkeypatch.setattr(held.files, "delete", delete)
    held.delete([STATE])
    assert held.close()
    assert tried == [STATE, STATE]


def test_files_of_a_driver_that_came_later_are_not_deleted(tmp_path: Path) -> None:
    (tmp_path / SWEEP).mkdir(parents=True)
    files = TrialFiles(str(tmp_path), SWEEP, epoch=10)
    name = state_name(40)
    folders = {epoch: attempt_folder(17, 2, epoch) for epoch in (0, 1, 9, 10, 11, 100)}
    for folder in folders.values():
        files.store.put(f"{SWEEP}/{folder}/{name}", b"state")
    files.store.put(f"{SWEEP}/trials/00017/checkpoint.safetensors", b"of an earlier version")
    files.delete_others(17, {f"{folders[9]}/{name}"})
    assert files.all_keys() == sorted(f"{folders[epoch]}/{name}" for epoch in (9, 11, 100))


def test_reports_do_not_wait_for_files_that_are_to_be_deleted(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    shipped_at: list[float] = []
    deleted_at: list[float] = []
    held = make()
    held.flush()
    ship = Shipper.ship

    def noted(shipper: Shipper) -> bool:
        shipped_at.append(now[0])
        return ship(shipper)

    def delete(_: list[str]) -> None:
        now[0] += 0.5  # of the keeper's clock
        deleted_at.append(now[0])

    monkeypatch.setattr(keeper, "LAST_SECONDS", 60.0)
    monkeypatch.setattr(keeper, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=time.sleep))
    monkeypatch.setattr(Shipper, "ship", noted)
    monkeypatch.setattr(held.files, "delete", delete)
    for number in range(100):
        held.delete([str(number)])
    assert held.close()
    assert len(deleted_at) == 100, "none is left"
    waits = [after - before for before, after in pairwise([0.0, *shipped_at, now[0]])]
    assert max(waits) <= keeper.SHIP_SECONDS + 0.5
