"""Fresh seeds: those that a promotion finds, those that it trains, and what a driver that comes back makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from delivered import STEPS, make_sweep_directory, open_journal, report, write
from promotable import TWO_SEEDS, Planted, failing
from trials import tiny

from search.names import Kind
from search.promotion import confirm
from search.tracking.reader import find_sweep, read_curve
from search.tracking.runs import log_evaluation, search_all, sweep_runs_query
from vaegan_core.evaluation import PIXEL_MSE


def replicates(planted: Planted, sweep: str = "id-of-toy") -> list[Any]:
    experiment = planted.client.get_experiment_by_name("planted").experiment_id
    return list(search_all(planted.client, experiment, sweep_runs_query(sweep, Kind.REPLICATE)))


def test_missing_seeds_are_trained_as_runs_below_the_trial_and_only_once(planted: Planted, tmp_path: Path) -> None:
    run_id = planted.trial(planted.sweep(**TWO_SEEDS), 0)
    failed = failing(planted, confirm=False)
    assert failed == {"confirmed": "0 of 2 fresh seeds; not trained (--no-confirm)"}
    said: list[str] = []
    promoted = planted.promote("toy", said)
    assert promoted.version == "1"
    assert any("Training 2 replicates of 12 steps here, about " in line for line in said)
    found = replicates(planted)
    assert {run.data.tags["seed"] for run in found} == {"1000000", "1000001"}
    for run in found:
        assert run.data.tags["mlflow.parentRunId"] == run_id
        assert (run.data.tags["outcome"], run.info.status) == ("completed", "FINISHED")
        assert run.data.params == {"optimizer.autoencoder.lr": "0.001"}
        curve = read_curve(planted.client, run.info.run_id, PIXEL_MSE)
        assert [point.step for point in curve] == [6, 12]
        assert run.data.metrics[f"final/{PIXEL_MSE}"] == curve[-1].value
        assert planted.client.list_artifacts(run.info.run_id, "images")
    [trial] = find_sweep(planted.client, "toy").trials
    values = [run.data.metrics[f"final/{PIXEL_MSE}"] for run in found]
    assert trial.confirmation
    assert trial.confirmation.seeds == "2 of 2 seeds"
    assert trial.confirmed[PIXEL_MSE] == pytest.approx(np.mean(values))
    assert trial.confirmation.half_width[PIXEL_MSE] == pytest.approx(12.706205 * np.std(values, ddof=1) / 2**0.5)
    assert not list((tmp_path / "runs").rglob("checkpoint.safetensors"))
    planted.promote("toy/0", model="other")
    assert len(replicates(planted)) == 2


def test_a_confirmation_that_was_interrupted_goes_on_in_the_same_run(
    planted: Planted, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted.trial(planted.sweep(**TWO_SEEDS), 0)
    calls = []

    def interrupted(*arguments: Any) -> None:
        log_evaluation(*arguments)
        calls.append(arguments)
        if len(calls) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(confirm, "log_evaluation", interrupted)
    with pytest.raises(KeyboardInterrupt):
        planted.promote("toy")
    [begun] = replicates(planted)
    assert (begun.data.tags["outcome"], begun.info.status) == ("interrupted", "KILLED")
    assert planted.promote("toy").version == "1"
    found = replicates(planted)
    assert len(found) == 2
    assert begun.info.run_id in {run.info.run_id for run in found}
    for run in found:
        assert [point.step for point in read_curve(planted.client, run.info.run_id, PIXEL_MSE)] == [6, 12]


def test_replicates_of_the_sweep_itself_count_and_only_the_rest_is_trained(planted: Planted) -> None:
    sweep = planted.sweep(promote={"seeds": 3, "baseline": None})
    run_id = planted.trial(sweep, 0)
    own = planted.trial(sweep, 5)
    planted.tag(own, **{"vaegan.kind": Kind.REPLICATE, "mlflow.parentRunId": run_id})
    config = tiny(frames=str(planted.trained.frames), train__seed=1_000_001)
    planted.client.log_text(own, config.to_yaml(), "config.yaml")
    planted.promote("toy/0")
    assert {run.data.tags.get("seed") for run in replicates(planted)} == {None, "1000000", "1000002"}
    assert find_sweep(planted.client, "toy").trials[0].tags["confirmed"] == "3 of 3 seeds"


def test_a_lost_seed_closes_the_gate(planted: Planted) -> None:
    sweep = planted.sweep(**TWO_SEEDS)
    run_id = planted.trial(sweep, 0)
    for number, outcome in ((1, "completed"), (2, "diverged")):
        own = planted.trial(sweep, number, outcome)
        planted.tag(own, **{"vaegan.kind": Kind.REPLICATE, "mlflow.parentRunId": run_id, "seed": str(number)})
    promoted = planted.promote("toy/0")
    assert {gate.name: gate.words for gate in promoted.failed} == {"confirmed": "only 1 of 2 seeds completed"}


def test_a_trial_whose_parameters_changed_on_the_way_is_not_repeated_without_them(planted: Planted) -> None:
    run_id = planted.trial(planted.sweep(**TWO_SEEDS), 0)
    planted.client.log_metric(run_id, "param/optimizer.autoencoder.lr", 0.002, step=6)
    assert "population based training" in failing(planted)["confirmed"]


# --- Beside the driver ------------------------------------------------------------------------------------------------


def test_a_driver_that_comes_back_neither_undoes_nor_doubles_what_a_promotion_confirmed(
    planted: Planted, tmp_path: Path
) -> None:
    """The journal of a finished sweep; a promotion confirms its trial; then the driver delivers again, with a server
    that may have made runs twice, and then with replicates of its own: as many, and then more."""
    directory = make_sweep_directory(tmp_path / "sweeps", "planted", num_trials=1)
    writer = write(directory, planted.uri)
    writer.finish("")
    journal = open_journal(directory)
    run_id = str(journal.trial(0).run_id)
    client = planted.client
    for key in ("promotion_seeds", "confirmed"):
        client.set_tag(run_id, key, "2" if key == "promotion_seeds" else "2 of 2 seeds")
    client.log_metric(run_id, f"confirmed/{PIXEL_MSE}", 0.5, step=2)
    sweep = client.get_run(run_id).data.tags
    replicate = client.create_run(
        client.get_run(run_id).info.experiment_id,
        tags={
            "vaegan.kind": Kind.REPLICATE,
            "vaegan.sweep": sweep["vaegan.sweep"],
            "vaegan.trial": "0",
            "seed": "1000000",
            "mlflow.parentRunId": run_id,
        },
    ).info.run_id

    def deliver(*numbers: int) -> dict[str, Any]:
        """Replicates that the driver trained since, delivered; the confirmation that MLflow then has."""
        for number in numbers:
            _add_replicate(directory, number)
        again = write(directory, planted.uri)
        again.journal.set_meta("maybe_duplicates", "yes")
        again.finish("")
        assert client.get_run(replicate).info.lifecycle_stage == "active"
        data = client.get_run(run_id).data
        return {"seeds": data.tags["confirmed"], "mean": data.metrics[f"confirmed/{PIXEL_MSE}"]}

    stands = {"seeds": "2 of 2 seeds", "mean": 0.5}
    assert deliver() == stands
    assert deliver(1, 2) == stands, "as many seeds are the same seeds"
    assert deliver(3)["seeds"] == "3 of 3 seeds"
    assert deliver()["mean"] == pytest.approx(0.1 + 1 / 120)


def _add_replicate(directory: Path, number: int) -> None:
    journal = open_journal(directory)
    journal.add_trial(number, {}, "a: 1\n", "confirms trial 0", 0)
    attempt = journal.start_attempt(number)
    journal.start_trial(number, attempt, "a: 1\n", {"host": "h", "device": "d"})
    journal.add_evaluation(number, report(number, STEPS[-1], "completed"))
    journal.end_trial(number, "completed")
    journal.close()
