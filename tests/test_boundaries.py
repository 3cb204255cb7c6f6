"""The laws of the house: who may import whom, where each framework lives, what a command loads, and how large a file,
a function and a class may grow. Every law reads all files, and the first test knows how many there are at least."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path

import pytest
from delivered import make_sweep_directory
from source_tree import (
    PACKAGES,
    ROOT,
    files,
    imports,
    is_private,
    label,
    place,
    private_attributes,
    sizes,
    strings,
    tree,
)

# Files directly in a package are its ground: `search` and `vaegan_core` below mean these alone. A row says what the
# files of a folder may import besides each other: folders or single files. All of search may import all of the core.
READERS = (
    "search/tracking/client search/tracking/errors search/tracking/evaluations search/tracking/reader "
    "search/tracking/runs"
)
FINISHED = f"search search/standings {READERS} search/tracking/single_run"
UP_TO_STANDINGS = "search search/config search/journal search/standings search/questions"
MAY_IMPORT = {
    "vaegan_core": "",
    "vaegan_core/config": "vaegan_core",
    "vaegan_core/data": "vaegan_core",
    "vaegan_core/model": "vaegan_core vaegan_core/config vaegan_core/data",
    "vaegan_core/losses": "vaegan_core vaegan_core/config vaegan_core/model",
    "vaegan_core/metrics": "vaegan_core vaegan_core/config vaegan_core/data vaegan_core/model vaegan_core/losses",
    "vaegan_core/training": "vaegan_core vaegan_core/config vaegan_core/data vaegan_core/model vaegan_core/losses "
    "vaegan_core/metrics",
    "search": "",
    "search/config": "search",
    "search/journal": "search search/config",
    "search/questions": "",
    "search/standings": "search search/config search/journal search/questions",
    "search/strategy": UP_TO_STANDINGS,
    "search/tracking": f"{UP_TO_STANDINGS} search/storage",
    "search/storage": "search search/journal",
    "search/cluster": "search search/config search/journal search/storage",
    "search/running": f"{UP_TO_STANDINGS} search/storage search/strategy search/tracking search/cluster",
    "search/report": f"{FINISHED} search/config search/questions",
    "search/promotion": f"{FINISHED} search/config",
    "search/local": f"{FINISHED} search/config",
    "search/preflight": f"{UP_TO_STANDINGS} search/tracking search/running",
    "search/commands": f"{UP_TO_STANDINGS} search/storage search/strategy search/tracking search/cluster "
    "search/running search/report search/promotion search/local search/preflight",
    "search/cli": "search search/commands search/tracking",
}
FRAMEWORK_HOMES = {
    "ray": "search/running search/cluster",
    "mlflow": "search/tracking search/report search/promotion search/local search/running/system_metrics",
    "optuna": "search/config search/strategy search/running/searcher",
    "typer": "search/commands search/cli",
    "rich": "search/commands search/cli search/terminal",
    "sqlite3": "search/journal search/preflight/storage search/storage",
    "obstore": "search/storage",
    "jinja2": "search/report",
}
"""Where each framework may be imported, at whatever level: nowhere else, so never in the core."""
PRIVATE_NAMES_OF_LIBRARIES = {
    ("search/config", "_contains"),
    ("search/strategy", "_get_generation_key"),
    ("search/strategy", "_trial_id"),
    ("vaegan_core/model", "_SpectralNorm"),
    ("vaegan_core/model", "_foreach_lerp_"),
    ("vaegan_core/model", "_u"),
    ("vaegan_core/model", "_v"),
    ("vaegan_core/training", "_dynamo"),
    ("vaegan_core/training", "_functorch"),
}
"""What no public name of a library gives us, by folder; an upgrade of the library has to look at each."""
UNDERSCORED_BUT_PUBLIC = {"_asdict", "_exit", "_fields", "_replace"}
"""Documented names of the standard library."""
HEAVY = {"torch", "ray", "mlflow", "optuna", "pydantic", "numpy", "scipy", "pandas", "sqlalchemy", "plotly", "av"}
LOADS_NONE_OF = {
    "--help": HEAVY,
    "--version": {"torch", "ray", "mlflow", "optuna"},
    "status toy": {"torch", "ray", "mlflow"},
    "stop toy": {"torch", "ray", "mlflow"},
    "train trial.yaml": {"ray"},
    "rerun 0123": {"ray"},
    "report toy": {"ray"},
    "promote toy": {"ray"},
    "sample nothing -o out": {"ray"},
    "reconstruct nothing frame.png -o out": {"ray"},
}
"""By command, run in a process of its own where a sweep `toy` exists that neither a driver runs nor MLflow knows."""
WORKING = tuple(command for command, none in LOADS_NONE_OF.items() if none == {"ray"})
"""They fail here, after they have imported everything they run."""
MAX_LINES = {"file": 400, "function": 60}
MAX_METHODS = 25


def assert_none(broken: Iterable[str]) -> None:
    """Fails with a line for each place that breaks a law."""
    lines = sorted(broken)
    assert not lines, "\n" + "\n".join(lines)


def row(path: str) -> str:
    """The key of MAY_IMPORT that a file or folder falls under: the longest that it is or lies below."""
    keys = [key for key in MAY_IMPORT if path == key or path.startswith(f"{key}/")]
    return max(keys, key=len)


def within(path: str, places: str) -> bool:
    return any(path == allowed or path.startswith(f"{allowed}/") for allowed in places.split())


# --- The tables cover all that there is -------------------------------------------------------------------------------


def test_every_file_is_looked_at() -> None:
    assert len(files("search")) >= 65
    assert len(files("vaegan_core")) >= 50
    assert len(list(imports("search"))) >= 400
    assert len(list(imports("vaegan_core"))) >= 200


def test_imports_are_seen_at_every_level(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
    import a
    if TYPE_CHECKING:
        import b
    class C:
        import c
        def f(self):
            try:
                import d.e
            except ImportError:
                from search import names, config
    """
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "deep.py").write_text(textwrap.dedent(code))
    (tmp_path / "search" / "names.py").touch()
    monkeypatch.setattr("source_tree.ROOT", tmp_path)
    files.cache_clear()
    found = [(item.imported, item.level) for item in imports("search")]
    files.cache_clear()
    module, function = ("a", "module"), ("d.e", "function")
    ours = [("search/names", "function"), ("search", "function")]
    assert found == [module, ("b", "typing"), ("c", "module"), function, *ours]


def test_the_table_names_the_folders_that_there_are() -> None:
    folders = {label(path.parent / "__init__.py") for package in PACKAGES for path in files(package)}
    top = {folder for folder in folders if folder.count("/") <= 1}
    assert top | {"search/cli"} == set(MAY_IMPORT)
    named = {name for places in (*MAY_IMPORT.values(), *FRAMEWORK_HOMES.values()) for name in places.split()}
    assert not [name for name in named if not (ROOT / name).is_dir() and not (ROOT / f"{name}.py").is_file()]


def test_every_folder_of_code_is_a_package() -> None:
    folders = {path.parent for package in PACKAGES for path in files(package)}
    assert not [folder for folder in folders if not (folder / "__init__.py").is_file()]


# --- Who imports whom -------------------------------------------------------------------------------------------------


def test_folders_import_only_what_lies_below_them() -> None:
    broken = []
    for item in (item for package in PACKAGES for item in imports(package)):
        if item.imported.split("/")[0] not in PACKAGES:
            continue
        importer, imported = row(item.importer), row(item.imported)
        core = imported.startswith("vaegan_core") and importer.startswith("search")
        allowed = MAY_IMPORT[importer].split()
        if not (core or imported in (importer, *allowed) or item.imported in allowed):
            message = (
                f"{item.place}: {importer} imports {item.imported}; it may import {', '.join(allowed) or 'nothing'}"
            )
            broken.append(message)
    assert_none(broken)


def test_frameworks_stay_at_home() -> None:
    broken = []
    for item in (item for package in PACKAGES for item in imports(package)):
        framework = item.imported.split(".")[0]
        homes = FRAMEWORK_HOMES.get(framework)
        if homes is not None and not within(item.importer, homes):
            broken.append(f"{item.place}: imports {framework}, which lives in {homes}")
    assert_none(broken)


def test_data_imports_no_torch_with_its_modules() -> None:
    broken = [
        f"{item.place}: imports torch at module level"
        for item in imports("vaegan_core/data")
        if item.imported.split(".")[0] == "torch" and item.level == "module"
    ]
    assert_none(broken)


def test_commands_ask_nothing_about_a_trial_s_outcome() -> None:
    broken = [
        f"{place(path, node)}: {ast.unparse(node)}"
        for path in files("search/commands")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Compare) and ".outcome" in ast.unparse(node)
    ]
    assert_none(broken)


def test_nobody_uses_another_s_private_names() -> None:
    broken = []
    for package in PACKAGES:
        for item in imports(package):
            if is_private(item.name):
                broken.append((item.importer, item.name, f"{item.place}: imports {item.name} of {item.imported}"))
        for file, where, name in private_attributes(package):
            if name not in UNDERSCORED_BUT_PUBLIC:
                broken.append((file, name, f"{where}: uses .{name}, which its file does not define"))
    used = {(row(file), name) for file, name, _ in broken}
    assert_none(line for file, name, line in broken if (row(file), name) not in PRIVATE_NAMES_OF_LIBRARIES)
    assert not PRIVATE_NAMES_OF_LIBRARIES - used, "no longer used"


# --- What is loaded ---------------------------------------------------------------------------------------------------

LOADED = """
import sys
from search.cli import main

sys.argv = ["vaegan", *sys.argv[1:]]
try:
    main()
finally:
    print("LOADED", *{name.partition(".")[0] for name in sys.modules})
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lazy")
    make_sweep_directory(path / "runs" / "sweeps", "toy")
    (path / "trial.yaml").write_text("frames: nowhere\n")
    return path


@pytest.mark.parametrize("command", LOADS_NONE_OF)
def test_commands_start_light(command: str, directory: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *command.split()], cwd=directory, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert "Usage:" not in done.stderr, done.stderr
    loaded = set(done.stdout.splitlines()[-1].split())
    assert not loaded & LOADS_NONE_OF[command]
    if command in WORKING:
        assert loaded & {"torch", "mlflow"}, f"it failed before it imported what it runs:\n{done.stdout}\n{done.stderr}"


def loaded_by(modules: Iterable[str]) -> set[str]:
    """Top-level packages that a fresh process holds after importing the modules."""
    names = "; ".join(f"import {name.replace('/', '.')}" for name in modules)
    code = f"{names}; import json, sys; print(json.dumps(sorted({{m.partition('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_the_core_loads_no_search_framework() -> None:
    core = [label(path) for path in files("vaegan_core")]
    assert len(core) >= 50
    assert not loaded_by(core) & {*FRAMEWORK_HOMES, "search"} - {"sqlite3", "jinja2"}


def test_data_loads_no_torch() -> None:
    assert "torch" not in loaded_by(label(path) for path in files("vaegan_core/data"))


# --- What the core says, and how large things are ---------------------------------------------------------------------


def test_the_core_knows_no_command_line() -> None:
    broken = [
        f"{where}: {text.strip()[:80]!r}"
        for _, where, text in strings("vaegan_core")
        if "--" in text or "vaegan " in text
    ]
    assert_none(broken)


def test_nothing_outgrows_a_screen() -> None:
    broken = []
    for folder in (*PACKAGES, "tests"):
        for size in sizes(folder):
            limit = MAX_LINES["function" if "." in size.what else "file"]
            if size.lines > limit or size.methods > MAX_METHODS:
                broken.append(f"{size.place}: {size.what} has {size.lines} lines, {size.methods} methods")
    assert_none(broken)
