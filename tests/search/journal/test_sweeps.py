"""Sweeps on disk: what changes one needs its lease, what cannot start is moved aside, and looking takes nothing."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from asked import NORM, PRIOR, asking
from old_journals import unpack
from sweeps import make_sweep

from search.commands import sweeps as commands
from search.commands.status import read_status, status_lines
from search.config.sweep import Sweep
from search.journal import sweeps
from search.journal.journal import Journal
from search.journal.meta import Meta
from search.journal.questions import register
from search.journal.records import BlockPlace
from search.journal.schema import SCHEMA_VERSION
from search.lease import is_running, lease
from search.names import ASKED, Outcome
from search.running import driver
from search.terminal import screen

REFUSED = "another process is running the sweep"


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep that has begun, with one failed trial."""
    monkeypatch.chdir(tmp_path)
    made = create(make_sweep())
    journal = Journal(made / "journal.db")
    journal.add_trial(0, {}, "", "random")
    journal.end_trial(0, Outcome.FAILED)
    journal.close()
    return made


def create(sweep: Sweep) -> Path:
    features = SimpleNamespace(fingerprint="g", baselines={}, floor=1.0)
    return sweeps.create_sweep(sweep, SimpleNamespace(fingerprint="f"), features)


def contents(directory: Path) -> list[str]:
    db = sqlite3.connect(directory / "journal.db")
    try:
        return list(db.iterdump())
    finally:
        db.close()


HOLD = """
import sys
from pathlib import Path
from search.lease import lease
with lease(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""

# --- What is kept, and what is not there ------------------------------------------------------------------------------


def test_a_new_sweep_keeps_what_it_is_measured_by_and_what_it_begins_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    features = SimpleNamespace(fingerprint="g", baselines={"mean_color_mse": 0.25}, floor=1.5)
    known = {"params": {"lr": 1e-3}, "metrics": {"val/kl": 2.0}}
    made = sweeps.create_sweep(make_sweep(), SimpleNamespace(fingerprint="f"), features, [known], "s3://bucket/a")
    journal = Journal(made / "journal.db")
    kept = {key: journal.meta(key) for key in (Meta.FRAMES, Meta.FEATURES, Meta.STORAGE)}
    assert kept == {Meta.FRAMES: "f", Meta.FEATURES: "g", Meta.STORAGE: "s3://bucket/a"}
    assert json.loads(journal.meta(Meta.BASELINES)) == {"mean_color_mse": 0.25, "floor": 1.5}
    assert json.loads(journal.meta(Meta.WARM_START)) == [known]


def test_a_sweep_that_is_not_there_is_named_with_those_that_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"^there is no sweep named toy; there are: none$"):
        sweeps.open_sweep("toy")
    create(make_sweep())
    create(make_sweep(name="other"))
    with pytest.raises(ValueError, match=r"^there is no sweep named toyy; there are: other, toy; did you mean toy\?$"):
        sweeps.open_sweep("toyy")
    with pytest.raises(ValueError, match=r"^'runs/sweeps/toy' is no name of a sweep, but a path.*mean toy\?$"):
        sweeps.open_sweep("runs/sweeps/toy")


def test_another_sweep_of_the_same_name_is_told_apart_key_by_key(directory: Path) -> None:
    before = contents(directory)
    changes: dict[str, Any] = {"sampler": {"name": "tpe", "seed": 3}, "scheduler": {"name": "none"}}
    with pytest.raises(ValueError, match="was started with another YAML") as refused:
        sweeps.reopen(make_sweep(budget={"trials": 50}, **changes))
    lines = str(refused.value).splitlines()[1:]
    assert "  sampler.name: random then, tpe now" in lines
    assert "  sampler.seed: 0 then, 3 now" in lines
    assert "  scheduler.min_steps: 120 then, not there now" in lines
    assert not any("budget" in line for line in lines), "a budget may change"
    assert contents(directory) == before
    create(make_sweep(name="other", **changes))
    with pytest.raises(ValueError, match="min_steps: not there then, 120 now"):
        sweeps.reopen(make_sweep(name="other"))


# --- Under the lease --------------------------------------------------------------------------------------------------

CHANGES: dict[str, Callable[[Path], object]] = {
    "take over settings": lambda _: commands.sweep(Path("toy.yaml"), resume=True),
    "extend": lambda _: commands.resume("toy", extend=3, retry_failed=False),
    "extend by its file": lambda _: commands.sweep(Path("toy.yaml"), extend=3),
    "retry failed": lambda _: commands.resume("toy", retry_failed=True),
    "sync": lambda directory: driver.sync_sweep(make_sweep(), directory, screen),
    "run": lambda directory: driver.run_sweep(
        make_sweep, directory, screen, lambda *_: pytest.fail("ran"), ground=driver.Ground()
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_nothing_changes_a_sweep_that_another_process_runs(
    change: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = make_sweep(budget={"trials": 60}, tracking={"keep_models": 1})
    monkeypatch.setattr("search.config.load.load_sweep", lambda *_args, **_options: changed)
    monkeypatch.setattr("search.preflight.machine.check_machine", lambda _: None)
    before = contents(directory)
    with lease(directory), pytest.raises(ValueError, match=REFUSED):
        CHANGES[change](directory)
    assert contents(directory) == before


def test_a_running_sweep_of_an_earlier_version_is_not_upgraded_under_its_driver(tmp_path: Path) -> None:
    path = unpack(4, tmp_path / "journal.db")
    before = contents(tmp_path)
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdin=PIPE, stdout=PIPE) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == b"held\n"
        with pytest.raises(ValueError, match=REFUSED):
            Journal(path)
        driver.kill()
    assert contents(tmp_path) == before
    Journal(path).close()
    assert contents(tmp_path) != before


def test_a_driver_that_holds_the_lease_upgrades_the_journal_of_an_earlier_version(tmp_path: Path) -> None:
    path = unpack(4, tmp_path / "journal.db")
    with lease(tmp_path):
        Journal(path).close()
    assert sqlite3.connect(path).execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)


def test_looking_whether_a_sweep_runs_never_keeps_a_driver_out(directory: Path) -> None:
    assert not is_running(directory)
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            is_running(directory)

    watchers = [threading.Thread(target=look) for _ in range(3)]
    for watcher in watchers:
        watcher.start()
    try:
        for _ in range(500):
            with lease(directory):
                assert is_running(directory)
    finally:
        done.set()
        for watcher in watchers:
            watcher.join()
    assert not is_running(directory)


# --- What cannot start ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "held", "trials", "kept"),
    [
        (ValueError("no Ray here"), False, False, False),
        (Exception("The current node timed out during startup"), False, False, False),
        (ValueError("another process is running it"), True, False, True),
        (ValueError("cut off"), False, True, True),
        (typer.Exit(130), False, False, True),
        (KeyboardInterrupt(), False, False, True),
    ],
)
def test_a_new_sweep_that_cannot_start_is_moved_aside_unless_somebody_runs_it(
    error: BaseException, held: bool, trials: bool, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = make_sweep()
    monkeypatch.setattr("search.config.load.load_sweep", lambda *_args, **_options: sweep)
    monkeypatch.setattr("search.preflight.machine.check_machine", lambda _: None)
    monkeypatch.setattr(commands, "_create", lambda *_: create(sweep))
    holder = lease(sweeps.directory_of("toy"))

    def fail(_sweep: Sweep, directory: Path, *_: object) -> None:
        if held:
            holder.__enter__()
        if trials:
            journal = Journal(directory / "journal.db")
            journal.add_trial(0, {}, "", "random")
            journal.close()
        raise error

    monkeypatch.setattr(commands, "_run", fail)
    with pytest.raises(type(error)):
        commands.sweep(Path("toy.yaml"))
    assert sweeps.exists(sweeps.directory_of("toy")) == kept
    aside = list((tmp_path / "runs" / "sweeps" / sweeps.ASIDE_DIRECTORY).glob("*/journal.db"))
    assert len(aside) == (0 if kept else 1), "moved, not deleted"
    if held:
        holder.__exit__(None, None, None)
    if not kept:
        create(sweep)
        sweeps.set_aside_if_untouched(sweeps.directory_of("toy"))
        assert len(list(aside[0].parent.parent.iterdir())) == 2, "and never onto another one"


def test_a_second_start_that_is_refused_leaves_the_first_one_its_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    directory = create(make_sweep())
    monkeypatch.setattr("search.config.load.load_sweep", lambda *_args, **_options: make_sweep())
    monkeypatch.setattr("search.preflight.machine.check_machine", lambda _: None)
    with lease(directory), pytest.raises(ValueError, match=REFUSED):
        commands.sweep(Path("toy.yaml"), resume=True)
    assert sweeps.exists(directory)


# --- Stop -------------------------------------------------------------------------------------------------------------


def test_a_stop_while_the_sweep_starts_stops_it(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweeps.request_stop(directory)  # to a driver of the past
    seen: list[str] = []

    def start_ray(*_: object) -> None:
        journal = Journal(directory / "journal.db")
        seen.append(journal.meta(Meta.STOP_REQUESTED))
        journal.close()
        assert is_running(directory)
        sweeps.request_stop(directory)

    frames = SimpleNamespace(frame_set=SimpleNamespace(fingerprint="f"), features=SimpleNamespace(fingerprint="g"))
    tracker = SimpleNamespace(start=lambda: None, close=lambda *_: True)
    for name, replaced in {
        "start_ray": start_ray,
        "in_memory": lambda _: None,
        "with_gpu_share": lambda sweep, *_: sweep,
        "Tracker": lambda *_: tracker,
        "run_tuner": lambda *_: pytest.fail("trials began"),
    }.items():
        monkeypatch.setattr(driver, name, replaced)
    view = lambda *_: SimpleNamespace()  # noqa: E731

    def load() -> Sweep:
        assert is_running(directory), "what is changed and what is run are under one lease"
        return make_sweep()

    end = driver.run_sweep(load, directory, screen, view, ground=driver.Ground(), frames=frames)
    assert seen == [""]
    assert end.stopped == "stopped by vaegan stop"


# --- Questions --------------------------------------------------------------------------------------------------------


def test_questions_may_change_when_a_sweep_goes_on_but_not_how_blocks_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    create(asking({"norm": NORM}, {"at_most": 16}))
    changed = asking({"norm": NORM | {"smallest_effect": 2}, "prior": PRIOR}, {"at_most": 24, "share": 1})
    assert sweeps.reopen(changed) == changed == sweeps.open_sweep("toy")[0]
    assert sweeps.reopen(asking({"norm": NORM}, {"at_most": 8})).config.blocks.at_most == 24
    for key, value in (("seed", 1), ("steps", 40), ("at_least", 9)):
        with pytest.raises(ValueError, match=f"blocks.{key}: .* then, {value} now"):
            sweeps.reopen(asking({"norm": NORM}, {key: value}))


def test_extending_adds_blocks_where_nothing_else_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    create(asking({"norm": NORM}, {"at_most": 16}))
    assert sweeps.extend("toy", 8).config.blocks.at_most == 24
    create(asking({"norm": NORM}, {"at_most": 16}, name="both", budget={"trials": 4}))
    both = sweeps.extend("both", 8).config
    assert (both.budget.trials, both.blocks.at_most) == (12, 16)


def test_a_driver_that_is_started_again_for_one_request_extends_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    create(make_sweep(name="toy", budget={"trials": 4}))
    sizes = []
    for asked in ("a", "a", "b", "b", "", ""):
        monkeypatch.setenv(ASKED, asked)
        sizes.append(sweeps.extend("toy", 2).config.budget.trials)
    assert sizes == [6, 6, 8, 8, 10, 12]
    assert sweeps.open_sweep("toy")[0].config.budget.trials == 12


def test_status_says_how_far_each_question_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = asking({"norm": NORM}, {"at_most": 16})
    journal = Journal(create(sweep) / "journal.db")
    register(sweep, journal)
    journal.close()
    found = read_status("toy")
    assert found["questions"] == [
        {"name": "norm", "blocks": 0, "next_look": 8, "at_most": 16, "verdict": "not enough evidence"}
    ]
    assert found["trials"]["wanted"] == 16
    words = "  norm: 0 blocks done, the next look is at 8, of 16 at most; not enough evidence"
    assert words in list(status_lines(found))


def test_status_says_how_far_a_running_trial_of_a_block_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = asking({"norm": NORM}, {"at_most": 16, "steps": 40}, budget={"trials": 1})
    journal = Journal(create(sweep) / "journal.db")
    register(sweep, journal)
    journal.add_block_trial(0, {}, "", "block 0", BlockPlace(0, 0, {"norm": 0}, {}))
    journal.add_trial(1, {}, "", "random")
    journal.close()
    assert [trial["of"] for trial in read_status("toy")["running_trials"]] == [40, 80]
