"""The gates, on numbers whose verdict is known."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest

from search.promotion import gates
from search.promotion.gates import Estimate, Gate, margin
from search.standings.candidates import Confirmation
from search.standings.scales import Scales
from search.tracking.reader import TrialRun
from vaegan_core.evaluation import LAYOUT_FD, PIXEL_MSE

OBJECTIVES = (PIXEL_MSE, LAYOUT_FD)
SCALES = Scales.of({"mean_color_mse": 0.2, "mean_color_layout_fd": 101.0, "floor_layout_fd": 1.0}, OBJECTIVES)


def trial(
    samples: dict[str, list[float]] | None = None, tags: dict[str, str] | None = None, **final: float
) -> TrialRun:
    """A completed trial with these values over fresh seeds, and its own final ones."""
    metrics = {f"final/val/{key}": value for key, value in final.items()}
    confirmed: dict[str, str] = {}
    if samples:
        count = len(next(iter(samples.values())))
        found = Confirmation.of(
            [{key: sample[index] for key, sample in samples.items()} for index in range(count)], count, list(samples)
        )
        metrics |= {f"confirmed/{key}": value for key, value in found.mean.items()}
        metrics |= {f"confirmed_half_width/{key}": value for key, value in found.half_width.items()}
        confirmed = {"confirmed": found.seeds}
    return TrialRun("r", 0, "completed", {}, metrics | {"final/step": 480.0}, confirmed | (tags or {}))


def test_a_refused_diagnosis_fails_and_an_undecided_one_is_said() -> None:
    wanted = ("posterior_collapse", "mode_collapse")
    assert not gates.diagnoses(trial(tags={"mode_collapse": "true"}), wanted).passed
    undecided = gates.diagnoses(trial(tags={"mode_collapse": "false"}), wanted)
    assert undecided.passed
    assert "undecided: posterior_collapse" in undecided.words
    assert gates.diagnoses(trial(tags={"mode_collapse": "true"}), ()).passed


@pytest.mark.parametrize(
    ("mse", "fd", "objectives", "share", "passed"),
    [
        (0.1, 50.0, OBJECTIVES, 1.0, True),
        (0.43, 50.0, OBJECTIVES, 1.0, False),
        (0.1, 150.0, OBJECTIVES, 1.0, False),
        (0.1, 150.0, (PIXEL_MSE,), 1.0, True),
        (0.11, 50.0, OBJECTIVES, 0.5, False),
        (0.43, 150.0, OBJECTIVES, None, True),
    ],
)
def test_a_model_that_a_trivial_picture_beats_fails(
    mse: float, fd: float, objectives: tuple[str, ...], share: float | None, passed: bool
) -> None:
    gate = gates.baseline({PIXEL_MSE: mse, LAYOUT_FD: fd}, objectives, SCALES, share)
    assert gate.passed == passed
    if share is not None:
        assert f"{PIXEL_MSE} {mse / 0.2:.0%}" in gate.words


def test_confirmed_needs_all_of_the_seeds_and_none_lost() -> None:
    def judge(completed: int, ended: int, wanted: int = 3) -> Gate:
        return gates.confirmed(Confirmation(completed, ended, {}, {}), wanted, "why")

    assert judge(3, 3).passed
    assert judge(5, 5).passed
    assert not judge(2, 3).passed
    assert not judge(2, 2).passed
    assert not judge(2, 2).run
    assert gates.confirmed(None, 0, "").passed
    assert "0 of 3 fresh seeds; why" in gates.confirmed(None, 3, "why").words


@pytest.mark.parametrize(
    ("now", "moved", "passed"),
    [
        ({PIXEL_MSE: 0.1, LAYOUT_FD: 5.0}, "", True),
        ({PIXEL_MSE: 0.1 + 1e-12, LAYOUT_FD: 5.0}, "", False),
        ({PIXEL_MSE: 0.1 + 1e-12, LAYOUT_FD: 5.0}, "device b instead of a", True),
        ({PIXEL_MSE: 0.1009, LAYOUT_FD: 4.96}, "device b instead of a", True),
        ({PIXEL_MSE: 0.1, LAYOUT_FD: 4.94}, "device b instead of a", False),
        ({PIXEL_MSE: 0.1 + 1e-12, LAYOUT_FD: math.nan}, "device b instead of a", False),
        ({PIXEL_MSE: math.nan, LAYOUT_FD: 5.0}, "", False),
        ({PIXEL_MSE: 0.1 + 1e-12}, "device b instead of a", False),
    ],
)
def test_the_logged_values_come_out_bit_for_bit_or_elsewhere_within_the_tolerance(
    now: dict[str, float], moved: str, passed: bool
) -> None:
    gate = gates.reproduces(now, {PIXEL_MSE: 0.1, LAYOUT_FD: 5.0}, OBJECTIVES, moved, 0.01)
    assert gate.passed == passed


def test_weights_that_nobody_tagged_are_not_known_and_others_cannot_be_forced() -> None:
    assert gates.weights("ab", "ab").passed
    assert gates.weights("ab", None).forcible
    assert not gates.weights("ab", None).passed
    exchanged = gates.weights("ab", "cd")
    assert not exchanged.passed
    assert not exchanged.forcible


# --- Against the holder -----------------------------------------------------------------------------------------------


def test_the_margin_is_welch_s() -> None:
    """Against scipy's own test at the edge: two means exactly a margin apart have p = 0.05."""
    from scipy import stats

    first, second = [1.0, 1.2, 1.5], [2.0, 2.1, 2.9, 2.2]
    estimates = [Estimate.of(trial({PIXEL_MSE: sample}, pixel_mse=0.0), PIXEL_MSE) for sample in (first, second)]
    gap = statistics.fmean(second) - statistics.fmean(first)
    shift = margin(*estimates) - gap
    found = stats.ttest_ind([value + shift for value in second], first, equal_var=False)
    assert found.pvalue == pytest.approx(0.05, abs=1e-9)


def verdicts(effect: tuple[float, float], count: int, *, single: bool = False, rule: str = "better") -> float:
    """How often the gate opens for a candidate whose true means are `effect` standard deviations below the holder's."""
    random, opened, draws = np.random.default_rng(0), 0, 300
    for _ in range(draws):
        values = random.normal(size=(4, count))
        ours = {key: list(values[index] - effect[index]) for index, key in enumerate(OBJECTIVES)}
        theirs = {key: list(values[index + 2]) for index, key in enumerate(OBJECTIVES)}
        final = {"pixel_mse": theirs[PIXEL_MSE][0], "layout_fd": theirs[LAYOUT_FD][0]}
        holder = trial(None if single else theirs, **final)
        opened += gates.holder(trial(ours, pixel_mse=0.0, layout_fd=0.0), holder, OBJECTIVES, rule, "1").passed
    return opened / draws


def test_equals_seldom_pass_and_a_clear_difference_nearly_always() -> None:
    assert verdicts((0, 0), 3) < 0.08
    assert verdicts((5, 0), 3) > 0.85
    assert verdicts((5, 5), 3) > 0.95
    assert verdicts((0, 0), 3, single=True) < 0.08
    assert verdicts((0, 0), 3, rule="not_worse") > 0.85


def test_better_on_one_objective_does_not_make_up_for_worse_on_the_other() -> None:
    assert verdicts((5, -5), 3) < 0.08
    assert verdicts((5, -5), 5) < 0.02


def test_single_values_are_compared_without_noise() -> None:
    def judge(ours: float, theirs: float, rule: str = "better") -> bool:
        candidate, holder = (trial(pixel_mse=value, layout_fd=5.0) for value in (ours, theirs))
        return gates.holder(candidate, holder, OBJECTIVES, rule, "1").passed

    assert judge(0.1, 0.2)
    assert not judge(0.2, 0.1)
    assert not judge(0.1, 0.1)
    assert judge(0.1, 0.1, "not_worse")
