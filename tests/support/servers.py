"""Real servers on loopback for tests: MLflow, PostgreSQL and S3, each on a free port and ended with the tests.

The fixtures last a whole test session, so that a server is started once. A test keeps to experiments of its own, and
one that takes a server down does so in `server.outage()`, which brings it back.
"""

from __future__ import annotations

import http.client
import logging
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest

HOST = "127.0.0.1"
START_SECONDS = 90
STOP_SECONDS = 20
LOG_TAIL = 4000
WATCH = '{ "$@"; echo "exit status $?"; kill -KILL 0; } </dev/null & read -r _; kill -KILL 0'
"""Runs a server and ends its group when the server ends, or when the tests do, however that comes about."""
NO_POSTGRESQL = "PostgreSQL's server is not installed (Debian: postgresql)"

AUTH_CONFIG = """\
[mlflow]
default_permission = READ
database_uri = sqlite:///{directory}/auth.db
auth_cache_ttl_seconds = 600
"""


def free_port() -> int:
    """Below the range that outgoing connections take theirs from, so that it stays free while its server is down."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return port


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


class Server:
    """A server process in a group of its own. A subclass says how to run it and when it is ready."""

    name: str
    stop_signal = signal.SIGKILL
    owner: str | None = None
    """The system user it runs as; None for the one that runs the tests."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.log = directory / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Without what tests and users set for clients."""
        return {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "AWS_", "PG"))}

    def is_ready(self) -> bool:
        raise NotImplementedError

    def start(self) -> Self:
        """Returns when the server answers; at once where it runs already."""
        if self._process is not None:
            return self
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                ["sh", "-c", WATCH, "sh", *self.command()],
                cwd=self.directory,
                env=self.environment(),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=self.owner,
                group=self.owner,
                extra_groups=None if self.owner is None else [],
            )
        try:
            self._wait(lambda: self._check_running() and self.is_ready(), START_SECONDS, "did not answer")
        except BaseException:
            self.kill()
            raise
        return self

    def kill(self) -> None:
        """Ends the whole group and returns when the port is closed."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, self.stop_signal)
        self._process.communicate(timeout=STOP_SECONDS)
        self._process = None
        self._wait(lambda: not is_open(self.port), STOP_SECONDS, "was killed but its port did not close")

    @contextmanager
    def outage(self) -> Iterator[None]:
        """The server is down inside the block and back, on the same port, after it."""
        self.kill()
        try:
            yield
        finally:
            self.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _check_running(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise RuntimeError(f"{self.name} ended before it answered:\n{self._log_tail()}")
        return True

    def _wait(self, condition: Callable[[], bool], seconds: float, otherwise: str) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} {otherwise} within {seconds:g} s:\n{self._log_tail()}")
            time.sleep(0.05)

    def _log_tail(self) -> str:
        return self.log.read_text(errors="replace")[-LOG_TAIL:]


class MlflowServer(Server):
    """`mlflow server` with one worker.

    `store` is its backend store, by default a SQLite file in `directory`. `artifacts` is a directory or s3://…: clients
    upload through the server, or with `proxied=False` themselves. With `login`, a user and password, it asks for them.
    """

    name = "the MLflow server"

    def __init__(
        self,
        directory: Path,
        store: str | None = None,
        artifacts: str | None = None,
        *,
        proxied: bool = True,
        login: tuple[str, str] | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(directory)
        self.store = store or f"sqlite:///{directory}/mlflow.db"
        self.artifacts = artifacts or str(directory / "artifacts")
        self.proxied = proxied
        self.user: str | None
        self.password: str | None
        self.user, self.password = login or (None, None)
        self.settings = dict(settings or {})

    @property
    def uri(self) -> str:
        return f"http://{HOST}:{self.port}"

    def command(self) -> list[str]:
        application = [] if self.user is None else ["--app-name", "basic-auth"]
        return [sys.executable, "-m", "mlflow", "server", *application]

    def environment(self) -> dict[str, str]:
        """Holds everything the server is told: what is on a command line, every user of the machine can read."""
        values = {
            "MLFLOW_BACKEND_STORE_URI": self.store,
            "MLFLOW_HOST": HOST,
            "MLFLOW_PORT": str(self.port),
            "MLFLOW_WORKERS": "1",
            "MLFLOW_SERVE_ARTIFACTS": str(self.proxied).lower(),
            "MLFLOW_ARTIFACTS_DESTINATION" if self.proxied else "MLFLOW_DEFAULT_ARTIFACT_ROOT": self.artifacts,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        if self.user is not None and self.password is not None:
            config = self.directory / "basic_auth.ini"
            config.write_text(AUTH_CONFIG.format(directory=self.directory))
            values |= {
                "MLFLOW_AUTH_CONFIG_PATH": str(config),
                "MLFLOW_AUTH_ADMIN_USERNAME": self.user,
                "MLFLOW_AUTH_ADMIN_PASSWORD": self.password,
                "MLFLOW_FLASK_SERVER_SECRET_KEY": "the same after a restart",
            }
        return super().environment() | values | self.settings

    def is_ready(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=5)
        with closing(connection), suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        return False


class PostgresServer(Server):
    """PostgreSQL with a cluster of its own, asking for a password. As root it runs as the user `postgres`."""

    name = "the PostgreSQL server"
    stop_signal = signal.SIGQUIT
    """Its processes leave the group: this has the first of them end the others, at once."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.owner = "postgres" if os.geteuid() == 0 else None
        self.programs = find_postgresql()
        self.user = "mlflow"
        self.password = secrets.token_hex(12)
        self._create_cluster()

    def uri(self, database: str) -> str:
        return f"postgresql://{self.user}:{self.password}@{HOST}:{self.port}/{database}"

    @contextmanager
    def database(self, name: str) -> Iterator[str]:
        """The URI of a new database, dropped after the block."""
        from pytest_postgresql.janitor import DatabaseJanitor

        with DatabaseJanitor(user=self.user, password=self.password, host=HOST, port=self.port, dbname=name):
            yield self.uri(name)

    def command(self) -> list[str]:
        settings = {
            "listen_addresses": HOST,
            "port": self.port,
            "unix_socket_directories": "",
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [str(self.programs / "postgres"), "-D", str(self.directory / "data"), *options]

    def is_ready(self) -> bool:
        command = [str(self.programs / "pg_isready"), "--quiet", "--host", HOST, "--port", str(self.port)]
        return subprocess.run(command, check=False).returncode == 0

    def _create_cluster(self) -> None:
        password = self.directory / "password"
        password.write_text(self.password)
        if self.owner is not None:
            for path in (self.directory, password):
                shutil.chown(path, self.owner, self.owner)
        options: dict[str, Any] = {"pgdata": self.directory / "data", "username": self.user, "pwfile": password}
        options |= {"auth": "scram-sha-256", "encoding": "UTF8", "locale": "C"}
        done = subprocess.run(
            [str(self.programs / "initdb"), "--no-sync", *(f"--{name}={value}" for name, value in options.items())],
            cwd=self.directory,
            capture_output=True,
            text=True,
            user=self.owner,
            group=self.owner,
            extra_groups=None if self.owner is None else [],
            check=False,
        )
        password.unlink()
        if done.returncode:
            raise RuntimeError(f"initdb ended with {done.returncode}:\n{done.stdout}{done.stderr}")


def find_postgresql() -> Path:
    """Where the newest PostgreSQL's programs are. Skips the test where there is none."""
    versions = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if versions:
        return max(versions, key=lambda path: float(path.parent.name))
    on_path = shutil.which("initdb")
    if on_path is None:
        pytest.skip(NO_POSTGRESQL)
    return Path(on_path).resolve().parent


@dataclass(frozen=True)
class S3:
    """An S3 service with one bucket."""

    uri: str
    bucket: str
    access_key: str = field(default_factory=lambda: f"AKIA{secrets.token_hex(8).upper()}")
    secret_key: str = field(default_factory=lambda: secrets.token_hex(20))

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs to reach it."""
        return {
            "MLFLOW_S3_ENDPOINT_URL": self.uri,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self) -> Any:
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.uri,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
        )

    def keys(self, prefix: str = "") -> list[str]:
        """Names of the first 1000 objects."""
        answer = self.client().list_objects_v2(Bucket=self.bucket, Prefix=prefix)
        return [entry["Key"] for entry in answer.get("Contents", [])]


@pytest.fixture(scope="session")
def sqlite_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """MLflow on a SQLite file; artifacts go through it into a directory."""
    with MlflowServer(tmp_path_factory.mktemp("sqlite-server")) as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """PostgreSQL, for `with postgres.database("name") as uri`."""
    directory = Path(tempfile.mkdtemp(prefix="postgres-"))
    try:
        with PostgresServer(directory) as server:
            yield server
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """MLflow on PostgreSQL; artifacts go through it into a directory."""
    with (
        postgres.database("mlflow") as store,
        MlflowServer(tmp_path_factory.mktemp("postgres-server"), store) as server,
    ):
        yield server


@pytest.fixture(scope="session")
def auth_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """MLflow that asks for `.user` and `.password`."""
    login = ("admin", secrets.token_hex(12))
    with MlflowServer(tmp_path_factory.mktemp("auth-server"), login=login) as server:
        yield server


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """An S3 service; `s3.environment` is what its clients need."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer(HOST, free_port(), verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        service = S3(f"http://{host}:{port}", "mlflow")
        service.client().create_bucket(Bucket=service.bucket)
        yield service
    finally:
        server.stop()


@pytest.fixture(scope="session")
def s3_server(s3: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """MLflow whose artifacts go through it into S3."""
    directory = tmp_path_factory.mktemp("s3-server")
    with MlflowServer(directory, artifacts=f"s3://{s3.bucket}/proxied", settings=s3.environment) as server:
        yield server


@pytest.fixture(scope="session")
def s3_direct_server(s3: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """MLflow whose clients put artifacts into S3 themselves, with `s3.environment`."""
    directory = tmp_path_factory.mktemp("s3-direct-server")
    with MlflowServer(directory, artifacts=f"s3://{s3.bucket}/direct", proxied=False) as server:
        yield server
