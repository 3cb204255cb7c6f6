"""One driver at a time, by the storage alone: in a directory and in a bucket, with clocks that do not agree."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from servers import S3

from search.storage.lease import EXPIRY_SECONDS, LOST_SECONDS, RENEW_SECONDS, LeaseLost, Renewal, StorageLease
from search.storage.store import Store

SWEEP = "sweeps/demo"


class Machine:
    """A machine's clock, which stands still but for its own waiting."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now
        self.beside: list[Callable[[], None]] = []

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds
        for act in self.beside:
            act()


@pytest.fixture(params=["directory", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    if request.param == "directory":
        return Store(str(tmp_path))
    s3: S3 = request.getfixturevalue("s3")
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return Store(f"s3://{s3.bucket}/{tmp_path.name}")


def lease(store: Store, name: str, clock: Machine) -> StorageLease:
    return StorageLease(store, SWEEP, name, clock=clock)


def test_a_second_driver_is_refused_while_the_first_renews(store: Store) -> None:
    here, there = Machine(5e6), Machine(17.0)
    first, second = lease(store, "w1", here), lease(store, "w2", there)
    assert first.take(here.wait) == 1
    there.beside = [first.renew]
    with pytest.raises(ValueError, match="w1 is running the sweep in"):
        second.take(there.wait)
    assert there.now - 17.0 < RENEW_SECONDS, "it is told at once"
    first.check()


def test_a_silent_holder_is_followed_and_writes_nothing_any_more(store: Store) -> None:
    here, there = Machine(5e6), Machine(17.0)
    first, second = lease(store, "w1", here), lease(store, "w2", there)
    first.take(here.wait)
    assert second.take(there.wait) == 2
    assert there.now - 17.0 >= EXPIRY_SECONDS
    here.now += 90.0  # stopped, and woken
    with pytest.raises(LeaseLost, match="could not be renewed for 90 s"):
        first.check()
    with pytest.raises(LeaseLost):
        first.renew()
    second.renew()
    assert [key.rpartition("/")[2] for key in store.keys(SWEEP)] == ["000002.json"]


def test_a_holder_whose_clock_stood_still_finds_its_successor(store: Store) -> None:
    here, there = Machine(), Machine()
    first, second = lease(store, "w1", here), lease(store, "w2", there)
    first.take(here.wait)
    second.take(there.wait)
    first.check()
    with pytest.raises(LeaseLost, match="w2 has taken it over"):
        first.renew()
    with pytest.raises(LeaseLost, match="w2 has taken it over"):
        first.check()


def test_a_released_lease_is_taken_at_once(store: Store) -> None:
    here, there = Machine(), Machine()
    first = lease(store, "w1", here)
    first.take(here.wait)
    first.release()
    with pytest.raises(LeaseLost, match="it has released it"):
        first.check()
    assert lease(store, "w2", there).take(there.wait) == 2
    assert there.now == 0.0


def test_one_of_many_takes_it(store: Store) -> None:
    ready, taken, refused = threading.Barrier(6), [], []

    def take(name: str) -> None:
        ready.wait()
        clock = Machine()
        try:
            taken.append(lease(store, name, clock).take(clock.wait))
        except ValueError as error:
            refused.append(str(error))

    drivers = [threading.Thread(target=take, args=(f"w{number}",)) for number in range(6)]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join()
    assert len(set(taken)) == len(taken)
    holders = [epoch for epoch in taken if epoch == max(taken)]
    assert len(holders) == 1
    assert len(taken) + len(refused) == 6


def test_one_that_sleeps_before_it_takes_finds_who_came_meanwhile(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    late, others, create = Store(store.uri), [Machine(), Machine()], store.create

    def sleep_first(key: str, content: bytes) -> bool:
        for number, clock in enumerate(others, start=1):
            assert lease(store, f"w{number}", clock).take(clock.wait) == number
        return create(key, content)

    monkeypatch.setattr(late, "create", sleep_first)
    with pytest.raises(ValueError, match="another driver has just taken over"):
        lease(late, "w3", Machine()).take()
    others[0].beside = [lambda: store.put(f"{SWEEP}/lease/000002.json", b'{"holder": "w2", "beat": "again"}')]
    with pytest.raises(ValueError, match="w2 is running"):
        lease(store, "w4", others[0]).take(others[0].wait)


def test_time_in_which_the_machine_is_suspended_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    holder = StorageLease(Store(str(tmp_path)), SWEEP, "w1")
    holder.take()
    now, gettime = time.clock_gettime(time.CLOCK_BOOTTIME), time.clock_gettime
    monkeypatch.setattr(
        "time.clock_gettime", lambda clock: now + 3600 if clock == time.CLOCK_BOOTTIME else gettime(clock)
    )
    with pytest.raises(LeaseLost, match="could not be renewed for 3600 s"):
        holder.check()


def test_it_must_stop_before_another_may_begin() -> None:
    assert LOST_SECONDS + RENEW_SECONDS <= EXPIRY_SECONDS


def test_a_lost_lease_is_told_once_and_a_released_one_not(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    told: list[str] = []
    holder = StorageLease(store, SWEEP, "w1")
    holder.take()
    renewal = Renewal(holder, told.append)
    renewal.close()
    assert not told
    assert StorageLease(store, SWEEP, "w2").take() == 2


def test_whatever_keeps_a_driver_from_renewing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def renew(_: StorageLease) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(StorageLease, "renew", renew)
    monkeypatch.setattr("search.storage.lease.RENEW_SECONDS", 0.01)
    told: list[str] = []
    heard = threading.Event()

    def hear(why: str) -> None:
        told.append(why)
        heard.set()

    holder = StorageLease(Store(str(tmp_path)), SWEEP, "w1")
    holder.take()
    renewal = Renewal(holder, hear)
    assert heard.wait(30)
    assert told == [f"this driver cannot renew its hold on {tmp_path}: can't start new thread"]
    renewal.close()
