"""The built wheel, installed where nothing of the checkout can be seen: it holds all it needs, and runs a sweep."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from pages import page_data
from source_tree import PACKAGES, ROOT, files
from sweep_files import NAME, prepare

BUILD = "from setuptools import build_meta; print(build_meta.build_wheel('dist'))"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by the project's own build backend from a copy of the source, so that nothing built earlier is in it."""
    source = tmp_path_factory.mktemp("source")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    done = subprocess.run([sys.executable, "-c", BUILD], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return source / "dist" / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel alone that reads all other packages from the one that runs the tests.

    A .pth file appends that one's site-packages without obeying the .pth files in it, so that an editable install of
    this project does not take part.
    """
    path = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", path], check=True)
    python = str(path / "bin" / "python")
    options = ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", *options, wheel], check=True, env=outside()
    )
    packages = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (installed,) = path.glob("lib/python*/site-packages")
    (installed / "pinned.pth").write_text("".join(f"{folder}\n" for folder in packages))
    return path


def outside() -> dict[str, str]:
    """The environment variables of a process that shall see nothing of the checkout."""
    hidden = ("PYTHON", "MLFLOW_", "RAY_", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    return kept | {"COLUMNS": "200", "RAY_AUTH_MODE": "disabled"}


def run(environment: Path, directory: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Runs a command of the environment."""
    done = subprocess.run(
        [str(environment / "bin" / command[0]), *command[1:]],
        cwd=directory,
        env=outside(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}\n{done.stderr}"
    return done


def test_the_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    modules = {str(path.relative_to(ROOT)) for package in PACKAGES for path in files(package)}
    kinds = ("*.yaml", "*.sbatch", "Dockerfile", "web/*")
    data = {str(path.relative_to(ROOT)) for kind in kinds for path in (ROOT / "search").rglob(kind)}
    assert {"search/sweeps/demo.yaml", "search/report/web/page.html.j2", "search/report/web/main.js"} <= data
    assert not (modules | data | {f"{package}/py.typed" for package in PACKAGES}) - held
    assert {name.split("/")[0] for name in held if ".dist-info/" not in name} == set(PACKAGES)


@pytest.mark.long
@pytest.mark.usefixtures("frame_features")
def test_a_sweep_runs_from_the_wheel(environment: Path, frame_set_dir: Path, tmp_path: Path) -> None:
    imported = "import search, vaegan_core; print(search.__file__, vaegan_core.__file__)"
    for path in run(environment, tmp_path, "python", "-c", imported).stdout.split():
        assert Path(path).is_relative_to(environment), path
    assert "sweep" in run(environment, tmp_path, "vaegan", "--help").stdout
    version = run(environment, tmp_path, "vaegan", "--version").stdout
    assert re.fullmatch(r"vaegan-search \d+\.\d+\.\d+, journal \d+\n", version), version
    prepare(
        tmp_path / "user",
        frame_set_dir,
        base__train__steps=20,
        base__evaluate__every=10,
        space={"optimizer.autoencoder.lr": [3e-4, 3e-3], "loss.kl": {"one_of": {"fixed": {"sigma": 0.2}}}},
        points={},
        scheduler={"name": "none"},
        sampler={"name": "random"},
        budget={"trials": 2},
    )
    run(environment, tmp_path / "user", "vaegan", "check", "sweep.yaml")
    done = run(environment, tmp_path / "user", "vaegan", "sweep", "sweep.yaml")
    assert "vaegan promote" in done.stdout
    page = (tmp_path / "user" / "runs" / "sweeps" / NAME / "report.html").read_text()
    assert "· code" not in page, "there is no git checkout that a commit could be read from"
    assert len(page_data(page)["sweeps"][0]["run"]) == 2
