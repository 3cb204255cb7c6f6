"""The line between the halves: the core knows nothing of Ray, Optuna or MLflow."""

import subprocess
import sys
from pathlib import Path

import search
import vaegan_core

FRAMEWORKS = {"ray", "optuna", "mlflow", "search"}

CORE_DIRECTORY = Path(vaegan_core.__file__).parent
CORE = sorted(
    ".".join(("vaegan_core", *path.relative_to(CORE_DIRECTORY).with_suffix("").parts))
    for path in CORE_DIRECTORY.rglob("*.py")
    if path.stem != "__init__"
)


def test_all_of_the_core_is_looked_at() -> None:
    assert len(CORE) >= 27


def test_rerun_and_train_load_no_ray() -> None:
    code = "import search.local.rerun, search.local.train, sys; print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_core_pulls_in_no_search_framework() -> None:
    imports = "; ".join(f"import {module}" for module in CORE)
    code = f"{imports}; import sys; print({{m.split('.')[0] for m in sys.modules}} & {FRAMEWORKS})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_only_the_way_to_mlflow_and_its_readers_import_mlflow() -> None:
    importers = {
        path.name
        for path in Path(search.__file__).parent.rglob("*.py")
        if "mlflow" in path.read_text() and _imports_mlflow(path)
    }
    assert importers <= {
        "mlflow_store.py",
        "mlflow_writer.py",
        "results.py",
        "system_metrics.py",
        "runs.py",
        "report.py",
        "promote.py",
        "rerun.py",
        "served_model.py",
        "single.py",
    }


def _imports_mlflow(path) -> bool:
    return any(line.strip().startswith(("import mlflow", "from mlflow")) for line in path.read_text().splitlines())
