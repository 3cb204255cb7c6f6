from collections.abc import Iterator
from pathlib import Path

import pytest
from obedient import obey

from vaegan_core.data import workers
from vaegan_core.data.workers import WorkerPool


def test_jobs_are_taken_only_when_a_worker_is_free(tmp_path: Path) -> None:
    drawn, finished, most = 0, 0, 0

    def jobs() -> Iterator[str]:
        nonlocal drawn, most
        for number in range(20):
            drawn += 1
            most = max(most, drawn - finished)
            yield str(number)

    answers = []
    with WorkerPool[str, "int | str"](2, obey, tmp_path, more=int) as pool:
        for job, message in pool.run(jobs()):
            answers.append((job, message))
            finished += isinstance(message, str)
    assert most == 2
    for number in range(20):
        assert [m for j, m in answers if j == str(number)] == [number, f"{number} done"]


def test_a_dead_and_a_silent_worker_cost_their_own_jobs_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "SILENCE_LIMIT", 2.0)
    with WorkerPool[str, "int | str"](2, obey, tmp_path, more=int) as pool:
        last = dict(pool.run(["1", "die", "2", "sleep", "3", "4"]))
    assert last["die"] == "worker process died (exit code -6)"
    assert last["sleep"] == "no message for 2 s"
    assert [last[n] for n in "1234"] == [f"{n} done" for n in "1234"]


def test_no_jobs_need_no_workers(tmp_path: Path) -> None:
    with WorkerPool[str, str](2, obey, tmp_path, more=int) as pool:
        assert list(pool.run([])) == []
