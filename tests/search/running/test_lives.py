"""A sweep whose driver is killed at any commit, or whose machine loses power, ends as if nothing had happened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lives import KillAt, Simulation
from sweeps import BASELINES, make_journal, make_sweep

from search.journal.journal import Journal
from search.journal.meta import Meta
from vaegan_core.evaluation import PIXEL_MSE

SHORT = {"frames": "frames", "model": {"latent_dim": 4, "width": 8}, "train": {"steps": 120}, "evaluate": {"every": 40}}
SHORT["loss"] = {"kl": {"control": "fixed"}}
QMC = {"base": SHORT, "sampler": {"name": "qmc"}}
SWEEPS: dict[str, tuple[dict[str, Any], int]] = {
    "asha": ({"scheduler": {"name": "asha", "min_steps": 40, "reduction_factor": 2}, "budget": {"trials": 3}}, 1),
    "median": (
        {
            "scheduler": {"name": "median", "min_steps": 40, "min_trials": 1, "metric": PIXEL_MSE},
            "budget": {"trials": 3},
        },
        1,
    ),
    "confirmed": (
        {"scheduler": {"name": "none"}, "budget": {"trials": 2}, "confirm": {"top": 1, "seeds": 2}},
        1,
    ),
    "two at a time": ({"scheduler": {"name": "none"}, "budget": {"trials": 3}}, 2),
}
"""Sweeps in which what comes next depends on the journal alone, and how many trials run at a time."""


def simulate(name: str, directory: Path) -> Simulation:
    changes, slots = SWEEPS[name]
    directory.mkdir()
    simulation = Simulation(make_sweep(**QMC, **changes), directory, slots)
    journal = Journal(simulation.path)
    journal.set_meta(Meta.BASELINES, json.dumps(BASELINES))
    journal.close()
    return simulation


@pytest.mark.parametrize("name", SWEEPS)
def test_a_driver_killed_at_any_commit_changes_nothing(name: str, tmp_path: Path) -> None:
    whole, commits = simulate(name, tmp_path / "whole"), KillAt()
    assert whole.live(commits)
    expected = whole.record()
    assert expected["open or blamed attempts"] == []
    for number in range(commits.seen):
        for after in (False, True):
            cut = simulate(name, tmp_path / f"{number}-{after}")
            assert not cut.live(KillAt(number, after))
            assert cut.live(KillAt())
            assert cut.record() == expected, f"killed {'after' if after else 'before'} commit {number}"


@pytest.mark.parametrize("name", SWEEPS)
def test_reports_that_a_power_cut_took_from_the_journal_are_given_back(name: str, tmp_path: Path) -> None:
    whole, commits = simulate(name, tmp_path / "whole"), KillAt()
    assert whole.live(commits)
    for number in range(3, commits.seen, 4):
        synced = number // 2
        cut = simulate(name, tmp_path / str(number))
        assert not cut.live(KillAt(number, after=True, synced=synced))
        assert cut.live(KillAt())
        assert cut.record() == whole.record(), f"power cut at commit {number}, {synced} of them on the disk"


def test_a_commit_of_the_journal_is_on_the_disk(tmp_path: Path) -> None:
    """On every connection: the delivering process would otherwise note as sent what a power cut then takes away."""
    for journal in (make_journal(tmp_path), Journal(tmp_path / "journal.db")):
        assert journal.db.execute("PRAGMA synchronous").fetchone()[0] == 2, "FULL: the log is synced at every commit"
        journal.close()
