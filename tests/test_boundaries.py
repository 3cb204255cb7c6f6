"""The line between the halves: the core knows nothing of Ray, Optuna or MLflow."""

import subprocess
import sys

CORE_MODULES = (
    "capture checkpoint config distances evaluate evaluation features frames kl_control losses models trainer".split()
)


def test_the_core_pulls_in_no_search_framework() -> None:
    imports = "; ".join(f"import vaegan_core.{module}" for module in CORE_MODULES)
    code = f"{imports}; import sys; print(sorted({{m.split('.')[0] for m in sys.modules}} & {{'ray', 'optuna', 'mlflow', 'search'}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_only_tracking_and_its_readers_import_mlflow() -> None:
    from pathlib import Path

    import search

    importers = {
        path.name
        for path in Path(search.__file__).parent.glob("*.py")
        if "mlflow" in path.read_text() and _imports_mlflow(path)
    }
    assert importers <= {
        "tracking.py",
        "runs.py",
        "report.py",
        "promote.py",
        "rerun.py",
        "served_model.py",
        "single.py",
    }


def _imports_mlflow(path) -> bool:
    return any(line.strip().startswith(("import mlflow", "from mlflow")) for line in path.read_text().splitlines())
