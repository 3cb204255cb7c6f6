"""Who is best: the rule, and that journal and MLflow come to the same by it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from delivered import report
from mlflow import MlflowClient
from sweeps import BASELINES, make_sweep

from search.journal.journal import Journal
from search.standings.candidates import Candidate, Confirmation, best_first, on_front
from search.standings.scales import Scales
from search.standings.standings import best_of, standings
from search.tracking.reader import find_sweep
from search.tracking.writer import MlflowWriter
from vaegan_core.evaluation import KL, LAYOUT_FD, PIXEL_MSE, Evaluation

OBJECTIVES = (PIXEL_MSE, LAYOUT_FD)
SCALES = Scales.of(BASELINES, OBJECTIVES)


def values(mse: float, fd: float) -> dict[str, float]:
    return {PIXEL_MSE: mse, LAYOUT_FD: fd}


def test_feasible_ones_come_first_then_confirmed_ones_by_their_confirmed_means() -> None:
    candidates = [
        Candidate(0, values(0.01, 2.0), feasible=False),
        Candidate(1, values(0.04, 5.0)),
        Candidate(2, values(0.02, 3.0)),
        Candidate(3, values(0.03, 4.0), confirmed=values(0.08, 9.0)),
        Candidate(4, values(0.05, 6.0), confirmed=values(0.07, 8.0)),
        Candidate(5, values(0.005, 1.5), feasible=False),
    ]
    assert best_first(candidates, OBJECTIVES, SCALES) == [4, 3, 2, 1, 5, 0]
    assert on_front(candidates, OBJECTIVES) == {2}, "infeasible ones beat nobody"
    assert best_first([], OBJECTIVES, SCALES) == []
    assert on_front(candidates[:1], OBJECTIVES) == set()


def test_a_confirmation_in_words() -> None:
    confirmation = Confirmation(2, 3, {PIXEL_MSE: 0.05123, KL: 7.0}, {PIXEL_MSE: 0.00123, KL: 1.0})
    assert confirmation.in_words() == "val/pixel_mse 0.05123 ± 0.0012, val/kl 7 ± 1 (2 of 3 seeds)"


def test_a_mean_needs_two_seeds() -> None:
    none, one, two = (
        Confirmation.of([values(0.1, 2.0), values(0.3, 4.0)][:count], 3, OBJECTIVES) for count in (0, 1, 2)
    )
    assert none == Confirmation(0, 3, {}, {})
    assert one == Confirmation(1, 3, {}, {})
    assert one.lost
    assert one.in_words() == "only 1 of 3 seeds completed"
    assert two.mean == pytest.approx(values(0.2, 3.0))


def add(journal: Journal, number: int, metrics: dict[str, float], replicate_of: int | None = None) -> None:
    journal.add_trial(number, {}, "a: 1\n", "random", replicate_of)
    attempt = journal.start_attempt(number)
    journal.start_trial(number, attempt, "a: 1\n", {"host": "h", "device": "d"})
    points = report(number, 480).points
    journal.add_evaluation(number, Evaluation(480, "completed", metrics, points))
    journal.end_trial(number, "completed")


DRAWN = [(0.04, 5, 1), (0.01, 2, 20), (0.02, 3.5, 9), (0.03, 4, 3), (0.06, 2.5, 2), (0.02, 3.5, 4), (0.005, 9, 30)]
REPLICATES = [(2, 0.05, 6.0), (2, 0.07, 8.0), (3, 0.04, 4.5), (3, 0.05, 5.5)]


@pytest.mark.parametrize("objectives", [[PIXEL_MSE, LAYOUT_FD], [LAYOUT_FD]])
def test_journal_and_mlflow_put_the_same_sweep_in_the_same_order(tmp_path: Path, objectives: list[str]) -> None:
    sweep = make_sweep(
        objectives=objectives, constraints=["val/kl <= 10"], confirm={"top": 2, "seeds": 3}, budget={"trials": 7}
    )
    journal = Journal.create(
        tmp_path / "toy" / "journal.db",
        id="same",
        sweep=sweep.config.to_yaml(),
        frames="f" * 16,
        baselines=json.dumps(BASELINES),
    )
    for number, (mse, fd, kl) in enumerate(DRAWN):
        add(journal, number, values(mse, fd) | {KL: kl})
    for number, (original, mse, fd) in enumerate(REPLICATES, len(DRAWN)):
        add(journal, number, values(mse, fd) | {KL: 1.0}, original)
    MlflowWriter(sweep, journal, tmp_path / "toy", f"sqlite:///{tmp_path}/mlflow.db").finish("")

    current = standings(sweep, journal)
    run = find_sweep(MlflowClient(f"sqlite:///{tmp_path}/mlflow.db"), "toy")
    order = [trial.number for trial in current.best]
    assert order[:2] == [3, 2], "confirmed ones, by their means"
    assert set(order[-2:]) == {1, 6}, "infeasible ones"
    assert [trial.number for trial in run.ranked] == order
    assert run.hypervolume == current.hypervolume
    assert {trial.number for trial in run.trials if trial.tags["on_front"] == "true"} == current.front
    assert {t.number: t.confirmation for t in run.trials if t.confirmation} == current.confirmations
    assert best_of(sweep, journal, [0, 1, 3, 6])[:2] == [3, 0], "without confirmations; infeasible ones last"
