"""Hosts of a Ray cluster and a laptop on this machine, by hosts.sh."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import MappingProxyType

from source_tree import ROOT

SCRIPT = Path(__file__).with_name("hosts.sh")
ADDRESS = {"head": "10.77.0.10", "w1": "10.77.0.11", "w2": "10.77.0.12", "lap": "10.77.0.20", "store": "10.77.0.30"}
SERVER = f"http://{ADDRESS['head']}:8265"
BUCKET = "s3://vaegan/sweeps"
MLFLOW = f"http://{ADDRESS['store']}:5000"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIATEST",
    "AWS_SECRET_ACCESS_KEY": "not a secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_ENDPOINT_URL_S3": f"http://{ADDRESS['store']}:9000",
    "MLFLOW_TRACKING_URI": MLFLOW,
    "OMP_NUM_THREADS": "1",
}
VAEGAN = f"PYTHONPATH={ROOT} python -P -m search.cli"
"""The command on a host: of this tree, whatever is installed."""
HIDDEN = """
import sys
class Missing:
    def find_spec(self, name, *_):
        if name.split(".")[0] == "PACKAGE":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
"""
NONE: Mapping[str, str] = MappingProxyType({})


@cache
def why_not() -> str:
    """Why there can be no such hosts here; "" where there can."""
    if os.geteuid() != 0:
        return "hosts need root"
    missing = [tool for tool in ("ip", "nsenter", "unshare") if shutil.which(tool) is None]
    if missing:
        return f"hosts need {', '.join(missing)} (Debian: iproute2, util-linux)"
    name = f"vaegan-try-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return "" if made.returncode == 0 else "hosts need network namespaces"


class Hosts:
    """The hosts, with `state` as their directory here."""

    def __init__(self, state: Path) -> None:
        self.state = state
        (state / "env").write_text("".join(f"{name}={value}\n" for name, value in ENVIRONMENT.items()))

    def _run(self, *words: str) -> None:
        subprocess.run(self.command(*words), env=self._environment(), check=True, capture_output=True, timeout=120)

    def command(self, *words: str) -> list[str]:
        return ["bash", str(SCRIPT), *words]

    def _environment(self) -> Mapping[str, str]:
        return {**os.environ, "STATE": str(self.state), "VENV": sys.prefix}

    def up(self) -> None:
        self._run("down")
        self._run("up")

    def down(self) -> None:
        self._run("down")

    def cut(self, host: str) -> None:
        self._run("cut", host)

    def join(self, host: str) -> None:
        self._run("join", host)

    def off(self, host: str) -> None:
        self._run("off", host)

    def boot(self, host: str) -> None:
        self._run("boot", host)

    def on(self, host: str, command: str, *, check: bool = True, timeout: float = 300) -> str:
        """What a command says on a host, on both its outputs."""
        done = subprocess.run(
            self.command("exec", host, command),
            env=self._environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert not check or done.returncode == 0, f"{host}: {command} ended with {done.returncode}:\n{done.stdout}"
        return done.stdout

    def begin(self, host: str, command: str, log: Path) -> subprocess.Popen[bytes]:
        """Begins a command on a host."""
        with log.open("wb") as file:
            return subprocess.Popen(
                self.command("exec", host, command), env=self._environment(), stdout=file, stderr=subprocess.STDOUT
            )

    def start_services(self) -> None:
        """S3 and MLflow, on `store`, which no test takes away."""
        address = ADDRESS["store"]
        self.begin("store", f"python -m moto.server -H {address} -p 9000", self.state / "s3.log")
        self.begin(
            "store",
            f"mlflow server --host {address} --port 5000 --allowed-hosts '*' --workers 1 "
            "--backend-store-uri sqlite:////srv/mlflow.db --artifacts-destination /srv/artifacts",
            self.state / "mlflow.log",
        )
        client = f"boto3.client('s3', endpoint_url='{ENVIRONMENT['AWS_ENDPOINT_URL_S3']}')"
        script = f"import boto3; {client}.create_bucket(Bucket='vaegan')"
        wait_for(lambda: "Error" not in self.on("store", f'python -c "{script}"', check=False), "S3")
        ask = f"import requests; print(requests.get('{MLFLOW}/health', timeout=5).text)"
        wait_for(lambda: "OK" in self.on("store", f'python -c "{ask}"', check=False), "MLflow")

    def start_head(self) -> None:
        """Ray's head, on which no trial runs, and its token on every host."""
        self.on("head", "umask 077; ray get-auth-token --generate > /dev/null 2>&1")
        token = self.on("head", "cat ~/.ray/auth_token").strip()
        for host in ("w1", "w2", "lap"):
            self.give_token(host, token)
        self.on(
            "head",
            f"ray start --head --node-ip-address={ADDRESS['head']} --port=6379 --dashboard-host=0.0.0.0 --num-cpus=0 "
            "--object-store-memory=200000000",
        )

    def give_token(self, host: str, token: str) -> None:
        self.on(host, f"umask 077; mkdir -p ~/.ray; printf %s {token} > ~/.ray/auth_token")

    def start_worker(
        self, host: str, variables: Mapping[str, str] = NONE, *, memory: int = 200_000_000, cpus: int = 1
    ) -> None:
        """Has a host join the cluster, with other values of variables; `memory`: bytes of its object store."""
        self.on(
            host,
            "".join(f"{name}={value} " for name, value in variables.items())
            + f"ray start --address={ADDRESS['head']}:6379 --node-ip-address={ADDRESS[host]} --num-cpus={cpus} "
            f"--object-store-memory={memory}",
        )

    def restart_worker(
        self, host: str, variables: Mapping[str, str] = NONE, *, memory: int = 200_000_000, cpus: int = 1
    ) -> None:
        """Has a host leave the cluster and join it again."""
        self.on(host, "ray stop --force", check=False)
        self.start_worker(host, variables, memory=memory, cpus=cpus)

    def hide_package(self, host: str, package: str) -> None:
        """Has Python find no package of that name in what begins on a host with /srv/site in PYTHONPATH."""
        hidden = HIDDEN.replace("PACKAGE", package)
        self.on(host, f"mkdir -p site; cat > site/sitecustomize.py <<'END'\n{hidden}\nEND")

    def traffic(self, host: str) -> tuple[int, int]:
        """Bytes that a host has received and sent since it was booted."""
        counted = "cat /sys/class/net/eth0/statistics/rx_bytes /sys/class/net/eth0/statistics/tx_bytes"
        received, sent = self.on(host, counted).split()
        return int(received), int(sent)


@contextmanager
def hosts_up(state: Path) -> Iterator[Hosts]:
    """All hosts with Ray on three of them, and S3 and MLflow on a fourth."""
    with hosts_without_ray(state) as hosts:
        hosts.start_head()
        for host in ("w1", "w2"):
            hosts.start_worker(host)
        yield hosts


@contextmanager
def hosts_without_ray(state: Path) -> Iterator[Hosts]:
    """All hosts, with S3 and MLflow on one of them."""
    hosts = Hosts(state)
    try:
        hosts.up()
        hosts.start_services()
        yield hosts
    finally:
        hosts.down()


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come within {seconds:.0f} s"
        time.sleep(1.0)
