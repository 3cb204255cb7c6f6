"""Sweeps that are killed, interrupted or lose a worker, on real Ray with real trials: nothing lost, nothing twice."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest
from drivers import is_worker, kill_tree, start, steps_done, wait_until
from servers import MlflowServer
from stores import assert_agreement, open_stores
from sweep_files import NAME, prepare, vaegan

from search.journal.journal import Journal

pytestmark = pytest.mark.long


@pytest.mark.timeout(600)
def test_a_driver_killed_twice_and_resumed_ends_as_if_nothing_had_happened(frame_set_dir: Path, tmp_path: Path) -> None:
    prepare(tmp_path, frame_set_dir)
    process = start(tmp_path, "sweep", "sweep.yaml")
    wait_until(lambda journal: steps_done(journal) >= 60, tmp_path, process)
    kill_tree(process, tmp_path)
    process = start(tmp_path, "resume", NAME)
    wait_until(lambda journal: steps_done(journal) >= 200, tmp_path, process)
    kill_tree(process, tmp_path)
    done = vaegan(tmp_path, "resume", NAME)
    assert "will resume from checkpoints" in done.stdout
    stores = open_stores(tmp_path)
    assert_agreement(stores)
    resumed = [number for number in range(8) if len(_attempts(stores.journal, number)) > 1]
    assert resumed, "the kills interrupted no trial, so this showed nothing"
    # What a resumed trial computed is what it computes uninterrupted.
    number = next((n for n in resumed if stores.run.trials[n].outcome != "diverged"), resumed[0])
    assert "Identical" in vaegan(tmp_path, "rerun", stores.run.trials[number].run_id).stdout


def _attempts(journal: Journal, trial: int) -> list[int]:
    rows = journal.db.execute("SELECT attempt FROM attempts WHERE trial = ? ORDER BY attempt", (trial,))
    return [row[0] for row in rows]


@pytest.mark.timeout(400)
def test_ctrl_c_stops_cleanly_and_resume_goes_on(frame_set_dir: Path, tmp_path: Path) -> None:
    prepare(tmp_path, frame_set_dir)
    process = start(tmp_path, "sweep", "sweep.yaml")
    wait_until(lambda journal: steps_done(journal) >= 60, tmp_path, process)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=90) == 130
    assert f"vaegan resume {NAME}" in (tmp_path / "log.txt").read_text()
    stores = open_stores(tmp_path)
    outcomes = {record.number: record.outcome for record in stores.journal.trials()}
    assert "interrupted" in outcomes.values()
    assert "running" not in outcomes.values()
    for run in stores.run.trials:
        assert run.outcome == outcomes[run.number]
        assert stores.client.get_run(run.run_id).info.status != "RUNNING"
    vaegan(tmp_path, "resume", NAME)
    assert_agreement(open_stores(tmp_path))


@pytest.mark.timeout(400)
def test_a_killed_worker_costs_one_attempt_and_no_point(frame_set_dir: Path, tmp_path: Path) -> None:
    prepare(tmp_path, frame_set_dir)
    process = start(tmp_path, "sweep", "sweep.yaml")
    wait_until(lambda journal: steps_done(journal) >= 40, tmp_path, process)
    workers = [p for p in psutil.Process(process.pid).children(recursive=True) if is_worker(p)]
    assert workers, "found no worker process to kill"
    os.kill(workers[0].pid, signal.SIGKILL)
    assert process.wait(timeout=250) == 0, (tmp_path / "log.txt").read_text()
    stores = open_stores(tmp_path)
    assert_agreement(stores)
    assert sum(len(stores.journal.failures(number)) for number in range(8)) == 1


@pytest.mark.timeout(300)
def test_two_drivers_cannot_run_one_sweep(frame_set_dir: Path, tmp_path: Path) -> None:
    prepare(tmp_path, frame_set_dir)
    process = start(tmp_path, "sweep", "sweep.yaml")
    wait_until(lambda journal: steps_done(journal) >= 20, tmp_path, process)
    second = vaegan(tmp_path, "resume", NAME, check=False)
    assert second.returncode == 2
    assert "another process is running the sweep" in second.stderr
    process.send_signal(signal.SIGINT)
    process.wait(timeout=90)


@pytest.mark.timeout(400)
def test_the_same_sweep_runs_on_a_cluster_of_two_nodes_with_a_storage(
    sqlite_server: MlflowServer, frame_set_dir: Path, tmp_path: Path
) -> None:
    from ray.cluster_utils import Cluster

    os.environ["RAY_AUTH_MODE"] = "disabled"
    # Long enough trials for the second node's first worker to start before the first node has done everything.
    longer = {"base__train__steps": 400, "base__evaluate__every": 100, "scheduler__min_steps": 200}
    prepare(tmp_path, frame_set_dir, **longer, tracking__uri=sqlite_server.uri, tracking__experiment="two nodes")
    (tmp_path / "storage").mkdir()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        words = ("sweep", "sweep.yaml", "--cluster", "auto")
        refused = vaegan(tmp_path, *words, check=False, RAY_ADDRESS=cluster.address)
        assert "the cluster has 2 hosts, which must all reach the sweep's files" in refused.stderr
        done = vaegan(tmp_path, *words, "--storage", str(tmp_path / "storage"), RAY_ADDRESS=cluster.address)
    finally:
        cluster.shutdown()
        del os.environ["RAY_AUTH_MODE"]
    assert "Up to 2 trials at a time" in done.stdout
    stores = open_stores(tmp_path, uri=sqlite_server.uri)
    assert_agreement(stores)
    nodes = {stores.journal.environment(record.number)["node"] for record in stores.journal.trials()}
    assert len(nodes) == 2, "both nodes must have trained something"


@pytest.mark.timeout(120)
def test_an_address_where_no_cluster_is_gives_one_clear_error(frame_set_dir: Path, tmp_path: Path) -> None:
    prepare(tmp_path, frame_set_dir)
    by_address = vaegan(tmp_path, "sweep", "sweep.yaml", "--cluster", "127.0.0.1:6399", check=False)
    assert by_address.returncode == 2
    assert "use --cluster http://127.0.0.1:8265" in by_address.stderr
    there = vaegan(tmp_path, "sweep", "sweep.yaml", "--cluster", "auto", check=False, RAY_ADDRESS="127.0.0.1:6399")
    assert there.returncode in (1, 2)
    assert there.stderr.count("Error: ") == 1
    assert "Traceback" not in there.stderr + by_address.stderr
