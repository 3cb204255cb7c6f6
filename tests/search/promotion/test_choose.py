"""Which trial is promoted, and what is refused before any gate."""

from __future__ import annotations

import pytest
from promotable import Planted

from search.commands.promote import promote
from search.names import Kind
from search.promotion.alias import Alias
from search.promotion.choose import choose
from search.tracking.runs import NewRun, create_run


def test_a_sweep_gives_its_recommended_trial_or_the_best_on_an_objective(untrained: Planted) -> None:
    sweep = untrained.sweep()
    for number, (mse, fd) in enumerate(((0.5, 100.0), (0.2, 300.0), (0.1, 900.0))):
        untrained.trial(sweep, number, weights=False, pixel_mse=mse, layout_fd=fd)
    assert choose(untrained.client, "toy").trial.number == 0
    for name in ("val/pixel_mse", "pixel_mse"):
        choice = choose(untrained.client, "toy", name)
        assert (choice.trial.number, choice.why) == (2, "best on val/pixel_mse")
    assert choose(untrained.client, "toy/1").trial.number == 1
    with pytest.raises(ValueError, match=r"--best must name an objective of toy .*did you mean val/pixel_mse\?"):
        choose(untrained.client, "toy", "val/pixel_mes")
    with pytest.raises(ValueError, match="val/ssim is a metric, but no objective of it"):
        choose(untrained.client, "toy", "val/ssim")
    with pytest.raises(ValueError, match="--best chooses among the trials of a sweep"):
        choose(untrained.client, "toy/1", "pixel_mse")
    with pytest.raises(ValueError, match="has no trial 7; its trials: 0 to 2"):
        choose(untrained.client, "toy/7")


def test_the_best_on_an_objective_is_by_its_confirmed_mean_and_lost_no_seed(untrained: Planted) -> None:
    sweep = untrained.sweep()
    runs = [untrained.trial(sweep, number, weights=False, pixel_mse=0.1 + number) for number in range(3)]
    untrained.confirm(runs[0], pixel_mse=(5.0, 0.1), layout_fd=(1.0, 0.1))
    untrained.confirm(runs[1], "2 of 3 seeds", pixel_mse=(0.01, 0.1), layout_fd=(1.0, 0.1))
    assert choose(untrained.client, "toy", "pixel_mse").trial.number == 2


def test_a_run_is_named_by_its_id_or_by_a_beginning_of_it_that_no_other_has(untrained: Planted) -> None:
    sweep = untrained.sweep()
    ids = [untrained.trial(sweep, number, weights=False) for number in range(2)]
    assert choose(untrained.client, ids[1]).trial.number == 1
    length = next(n for n in range(4, 32) if ids[0][:n] != ids[1][:n] and ids[1][:n] != sweep[:n])
    assert choose(untrained.client, ids[1][:length]).trial.number == 1
    with pytest.raises(ValueError, match=f"there is no run {'0' * 32} at sqlite"):
        choose(untrained.client, "0" * 32)
    with pytest.raises(ValueError, match=r"no sweep named tyo .*did you mean toy\?"):
        choose(untrained.client, "tyo")
    with pytest.raises(ValueError, match="no sweep named 00000000"):
        choose(untrained.client, "00000000")


def test_a_beginning_of_several_ids_is_refused(untrained: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = untrained.sweep()
    runs = [untrained.client.get_run(untrained.trial(sweep, number, weights=False)) for number in range(2)]
    monkeypatch.setattr("search.promotion.choose.runs_beginning", lambda *_, **__: runs)
    with pytest.raises(ValueError, match="abcd is the beginning of more than one run's id"):
        choose(untrained.client, "abcd")


def test_runs_that_are_no_trial_of_a_sweep_are_refused_each_in_its_words(untrained: Planted) -> None:
    sweep = untrained.sweep()
    trial = untrained.trial(sweep, 0, weights=False)
    experiment = untrained.client.get_run(sweep).info.experiment_id
    below = {
        kind: create_run(untrained.client, experiment, NewRun(kind, "x", parent=trial))
        for kind in (Kind.REPLICATE, Kind.RERUN)
    }
    for kind, run_id in below.items():
        with pytest.raises(ValueError, match=f"is a {kind} of run {trial}; promote that one"):
            choose(untrained.client, run_id)
    with pytest.raises(ValueError, match="is the sweep toy itself; promote it by its name"):
        choose(untrained.client, sweep)
    alone = create_run(untrained.client, experiment, NewRun(Kind.TRIAL, "alone"))
    with pytest.raises(ValueError, match="is no trial of a sweep, so it has no baselines"):
        choose(untrained.client, alone)


def test_a_run_of_an_earlier_sweep_of_the_same_name_belongs_to_that_one(untrained: Planted) -> None:
    first = untrained.sweep()
    old = untrained.trial(first, 0, weights=False)
    second = untrained.sweep()
    untrained.tag(second, **{"vaegan.sweep": "id-of-second"})
    assert choose(untrained.client, old).sweep.run_id == first


def test_a_sweep_that_runs_is_empty_or_has_only_diverged_trials_is_refused(untrained: Planted) -> None:
    running = untrained.sweep("running", status="RUNNING")
    untrained.trial(running, 0, weights=False)
    with pytest.raises(ValueError, match=r"running is still running.*vaegan stop running.*running/NUMBER"):
        choose(untrained.client, "running")
    assert choose(untrained.client, "running/0").trial.number == 0
    untrained.sweep("empty")
    with pytest.raises(ValueError, match="no trial of empty has begun, so there is nothing to promote"):
        choose(untrained.client, "empty")
    with pytest.raises(ValueError, match="sweep empty has no trial 0; none has begun"):
        choose(untrained.client, "empty/0")
    bad = untrained.sweep("bad")
    for number, outcome in enumerate(("diverged", "diverged", "failed")):
        untrained.trial(bad, number, outcome)
    with pytest.raises(ValueError, match=r"no trial of bad reached full fidelity \(2 diverged, 1 failed\)"):
        choose(untrained.client, "bad")
    wrong = untrained.sweep("wrong")
    untrained.tag(untrained.trial(wrong, 0, weights=False), feasible="false")
    with pytest.raises(ValueError, match="every completed trial of wrong violates a constraint"):
        choose(untrained.client, "wrong")


def test_a_rollback_by_a_run_is_of_the_model_of_its_sweep(
    untrained: Planted, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It looked for a model named after the run's id, and so asked for --model."""
    trial = untrained.trial(untrained.sweep(), 0, weights=False)
    untrained.client.create_registered_model("vaegan-toy")
    alias = Alias(untrained.client, "vaegan-toy", "champion")
    for version in ("1", "2"):
        untrained.client.create_model_version("vaegan-toy", "s3://nowhere/model")
        with alias.claimed() as to:
            to(version)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", untrained.uri)
    for target in (trial, trial[:8], "toy/0", "toy"):
        promote(target, rollback=True, dry_run=True)
        assert "of vaegan-toy would go back from version 2 to version 1." in capsys.readouterr().out
    with pytest.raises(ValueError, match=f"there is no run {'0' * 32} at sqlite"):
        promote("0" * 32, rollback=True)
    for name in ("abcd", "deleted"):
        with pytest.raises(ValueError, match=f"there is no registered model vaegan-{name}; models there: vaegan-toy"):
            promote(name, rollback=True)
    untrained.sweep(trial[:8])
    with pytest.raises(ValueError, match=f"there is no registered model vaegan-{trial[:8]}"):
        promote(trial[:8], rollback=True)
