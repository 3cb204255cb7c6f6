"""MLflow clients on any tracking URI, and experiments."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import socket
import tempfile
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from mlflow import MlflowClient
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException
from sqlalchemy import create_engine, make_url
from sqlalchemy.exc import OperationalError

from search.paths import SQLITE
from search.redaction import redact
from search.tracking.errors import explain

CALL_SECONDS = 10
"""A call to a server that takes longer has failed."""
UPLOAD_SECONDS = 60
"""The same for uploading or downloading a file, which may be large."""

PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
"""Where database servers listen, if their URI does not say."""

LONGEST_DIRECTORY_NAME = 120
"""In bytes; file systems take 255."""

logging.getLogger("mlflow").setLevel(logging.ERROR)
logging.getLogger("alembic").setLevel(logging.WARNING)


def open_client(uri: str) -> MlflowClient:
    """A client on `uri`; creates the store of a SQLite file that is not there. Raises OSError where a database server
    cannot be reached or refuses: MLflow would try for two minutes without a word."""
    _reach_database(uri)
    if uri.startswith(SQLITE) and not Path(uri.removeprefix(SQLITE)).exists():
        _create_store(Path(uri.removeprefix(SQLITE)))
    for name, value in (
        ("HTTP_REQUEST_MAX_RETRIES", "2"),
        ("HTTP_REQUEST_TIMEOUT", str(CALL_SECONDS)),
        ("ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT", str(UPLOAD_SECONDS)),
        ("ENABLE_ARTIFACTS_PROGRESS_BAR", "false"),
        ("SUPPRESS_PRINTING_URL_TO_STDOUT", "true"),
    ):
        os.environ.setdefault(f"MLFLOW_{name}", value)
    return MlflowClient(uri)


def _reach_database(uri: str) -> None:
    scheme = uri.partition(":")[0].partition("+")[0]
    if scheme in PORTS and (url := make_url(uri)).host:
        socket.create_connection((url.host, url.port or PORTS[scheme]), timeout=CALL_SECONDS).close()
        engine = create_engine(url)
        try:
            engine.connect().close()
        except OperationalError as error:
            raise ConnectionError(errno.ECONNREFUSED, str(error.orig).strip()) from None
        finally:
            engine.dispose()


def _create_store(path: Path) -> None:
    """Makes a SQLite store whole or not at all: MLflow does it table by table, and opens none that is half made, as a
    process leaves it that is killed meanwhile."""
    from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as directory:
        made = Path(directory, path.name)
        SqlAlchemyStore(f"{SQLITE}{made}", DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH).engine.dispose()
        with suppress(FileExistsError):  # another process was quicker
            os.link(made, path)


def open_existing(uri: str) -> MlflowClient:
    """A client to read from. Raises ValueError if no sweep or training has written anything there yet, and
    ConnectionError where no server answers."""
    if uri.startswith(SQLITE) and not Path(uri.removeprefix(SQLITE)).exists():
        raise ValueError(f"there are no runs at {uri}; go to the directory of the sweep, or set MLFLOW_TRACKING_URI")
    try:
        client = open_client(uri)
        if uri.startswith("http"):
            client.search_experiments(max_results=1)
    except (MlflowException, OSError) as error:
        where = f"MLflow at {redact(uri)} cannot be used (tracking.uri, MLFLOW_TRACKING_URI)"
        raise ConnectionError(errno.ECONNREFUSED, f"{where}: {explain(error)}") from None
    return client


def directory_name(experiment: str) -> str:
    """The name of an experiment as that of one directory, whatever is in it: `/Shared/a` becomes `%2FShared%2Fa`."""
    name = re.sub(r"[^\w .-]", lambda match: quote(match[0], safe=""), experiment)
    if name.strip(". ") and len(name.encode()) <= LONGEST_DIRECTORY_NAME:
        return name
    return f"{name.strip('. ')[:40]}-{hashlib.sha256(experiment.encode()).hexdigest()[:16]}"


def ensure_experiment(client: MlflowClient, name: str) -> str:
    """Id of the experiment, created on first use. With SQLite, its artifacts lie beside the database."""
    experiment: Experiment | None = client.get_experiment_by_name(name)
    if experiment is not None:
        return str(experiment.experiment_id)
    uri, location = client.tracking_uri, None
    if uri.startswith(SQLITE):
        location = (Path(uri.removeprefix(SQLITE)).resolve().parent / "artifacts" / directory_name(name)).as_uri()
    kind = {"mlflow.experimentKind": "custom_model_development"}  # so that the web pages open on runs, not on chats
    return str(client.create_experiment(name, artifact_location=location, tags=kind))
