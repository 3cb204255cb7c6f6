"""Sweeps to which everything happens at once, on real Ray: each trial is accounted for exactly once."""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from drivers import kill_tree, start, steps_done, wait_until
from pages import page_data
from servers import MlflowServer
from source_tree import ROOT
from stores import Stores, assert_agreement, open_stores
from sweep_files import DIVERGING_LR, NAME, prepare, vaegan

from search.journal.journal import Journal
from search.names import Outcome

pytestmark = pytest.mark.long

FAULTS = Path(__file__).parents[1] / "support" / "faults"
QUICK: dict[str, Any] = {
    "base__train__steps": 40,
    "base__evaluate": {"every": 20, "num_test": 16, "num_samples": 16},
    "scheduler": {"name": "asha", "min_steps": 20, "reduction_factor": 2},
    "sampler": {"name": "random"},
    "points": {},
}
FINE, CRASH, CRASH_ONCE, HANG, OOM, OOM_ONCE = 0.01, 0.02, 0.03, 0.04, 0.05, 0.06


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes commands started by the test run into the faults of faults/sitecustomize.py."""
    (tmp_path / "marks").mkdir()
    monkeypatch.setenv("PYTHONPATH", f"{FAULTS}{os.pathsep}{ROOT}")
    monkeypatch.setenv("VAEGAN_FAULTS", str(tmp_path / "marks"))
    return tmp_path


def space(faults: list[float], lrs: list[float]) -> dict[str, Any]:
    return {
        "optimizer.autoencoder.lr": lrs,
        "loss.feature.recon": {"low": 0.03, "high": 1.0, "log": True},
        "loss.generator.prior": faults,
        "loss.kl": {"one_of": {"fixed": {"sigma": {"low": 0.05, "high": 0.6, "log": True}}}},
    }


def points_of(faults: list[float]) -> dict[str, Any]:
    """A named point for each fault, which all else is well with."""
    well = {"optimizer.autoencoder.lr": 1e-3, "loss.kl.control": "fixed"}
    return {f"p{index}": well | {"loss.generator.prior": fault} for index, fault in enumerate(faults)}


def fault_of(stores: Stores, number: int) -> float:
    return float(stores.journal.trial(number).params["loss.generator.prior"])


def causes(stores: Stores, number: int) -> list[str]:
    return [attempt.cause for attempt in stores.journal.attempts(number)]


@pytest.mark.timeout(2400)
def test_sixty_trials_of_which_a_third_crash_or_diverge_with_drivers_killed_eight_times(
    frame_set_dir: Path, faulty: Path
) -> None:
    prepare(
        faulty,
        frame_set_dir,
        **QUICK | {"budget": {"trials": 60}, "sampler": {"name": "qmc"}, "scheduler": {"name": "none"}},
        space=space([FINE, FINE + 0.001, FINE + 0.002, CRASH, CRASH_ONCE], [3e-4, 1e-3, 3e-3, DIVERGING_LR]),
    )
    moments = random.Random(0)
    process = start(faulty, "sweep", "sweep.yaml")
    for _ in range(8):
        before = 0 if not (faulty / "runs/sweeps").exists() else _steps(faulty)
        wait_until(lambda journal, before=before: steps_done(journal) > before, faulty, process)
        time.sleep(moments.uniform(0, 6))
        if process.poll() is not None:
            break
        kill_tree(process, faulty)
        process = start(faulty, "resume", NAME)
    assert process.wait(timeout=600) == 0, (faulty / "log.txt").read_text()
    stores = open_stores(faulty)
    assert_agreement(stores)
    outcomes = Counter(record.outcome for record in stores.journal.trials())
    assert outcomes[Outcome.FAILED] + outcomes[Outcome.DIVERGED] >= 20, outcomes
    assert outcomes[Outcome.FAILED] >= 5, outcomes
    for record in stores.journal.trials():
        if record.outcome == "failed":
            assert fault_of(stores, record.number) == CRASH
            assert causes(stores, record.number).count("crashed") == 2, "retried once as the same trial"
        elif fault_of(stores, record.number) == CRASH:
            assert record.outcome == "diverged", "it ended before its fault"


def _steps(directory: Path) -> int:
    journal = Journal(directory / "runs" / "sweeps" / NAME / "journal.db")
    try:
        return steps_done(journal)
    finally:
        journal.close()


@pytest.mark.timeout(600)
def test_workers_that_are_slow_to_end_cost_no_trial_and_no_slot(frame_set_dir: Path, tmp_path: Path) -> None:
    prepare(tmp_path, frame_set_dir, **QUICK | {"budget": {"trials": 6}, "scheduler": {"name": "none"}})
    patience = {"TUNE_FUNCTION_THREAD_TIMEOUT_S": "0"}  # as on a machine with more to do than it has cores
    done = vaegan(tmp_path, "sweep", "sweep.yaml", **patience)
    assert "Trainable runner reuse" not in done.stdout + done.stderr
    stores = open_stores(tmp_path)
    assert_agreement(stores)
    found = [cause for number in range(6) for cause in causes(stores, number)]
    assert found.count("stopped") >= 1, "no worker was too slow, so this showed nothing"
    assert set(found) == {"", "stopped"}


@pytest.mark.timeout(600)
def test_a_trial_that_hangs_is_ended_and_says_where_it_hung(frame_set_dir: Path, faulty: Path) -> None:
    faults = [HANG, FINE, CRASH_ONCE]
    prepare(
        faulty,
        frame_set_dir,
        **QUICK | {"points": points_of(faults), "budget": {"trials": 3}, "scheduler": {"name": "none"}},
        space=space(faults, [1e-3]),
        evaluation_minutes=0.8,
    )
    vaegan(faulty, "sweep", "sweep.yaml", timeout=400)
    stores = open_stores(faulty)
    assert_agreement(stores)
    assert [record.outcome for record in stores.journal.trials()] == ["failed", "completed", "completed"]
    assert stores.journal.trial(0).reason == "Hung: no evaluation within 0.8 minutes"
    assert causes(stores, 0) == ["hung", "hung"]
    assert "faulty_step" in stores.journal.failures(0)[0].error
    assert causes(stores, 2) == ["crashed", ""]


@pytest.mark.timeout(600)
def test_memory_that_runs_out_is_tried_again_alone_on_a_gpu(frame_set_dir: Path, faulty: Path) -> None:
    from ray.cluster_utils import Cluster

    faults = [OOM, OOM_ONCE, FINE]
    prepare(
        faulty,
        frame_set_dir,
        **QUICK | {"points": points_of(faults), "budget": {"trials": 3}, "scheduler": {"name": "none"}},
        base__train__device="cpu",
        space=space(faults, [1e-3]),
        resources={"cpu": 1, "gpu": 0.5},
        retries=0,
    )
    os.environ["RAY_AUTH_MODE"] = "disabled"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 1, "include_dashboard": False})
    try:
        vaegan(faulty, "sweep", "sweep.yaml", "--cluster", "auto", timeout=400, RAY_ADDRESS=cluster.address)
    finally:
        cluster.shutdown()
        del os.environ["RAY_AUTH_MODE"]
    stores = open_stores(faulty)
    assert_agreement(stores)
    assert [record.outcome for record in stores.journal.trials()] == ["failed", "completed", "completed"]
    attempts = [[(a.cause, bool(a.alone)) for a in stores.journal.attempts(number)] for number in range(2)]
    assert attempts[0] == [("out of memory", False), ("out of memory", True)]
    assert attempts[1] == [("out of memory", False), ("", True)]
    run = stores.run.trials[0]
    assert stores.client.get_run(run.run_id).info.status == "FAILED"
    assert "error.txt" in {item.path for item in stores.client.list_artifacts(run.run_id)}


@pytest.mark.timeout(600)
def test_the_loss_of_a_node_costs_no_failure_and_leaves_no_gap(
    sqlite_server: MlflowServer, frame_set_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.cluster_utils import Cluster

    os.environ["RAY_AUTH_MODE"] = "disabled"
    prepare(
        tmp_path,
        frame_set_dir,
        base__train__steps=400,
        base__evaluate__every=50,
        scheduler={"name": "none"},
        points={},
        space=space([FINE], [1e-3]),
        budget={"trials": 4},
        retries=0,
        storage=str(tmp_path),
        tracking__uri=sqlite_server.uri,
    )
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    try:
        second = cluster.add_node(num_cpus=1)
        process = start(tmp_path, "sweep", "sweep.yaml", "--cluster", "auto")
        wait_until(lambda journal: bool(_far_trial(journal, second.node_id)), tmp_path, process)
        cluster.remove_node(second, allow_graceful=False)
        assert process.wait(timeout=400) == 0, (tmp_path / "log.txt").read_text()
    finally:
        cluster.shutdown()
        del os.environ["RAY_AUTH_MODE"]
    stores = open_stores(tmp_path, uri=sqlite_server.uri)
    assert_agreement(stores)
    assert [record.outcome for record in stores.journal.trials()] == ["completed"] * 4
    lost = [record.number for record in stores.journal.trials() if "node lost" in causes(stores, record.number)]
    assert len(lost) == 1
    assert stores.journal.failures(lost[0]) == []
    run_id = stores.run.trials[lost[0]].run_id
    assert "Identical" in vaegan(tmp_path, "rerun", run_id, MLFLOW_TRACKING_URI=sqlite_server.uri).stdout


def _far_trial(journal: Journal, node: str) -> list[int]:
    """Trials that are on the way on that node."""
    running = [record for record in journal.trials("running") if record.step >= 50]
    return [record.number for record in running if journal.environment(record.number).get("node") == node]


@pytest.mark.timeout(600)
def test_a_full_disk_is_one_clear_error_and_nothing_is_lost(
    frame_set_dir: Path, faulty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(faulty, frame_set_dir, **QUICK | {"budget": {"trials": 8}}, space=space([FINE], [1e-3]))
    monkeypatch.setenv("VAEGAN_JOURNAL_PAGES", "150")
    done = vaegan(faulty, "sweep", "sweep.yaml", check=False)
    assert done.returncode == 2, done.stdout
    assert "disk is full" in done.stderr
    assert f"vaegan resume {NAME}" in done.stderr
    assert "Traceback" not in done.stderr
    monkeypatch.delenv("VAEGAN_JOURNAL_PAGES")
    vaegan(faulty, "resume", NAME)
    assert_agreement(open_stores(faulty))


@pytest.mark.timeout(900)
def test_a_sweep_is_confirmed_extended_watched_exported_and_taken_up_by_another(
    frame_set_dir: Path, tmp_path: Path
) -> None:
    prepare(
        tmp_path,
        frame_set_dir,
        **QUICK | {"budget": {"trials": 4}},
        space=space([FINE], [1e-3, 3e-3]),
        confirm={"top": 1, "seeds": 2},
        constraints=["val/kl_per_dim <= 100"],
    )
    done = vaegan(tmp_path, "sweep", "sweep.yaml")
    assert "with fresh seeds" in done.stdout
    stores = open_stores(tmp_path)
    assert_agreement(stores)
    assert sum(record.replicate_of is not None for record in stores.journal.trials()) == 2
    best = stores.run.ranked[0]
    assert best.confirmed
    assert best.confirmation
    page = (tmp_path / "runs" / "sweeps" / NAME / "report.html").read_text()
    assert best.confirmation.in_words() in page_data(page)["sweeps"][0]["confirmed"].values()
    promoted = vaegan(tmp_path, "promote", NAME, "--force")  # 80 steps beat no trivial picture
    assert best.confirmation.in_words() in promoted.stdout
    replicates = [record for record in stores.journal.trials() if record.replicate_of is not None]
    for record in replicates:
        tags = stores.client.get_run(record.run_id).data.tags
        assert (tags["mlflow.parentRunId"], tags["vaegan.kind"]) == (best.run_id, "replicate")

    vaegan(tmp_path, "sweep", "sweep.yaml", "--extend", "2")
    stores = open_stores(tmp_path)
    assert stores.sweep.config.budget.trials == 6
    assert_agreement(stores)
    status = json.loads(vaegan(tmp_path, "status", NAME, "--json").stdout)
    assert (status["running"], status["trials"]["budget"]) == (False, 6)
    assert set(status["best"]) == {"val/pixel_mse", "val/layout_fd"}

    study = vaegan(tmp_path, "export", NAME, "-o", "study.db").stdout
    assert "study.db" in study
    import optuna

    exported = optuna.load_study(study_name=NAME, storage=f"sqlite:///{tmp_path}/study.db")
    assert [trial.state for trial in exported.trials] == [trial.state for trial in stores.study.trials]

    done = vaegan(tmp_path, "sweep", "sweep.yaml", "--set", "name=second", "--warm-start", NAME)
    assert f"completed trials of {NAME} lie in the space" in done.stdout
    second = open_stores(tmp_path, "second")
    completed = sum(record.outcome == "completed" for record in stores.journal.trials())
    assert len(second.study.trials) == len(second.journal.trials()) + completed

    other = vaegan(tmp_path, "sweep", "sweep.yaml", "--resume", "--set", "base.train.batch_size=4", check=False)
    assert other.returncode == 2
    assert "base.train.batch_size: 8 then, 4 now" in other.stderr


@pytest.mark.timeout(600)
def test_population_based_training_and_a_stop_from_another_shell(frame_set_dir: Path, tmp_path: Path) -> None:
    prepare(
        tmp_path,
        frame_set_dir,
        base__train__steps=200,
        scheduler={"name": "pbt", "every": 40, "metric": "val/pixel_mse", "quantile": 0.5},
        sampler={"name": "random"},
        points={
            name: {"optimizer.autoencoder.lr": lr, "loss.kl.control": "fixed"}
            for name, lr in (("good", 3e-3), ("bad", 1e-5), ("worse", 2e-6), ("worst", 1e-6))
        },
        space=space([FINE], [1e-6, 2e-6, 1e-5, 3e-3]),
        budget={"trials": 4},
    )
    process = start(tmp_path, "sweep", "sweep.yaml")
    wait_until(lambda journal: steps_done(journal) >= 200, tmp_path, process)
    assert "stops when its running trials" in vaegan(tmp_path, "stop", NAME).stdout
    assert process.wait(timeout=120) == 0
    journal = Journal(tmp_path / "runs" / "sweeps" / NAME / "journal.db")
    assert {record.outcome for record in journal.trials()} <= {"interrupted", "completed"}
    journal.close()
    assert "is not running" in vaegan(tmp_path, "status", NAME).stdout
    vaegan(tmp_path, "resume", NAME)
    stores = open_stores(tmp_path)
    assert_agreement(stores)
    mutations = [m for record in stores.journal.trials() for m in stores.journal.mutations(record.number)]
    assert mutations, "nobody was changed, so this showed nothing"
    assert all("mutated" in causes(stores, mutation.trial) for mutation in mutations)
    curve = f"param/{'optimizer.autoencoder.lr'}"
    assert any(curve in run.metrics for run in stores.run.trials)
    assert not list((tmp_path / "runs" / "sweeps" / NAME / "trials").glob("*/at-*"))
    changed = {mutation.trial for mutation in mutations}
    again = next(record.number for record in stores.journal.trials(Outcome.COMPLETED) if record.number in changed)
    assert "Identical" in vaegan(tmp_path, "rerun", f"{NAME}/{again}").stdout
