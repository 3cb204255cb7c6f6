"""What is wrong with a cluster is one line with its remedy, before anything starts; and what leaves its machines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hosts import ADDRESS, BUCKET, ENVIRONMENT, SERVER, VAEGAN, Hosts, hosts_up, why_not
from sweep_files import prepare_steady

from vaegan_core.data.frames import FRAMES_FILE, FrameSet, Source, hash_frames, write_manifest
from vaegan_core.metrics.frame_features import ensure_features

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(bool(why_not()), reason=why_not() or "there can be hosts"),
    pytest.mark.hosts,
]

CLUSTER = f"--cluster {SERVER}"
LEAST_STORE = 78_643_200
"""Ray makes no smaller object store."""
COPIES = 220
CLOCK = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"
MLFLOW_ELSEWHERE = "10.77.0.31"


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    with hosts_up(tmp_path_factory.mktemp("hosts")) as found:
        yield found


@pytest.fixture(scope="module")
def big_frames(frame_set: FrameSet, tmp_path_factory: pytest.TempPathFactory) -> FrameSet:
    """A frame set of 84 MB: more than the smallest object store holds."""
    path = tmp_path_factory.mktemp("big")
    frames = np.concatenate([np.tile(frame_set.train, (COPIES, 1, 1, 1)), frame_set.test])
    count = len(frames) - len(frame_set.test)
    sources = (
        Source(name="a", split="train", start=0, count=count),
        Source(name="b", split="test", start=count, count=len(frame_set.test)),
    )
    np.save(path / FRAMES_FILE, frames)
    write_manifest(path, frame_set.manifest.model_copy(update={"sources": sources, "sha256": hash_frames(frames)}))
    found = FrameSet.open(path)
    assert found.frames.nbytes > LEAST_STORE
    ensure_features(found)
    return found


def one_line(said: str) -> str:
    """The only line, that of an error."""
    [line] = said.splitlines()
    assert line.startswith("Error: ")
    return line


def test_a_cluster_that_lets_nobody_in_says_so_in_one_line(hosts: Hosts) -> None:
    for address, variables, message in (
        (SERVER, "HOME=/srv/nobody", "does not let this machine in: "),
        (SERVER, "RAY_AUTH_TOKEN=wrong", "this machine has another token; put the head's ~/.ray/auth_token here"),
        ("http://hedd:8265", "", "no job server of Ray answers at http://hedd:8265"),
        (f"http://{ADDRESS['store']}:8265", "", "no job server of Ray answers"),
        (f"http://{ADDRESS['store']}:5000", "", "is not Ray's job server; name the head's port 8265"),
        ("head:6379", "", "use --cluster http://head:8265"),
    ):
        said = hosts.on("lap", f"{variables} {VAEGAN} doctor --cluster {address}; echo $?", check=False)
        *rest, code = said.splitlines()
        assert message in one_line("\n".join(rest))
        assert code == "2"
    assert "2 nodes of 2 can run trials." in hosts.on("lap", f"{VAEGAN} doctor --cluster http://head:8265")


@pytest.mark.timeout(600)
def test_what_is_wrong_with_each_node_is_found_before_anything_starts(
    hosts: Hosts, big_frames: FrameSet, tmp_path: Path
) -> None:
    assert Path(CLOCK).is_file(), "Debian: libfaketime"
    assert big_frames.path is not None
    hosts.on("w1", "mkdir -p site/torchvision-0.0.1.dist-info")
    hosts.on("w1", "printf 'Name: torchvision\\nVersion: 0.0.1\\n' > site/torchvision-0.0.1.dist-info/METADATA")
    hosts.hide_package("w2", "obstore")
    hosts.on("store", f"ip addr add {MLFLOW_ELSEWHERE}/24 dev eth0")
    hosts.on("w1", f"ip route add unreachable {MLFLOW_ELSEWHERE}")
    hosts.restart_worker(
        "w1",
        {"PYTHONPATH": "/srv/site", "LD_PRELOAD": CLOCK, "FAKETIME": "+1h"},
        memory=LEAST_STORE,
    )
    hosts.restart_worker("w2", {"PYTHONPATH": "/srv/site"})
    expected = [
        ("w1", "has torchvision 0.0.1, but the driver "),
        ("w1", "its clock is 3,600 s off; have it set by NTP"),
        ("w2", "No module named 'obstore'); install what constraints.txt pins there"),
    ]
    said = hosts.on("lap", f"{VAEGAN} doctor {CLUSTER} --storage {BUCKET}; echo $?", check=False)
    for host, message in expected:
        assert any(line.startswith(f"{host} ({ADDRESS[host]}): ") and message in line for line in said.splitlines()), (
            message,
            said,
        )
    assert said.splitlines()[-2:] == ["0 nodes of 2 can run trials.", "2"]
    path = prepare_steady(tmp_path / "lap", big_frames.path, name="faulty", base__train__steps=20)
    words = f"sweep {path} {CLUSTER} --storage {BUCKET} --set tracking.uri=http://{MLFLOW_ELSEWHERE}:5000"
    swept = hosts.on("lap", f"{VAEGAN} {words}; echo $?", check=False)
    assert "Error: no node of the cluster can run trials:" in swept
    expected += [
        ("w1", "cannot reach MLflow: "),
        ("w1", "its object store has 0.08 GB, but the frames take 0.08; start Ray with "),
    ]
    for host, message in expected:
        assert any(f"{host} ({ADDRESS[host]}): " in line and message in line for line in swept.splitlines()), message
    assert swept.splitlines()[-1] == "2"
    assert "Traceback" not in said + swept


@pytest.mark.timeout(600)
def test_a_directory_that_one_node_can_only_read_or_has_not_is_found(hosts: Hosts, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    hosts.on("w2", f"mount --bind {shared} {shared} && mount -o remount,bind,ro {shared}")
    hosts.restart_worker("w1")
    hosts.restart_worker("w2")
    try:
        said = hosts.on("lap", f"{VAEGAN} doctor {CLUSTER} --storage {shared}", check=False)
        [line] = [line for line in said.splitlines() if line.startswith("w")]
        assert line.startswith(f"w2 ({ADDRESS['w2']}): cannot use the storage: ")
        assert "ead-only file system" in line
        assert "1 node of 2 can run trials." in said
        said = hosts.on("lap", f"{VAEGAN} doctor {CLUSTER} --storage /srv/nowhere", check=False)
        assert "/srv/nowhere is no directory on this machine" in said
        said = hosts.on("lap", f"{VAEGAN} doctor {CLUSTER} --storage s3://nowhere/sweeps", check=False)
        assert "the storage s3://nowhere/sweeps names a bucket that is not there; make it first" in said
        assert "Traceback" not in said
    finally:
        hosts.on("w2", f"umount {shared}")


@pytest.mark.timeout(600)
def test_each_host_is_sent_the_frames_once_and_secrets_and_routes_stay_closed(
    hosts: Hosts, big_frames: FrameSet, tmp_path: Path
) -> None:
    assert big_frames.path is not None
    path = prepare_steady(tmp_path / "lap", big_frames.path, name="counted", base__train__steps=200)
    hosts.on("lap", f"{VAEGAN} sweep {path} {CLUSTER} --storage {BUCKET} --set budget.trials=1")  # brings the frames
    before = {host: np.array(hosts.traffic(host)) for host in ("head", "w1", "w2")}
    said = hosts.on("lap", f"{VAEGAN} sweep {path} {CLUSTER} --storage {BUCKET} --set name=again --set budget.trials=6")
    assert "6 completed" in said
    moved = {host: (hosts.traffic(host) - then) / big_frames.frames.nbytes for host, then in before.items()}
    for host in ("w1", "w2"):
        assert moved[host][0] == pytest.approx(1, rel=0.2), "once, however many trials run there"
    assert moved["head"][1] <= 2 * 1.2, "a host may have them from the other"

    ask = "import sys, requests; print(*[requests.get(sys.argv[1] + r, timeout=9).status_code for r in sys.argv[2:]])"
    closed = ("/api/version", "/api/jobs/", "/nodes", "/metrics", "/logical/actors", "/api/cluster_status")
    assert hosts.on("lap", f'python -c "{ask}" {SERVER} {" ".join(closed)}').split() == ["401"] * len(closed)
    connect = f"import ray; ray.init('{ADDRESS['head']}:6379', log_to_driver=False)"
    refused = hosts.on("w1", f'RAY_AUTH_TOKEN=wrong timeout 60 python -c "{connect}" && echo let in', check=False)
    assert "oken" in refused
    assert "let in" not in refused
    for host in ("head", "w1", "w2", "lap"):
        assert hosts.on(host, "stat -c %a ~/.ray/auth_token").strip() == "600"
    secrets = [ENVIRONMENT["AWS_SECRET_ACCESS_KEY"], hosts.on("head", "cat ~/.ray/auth_token").strip()]
    jobs = hosts.on("lap", f"ray job list --address {SERVER} --log-style record")
    logs = hosts.on("lap", f"ray job logs vaegan-again --address {SERVER}")
    assert "vaegan-again" in jobs
    for secret in secrets:
        assert secret not in jobs + logs + said
        for host in ("head", "w1", "w2"):
            found = hosts.on(host, f"grep -rlF '{secret}' /srv --exclude-dir=.ray", check=False)
            assert found.strip() == "", f"{host}: {found}"
        assert hosts.on("store", f"grep -lF '{secret}' /srv/mlflow.db", check=False).strip() == ""
