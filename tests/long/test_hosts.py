"""A sweep from a laptop on a cluster of real hosts that share no directory: hosts are lost, and cables pulled."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import ADDRESS, BUCKET, MLFLOW, SERVER, VAEGAN, Hosts, hosts_up, wait_for, why_not
from source_tree import ROOT
from sweep_files import NAME, prepare_steady

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(bool(why_not()), reason=why_not() or "there can be hosts"),
    pytest.mark.hosts,
]

CUT_SECONDS = 90.0
"""Ray declares a host dead after some 25 to 60 seconds."""
CLUSTER = f"--cluster {SERVER}"
SIX = {"base__train__steps": 200, "budget__trials": 6}
CHECK = """
import sys
sys.path.insert(0, "ROOT/tests/support")
from pathlib import Path
from search.storage.shipping import restore
from search.storage.store import Store
from stores import assert_agreement, open_stores
path = Path("runs/sweeps/NAME/journal.db")
restore(Store("BUCKET"), "sweeps/NAME", path)
stores = open_stores(Path.cwd(), name="NAME", uri="MLFLOW")
assert_agreement(stores)
db = stores.journal.db
print("mismatches", db.execute("SELECT COALESCE(SUM(mismatches), 0) FROM attempts").fetchone()[0])
for row in db.execute("SELECT trial, attempt, from_step, cause, json_extract(environment, '$.host') FROM attempts"):
    print("attempt", *row)
for row in db.execute("SELECT number, outcome, step FROM trials"):
    print("trial", *row)
"""
"""Run on a host that has nothing of the sweep but the storage and MLflow."""
SAVED = (
    "from search.storage.store import Store; keys = Store('{}').keys('sweeps/{}/trials'); "
    "print(len({{key.split('/')[3] for key in keys}}))"
)
"""Prints of how many trials there are files."""


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    with hosts_up(tmp_path_factory.mktemp("hosts")) as found:
        yield found


def check(hosts: Hosts, name: str) -> list[list[str]]:
    """Its attempts by word, once journal, Optuna and MLflow are found to agree on six completed trials."""
    script = CHECK
    for word, value in {"ROOT": str(ROOT), "NAME": name, "BUCKET": BUCKET, "MLFLOW": MLFLOW}.items():
        script = script.replace(word, value)
    folder = f"mkdir -p check-{name} && cd check-{name}"
    found = hosts.on("store", f"{folder} && PYTHONPATH={ROOT} python - <<'END'\n{script}\nEND")
    lines = [line.split() for line in found.splitlines()]
    assert [line[2] for line in lines if line[:1] == ["trial"]] == ["completed"] * 6
    assert ["mismatches", "0"] in lines, "what was repeated has the same values"
    return [line for line in lines if line[:1] == ["attempt"]]


@pytest.mark.timeout(600)
def test_a_node_that_cannot_use_the_storage_is_named_and_left_out(
    hosts: Hosts, frame_set_dir: Path, tmp_path: Path
) -> None:
    assert "2 nodes of 2 can run trials." in hosts.on("lap", f"{VAEGAN} doctor {CLUSTER} --storage {BUCKET}")
    hosts.on("w1", "ray stop --force", check=False)
    hosts.start_worker("w1", {"AWS_ENDPOINT_URL_S3": "http://10.77.0.99:9000"})
    try:
        said = hosts.on("lap", f"{VAEGAN} doctor {CLUSTER} --storage {BUCKET}", check=False)
        [line] = [line for line in said.splitlines() if line.startswith("w1 (10.77.0.11): ")]
        assert "cannot use the storage: " in line
        path, log = prepare_steady(tmp_path / "lap", frame_set_dir, **SIX), tmp_path / "sweep.log"
        words = f"sweep {path} {CLUSTER} --storage {BUCKET} --set name=unfit --set budget.trials=1"
        hosts.on("lap", f"{VAEGAN} {words} > {log}")
        assert "Left out: w1 (10.77.0.11): cannot use the storage" in log.read_text()
        assert "Up to 1 trial at a time" in log.read_text()
        assert "Traceback" not in log.read_text() + said
    finally:
        hosts.on("w1", "ray stop --force", check=False)
        hosts.start_worker("w1")


@pytest.mark.timeout(900)
def test_a_host_whose_environment_breaks_is_left_out_and_no_trial_pays(
    hosts: Hosts, frame_set_dir: Path, tmp_path: Path
) -> None:
    hosts.restart_worker("w2", {"PYTHONPATH": "/srv/site"})
    path, log = prepare_steady(tmp_path / "lap", frame_set_dir, **SIX), tmp_path / "sweep.log"
    running = hosts.begin("lap", f"{VAEGAN} sweep {path} {CLUSTER} --storage {BUCKET} --set name=broken", log)
    try:
        saved = f'PYTHONPATH={ROOT} python -c "{SAVED.format(BUCKET, "broken")}"'
        wait_for(lambda: hosts.on("store", saved).strip() == "2", "states of two trials")
        hosts.hide_package("w2", "obstore")
        hosts.on("w2", "pkill -9 -f ^ray::ImplicitFunc")
        assert running.wait(timeout=600) == 0, log.read_text()
    finally:
        running.kill()
        hosts.on("w2", "rm -r site")
        hosts.restart_worker("w2")
    said = log.read_text()
    assert f"Left out: w2 ({ADDRESS['w2']}): cannot run our code (" in said
    assert "No module named 'obstore'); install what constraints.txt pins there" in said
    assert "Without it, 1 host now, for up to 1 trial at a time." in said
    causes = [" ".join(line[4:-1]) for line in check(hosts, "broken")]
    assert sorted(set(causes)) == ["", "died", "node lost"]
    assert causes.count("died") == 1, "the worker that was killed"


@pytest.mark.timeout(900)
def test_a_sweep_from_a_laptop_outlives_a_host_and_the_laptops_cable(
    hosts: Hosts, frame_set_dir: Path, tmp_path: Path
) -> None:
    path, log = prepare_steady(tmp_path / "lap", frame_set_dir, **SIX), tmp_path / "sweep.log"
    hosts.begin("lap", f"{VAEGAN} sweep {path} {CLUSTER} --storage {BUCKET}", log)
    saved = f'PYTHONPATH={ROOT} python -c "{SAVED.format(BUCKET, NAME)}"'
    wait_for(lambda: hosts.on("store", saved).strip() == "2", "states of two trials")
    shutil.rmtree(tmp_path / "lap")
    hosts.cut("lap")
    hosts.cut("w2")  # its trial trains on, and is begun again elsewhere
    hosts.off("w1")
    hosts.boot("w1")
    hosts.give_token("w1", hosts.on("head", "cat ~/.ray/auth_token").strip())
    hosts.start_worker("w1")
    time.sleep(CUT_SECONDS)
    hosts.join("w2")
    hosts.restart_worker("w2")
    hosts.join("lap")
    said = hosts.on("lap", f"{VAEGAN} attach {NAME} {CLUSTER}", timeout=600)
    assert "Best: trial" in said
    assert "The report is report.html of the sweep's run in MLflow." in said
    assert f"  MLFLOW_TRACKING_URI={MLFLOW} vaegan promote {NAME}\n" in said
    assert "Traceback" not in said
    assert "(raylet)" not in said
    for host, verb in (("w1", "left"), ("w1", "joined"), ("w2", "left")):
        assert f"{host} ({ADDRESS[host]}) {verb} the cluster; " in said
    assert re.search(r"Trial \d goes on from step [1-9]\d* on w[12]\.", said)
    attempts = check(hosts, NAME)
    lost = {line[-1] for line in attempts if "node lost" in " ".join(line)}
    assert lost == {"w1", "w2"}, "each ran a trial when it was lost"


@pytest.mark.timeout(900)
def test_a_sweep_goes_on_with_another_head_when_its_head_and_disk_are_lost(
    hosts: Hosts, frame_set_dir: Path, tmp_path: Path
) -> None:
    path, log = prepare_steady(tmp_path / "lap", frame_set_dir, **SIX), tmp_path / "sweep.log"
    following = hosts.begin(
        "lap", f"{VAEGAN} sweep {path} {CLUSTER} --storage {BUCKET} --set name=headless --set base.train.steps=400", log
    )
    wait_for(lambda: " completed, " in log.read_text(), "the end of a trial")
    hosts.off("head")
    following.kill()
    hosts.boot("head")
    for host in ("w1", "w2"):
        hosts.on(host, "ray stop --force", check=False)
    hosts.start_head()
    for host in ("w1", "w2"):
        hosts.start_worker(host)
    said = hosts.on("lap", f"{VAEGAN} resume headless {CLUSTER} --storage {BUCKET}", timeout=600)
    assert f"The journal was restored from {BUCKET}" in said
    assert "will resume from checkpoints" in said
    assert "Best: trial" in said
    attempts = check(hosts, "headless")
    assert len(attempts) > 6
