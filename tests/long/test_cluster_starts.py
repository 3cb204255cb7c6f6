"""Clusters as SLURM, an autoscaler and `ray up` start them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hosts import ADDRESS, BUCKET, ENVIRONMENT, VAEGAN, Hosts, hosts_without_ray, wait_for, why_not
from source_tree import ROOT
from sweep_files import prepare_steady

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(bool(why_not()), reason=why_not() or "there can be hosts"),
    pytest.mark.hosts,
]

SLURM = ROOT / "search" / "cluster" / "slurm.sbatch"
EMPTY = "cluster_synced_files head_setup_commands head_start_ray_commands initialization_commands rsync_exclude"
EMPTY += " rsync_filter setup_commands worker_setup_commands worker_start_ray_commands"
AUTOSCALED = {
    "cluster_name": "fake",
    "max_workers": 2,
    "provider": {
        "type": "fake_multinode",
        "gcs_address": f"{ADDRESS['head']}:6379",
        "launch_multiple": True,
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
    },
    "available_node_types": {
        "head": {"resources": {}, "node_config": {}, "max_workers": 0},
        "worker": {
            "resources": {"CPU": 1, "object_store_memory": 100_000_000},
            "node_config": {},
            "min_workers": 0,
            "max_workers": 2,
        },
    },
    "head_node_type": "head",
    "upscaling_speed": 1000,
    "idle_timeout_minutes": 0.2,
    "auth": {},
    "file_mounts": {},
    "file_mounts_sync_continuously": False,
} | {name: [] for name in EMPTY.split()}
WORKERS = """
import ray
ray.init("auto", log_to_driver=False, logging_level="ERROR")
print("workers", sum(node["Alive"] and node["Resources"].get("CPU", 0) > 0 for node in ray.nodes()))
"""
SSHD = "mkdir -p /run/sshd; exec /usr/sbin/sshd -D -o PermitRootLogin=yes -o StrictModes=no -o PidFile=none"


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    (tmp_path / "hosts").mkdir()
    with hosts_without_ray(tmp_path / "hosts") as found:
        yield found


@pytest.mark.timeout(600)
def test_the_command_of_the_batch_file_runs_a_sweep_on_three_hosts(
    hosts: Hosts, frame_set_dir: Path, tmp_path: Path
) -> None:
    path, storage = (
        prepare_steady(tmp_path / "sweep", frame_set_dir, base__train__steps=20, budget__trials=4),
        tmp_path / "storage",
    )
    storage.mkdir()
    [command] = re.findall(r"^srun (ray symmetric-run (?:\\\n|.)*)", SLURM.read_text(), re.MULTILINE)
    for word, value in (
        ("$address", ADDRESS["head"]),
        ("$SLURM_NNODES", "3"),
        ("$1", str(path)),
        ("--min-nodes", "--num-cpus=1 --object-store-memory=100000000 --min-nodes"),
    ):
        assert word in command
        command = command.replace(word, value)
    variables = f"export PYTHONPATH={ROOT} RAY_AUTH_TOKEN={'ab' * 32} VAEGAN_STORAGE={storage}"
    logs = {host: tmp_path / f"{host}.log" for host in ("head", "w1", "w2")}
    running = [hosts.begin(host, f"{variables}; {command}", log) for host, log in logs.items()]
    assert [each.wait(timeout=400) for each in running] == [0, 0, 0], logs["head"].read_text()
    said = logs["head"].read_text()
    assert "Up to 3 trials at a time" in said
    assert "4 completed" in said
    assert "Best: trial" in said


@pytest.mark.timeout(600)
def test_an_autoscaler_brings_what_trials_need_and_takes_it_away(
    hosts: Hosts, frame_set_dir: Path, tmp_path: Path
) -> None:
    path, log = (
        prepare_steady(tmp_path / "sweep", frame_set_dir, base__train__steps=200, budget__trials=6),
        tmp_path / "sweep.log",
    )
    (tmp_path / "fake.yaml").write_text(yaml.safe_dump(AUTOSCALED))
    hosts.on("head", "umask 077; ray get-auth-token --generate > /dev/null 2>&1")
    hosts.on(
        "head",
        f"RAY_FAKE_CLUSTER=1 AUTOSCALER_UPDATE_INTERVAL_S=1 ray start --head --node-ip-address={ADDRESS['head']} "
        f"--port=6379 --num-cpus=0 --object-store-memory=100000000 --autoscaling-config={tmp_path}/fake.yaml",
    )

    def workers() -> int:
        found = hosts.on("head", f"python - <<'END'\n{WORKERS}\nEND", check=False)
        return int(found.partition("workers ")[2] or -1)

    assert workers() == 0
    words = f"sweep {path} --cluster auto --storage {BUCKET} --set resources.max_concurrent=2 --set resources.gpu=0"
    running = hosts.begin("head", f"{VAEGAN} {words}", log)
    assert running.wait(timeout=500) == 0, log.read_text()
    said = log.read_text()
    assert "No node can run trials yet; waiting up to 15 minutes for the autoscaler's first." in said
    assert "joined the cluster; 2 hosts now, for up to 2 trials at a time." in said
    assert "6 completed" in said
    wait_for(lambda: workers() == 0, "the end of idle workers", seconds=90)


def of_these_hosts(tree: str) -> str:
    """cluster.yaml, with what a user puts into it, and stores that fit these hosts."""
    text = (ROOT / "cluster.yaml").read_text()
    for word, value in (
        ("192.0.2.10", ADDRESS["head"]),
        ("[192.0.2.11, 192.0.2.12]", f"[{ADDRESS['w1']}, {ADDRESS['w2']}]"),
        ("ssh_user: ubuntu", "ssh_user: root"),
        ("~/.ssh/id_ed25519", "/srv/key"),
        ("/home/ubuntu/", "/srv/home/"),
        ("/opt/vaegan-search", tree),
        ("8000000000", "100000000"),
    ):
        assert word in text
        text = text.replace(word, value)
    return text


@pytest.mark.skipif(not Path("/usr/sbin/sshd").is_file() or not shutil.which("rsync"), reason="needs sshd and rsync")
@pytest.mark.timeout(900)
def test_ray_up_makes_a_cluster_of_machines_that_are_reached_over_ssh(
    hosts: Hosts, frame_set_dir: Path, tmp_path: Path
) -> None:
    path = prepare_steady(tmp_path / "sweep", frame_set_dir, base__train__steps=20, budget__trials=4)
    hosts.on("lap", "ssh-keygen -q -t ed25519 -N '' -f key && mkdir -p .ray")
    hosts.on("lap", "umask 077; ray get-auth-token --generate > /dev/null 2>&1")
    key = hosts.on("lap", "cat key.pub").strip()
    for host in ("head", "w1", "w2"):
        hosts.on(host, "sed 's|:/root:|:/srv/home:|' /etc/passwd > passwd && mount --bind passwd /etc/passwd")
        hosts.on(host, f"mkdir home && touch home/.bashrc && echo '{key}' > authorized_keys")
        variables = {"RAY_TMPDIR": "/srv", "PYTHONPATH": str(ROOT), "GRPC_DNS_RESOLVER": "native"} | ENVIRONMENT
        lines = "".join(f"{name}='{value}'\n" for name, value in variables.items())
        hosts.on(host, f"cat > home/vaegan.env <<'END'\n{lines}END")
        hosts.begin(host, f"{SSHD} -o AuthorizedKeysFile=/srv/authorized_keys", tmp_path / f"{host}-sshd.log")
    (tmp_path / "cluster.yaml").write_text(of_these_hosts(str(ROOT)))
    (ROOT / ".venv" / ".installed").touch()  # there is nothing to download from
    said = hosts.on("lap", f"ray up -y --no-config-cache {tmp_path}/cluster.yaml 2>&1", timeout=400)
    assert "Ray runtime started" in said
    tunnel = "ssh -i key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
    hosts.begin("lap", f"{tunnel} -N -L 8265:127.0.0.1:8265 root@{ADDRESS['head']}", tmp_path / "tunnel.log")
    doctor = f"{VAEGAN} doctor --cluster http://127.0.0.1:8265 --storage {BUCKET}"
    wait_for(lambda: "2 nodes of 2 can run trials." in hosts.on("lap", doctor, check=False), "both workers")
    sweep = f"{VAEGAN} sweep {path} --cluster http://127.0.0.1:8265 --storage {BUCKET} --set resources.max_concurrent=2"
    assert "4 completed" in hosts.on("lap", sweep)
    pid = hosts.on("w1", "pgrep -f raylet/raylet | head -n1").strip()
    hosts.on("w1", f"kill -9 {pid}")
    wait_for(lambda: pid not in hosts.on("w1", "pgrep -f raylet/raylet", check=False).split(), "the end of the raylet")
    wait_for(lambda: hosts.on("w1", "pgrep -f raylet/raylet", check=False).strip() != "", "another raylet")
