"""A store of MLflow's is judged by its file where that suffices, and by MLflow in every other case."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from search.paths import with_known_scheme
from search.preflight.storage import check_tracking

CHECKED = """
import sys
from search.preflight.storage import check_tracking

check_tracking(sys.argv[1], sys.argv[2])
print("mlflow" in sys.modules)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with an active and a deleted experiment."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"
    client = MlflowClient(uri)
    client.create_experiment("active")
    client.delete_experiment(client.create_experiment("deleted"))
    return uri


@pytest.mark.parametrize("experiment", ["active", "not there yet"])
def test_a_store_of_the_installed_mlflow_is_checked_without_mlflow(store: str, experiment: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHECKED, store, experiment], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_a_deleted_experiment_is_refused(store: str) -> None:
    with pytest.raises(ValueError, match="the experiment deleted was deleted in MLflow; restore it"):
        check_tracking(store, "deleted")


@pytest.mark.parametrize("change", ["UPDATE alembic_version SET version_num = 'other'", "DROP TABLE alembic_version"])
def test_a_store_of_another_mlflow_is_left_to_mlflow_to_judge(store: str, tmp_path: Path, change: str) -> None:
    other = tmp_path / "mlflow.db"
    other.write_bytes(Path(store.removeprefix("sqlite:///")).read_bytes())
    with closing(sqlite3.connect(other)) as db, db:
        db.execute(change)
    with pytest.raises(ValueError, match="does not answer"):
        check_tracking(f"sqlite:///{other}", "active")


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("no database " * 100)
    with pytest.raises(ValueError, match="does not answer"):
        check_tracking(f"sqlite:///{tmp_path}/mlflow.db", "active")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("sqlite://", "must name a file .*, but got 'sqlite://', which is kept in memory"),
        ("sqlite:///:memory:", "must name a file .*, which is kept in memory"),
        ("http://[", "must be a URI, but got 'http://\\[' .Invalid IPv6 URL"),
        ("file:///mlruns", "must be a server or a database, but got 'file:///mlruns'"),
        ("/home/me/a b", "must be a server or a database, .*; name a file of SQLite"),
        ("htp://x", "must begin with one of http:, .*; did you mean http"),
    ],
)
def test_a_store_that_nobody_could_find_again_is_refused(uri: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        with_known_scheme(uri)
