"""What `vaegan check` says of a sweep's questions: from a guess, from the file, from the sweep's own blocks."""

from __future__ import annotations

from pathlib import Path

import pytest
from asked import NORM, PRIOR, SCHEME, asking, planted
from sweeps import make_journal
from tuning import Tuning

from search.config.sweep import Sweep
from search.journal.meta import Meta
from search.preflight.questions import Pilot, questions_in_words, read_pilot
from search.questions.power import blocks_needed, chance_of_none, effect_seen


def lines(sweep: Sweep, pilot: Pilot | None = None) -> list[str]:
    return list(questions_in_words(sweep, pilot or Pilot()))


def test_nothing_is_said_without_questions() -> None:
    assert lines(asking({}, budget={"trials": 2})) == []


def test_it_says_what_shares_trials_and_how_many_there_are() -> None:
    found = lines(asking({"norm": NORM, "prior": PRIOR, "scheme": SCHEME}, {"at_least": 8, "at_most": 24}))
    assert found[:2] == [
        "3 questions, in blocks of 10 trials of 80 steps each: 4 for norm, prior together; 6 for scheme.",
        "The answers are looked at after 8 blocks (80 trials), then every 8 more, up to 24 (240 trials).",
    ]


def test_power_is_from_a_guess_or_what_the_file_says() -> None:
    norm, prior, scheme = lines(asking({"norm": NORM, "prior": PRIOR | {"spread": 0.1}, "scheme": SCHEME}))[2:]
    needed = blocks_needed(0.35, 1.25, 3)
    seen, none = 100 * (effect_seen(0.35, 16, 3) - 1), 100 * chance_of_none(0.35, 1.25, 16)
    assert norm == (
        "  norm: encoder.norm instance against encoder.norm batch, on val/pixel_mse; an effect of 25 % is seen with a "
        f"power of 80 % after {needed} blocks ({4 * needed} trials) at a spread of 0.35 (a guess); 16 blocks see an "
        f"effect of {seen:.0f} %, and where there is none they say so in {none:.0f} % of cases"
    )
    assert "at a spread of 0.1 (as the file guesses)" in prior
    assert "its slope over loss.kl.sigma; no forecast" in scheme
    assert "give questions.scheme.spread" in scheme


def test_the_sweep_s_own_blocks_are_its_pilot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    directory = tmp_path / "runs" / "sweeps" / "toy"
    directory.mkdir(parents=True)
    sweep = asking({"norm": NORM, "prior": PRIOR}, {"at_most": 8})
    t = Tuning(sweep, make_journal(directory))
    t.journal.set_meta(Meta.SWEEP, sweep.config.to_yaml())
    while isinstance(found := t.suggest(), dict):
        for evaluation in planted(found["config"]):
            t.report(found["trial"], evaluation)
    t.journal.db.execute("UPDATE attempts SET started = 0, ended = 1800")
    t.journal.close()
    pilot = read_pilot(asking({"norm": NORM, "prior": PRIOR}, {"at_most": 24}))
    assert pilot.blocks == {"norm": 8, "prior": 8}
    assert pilot.trial_hours == 0.5
    assert 0.03 < pilot.spreads["prior"] < 0.08, "0.05 planted; two trials of each level"
    assert 0.06 < pilot.spreads["norm"] < 0.16, "0.1 planted"
    found = lines(sweep, pilot)
    assert "up to 8 (32 trials, 16.0 hours of trials)" in found[1]
    assert f"at a spread of {pilot.spreads['norm']:.2g} (measured in 8 blocks)" in found[2]
    assert read_pilot(asking({"norm": NORM | {"smallest_effect": 2}})).spreads == {}, "another question"
    longer = asking({"norm": NORM, "prior": PRIOR}, {"steps": 160})
    assert read_pilot(longer) == Pilot(), "another sweep of that name"
