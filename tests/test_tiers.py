"""What tests/README.md and the Makefile say about the tests is true."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

from source_tree import ROOT, tree

TESTS = ROOT / "tests"
README = (TESTS / "README.md").read_text()
SITECUSTOMIZE = TESTS / "support" / "faults" / "sitecustomize.py"
SLOW_PARTS = {"delivered", "drivers", "fault_proxy", "servers", "stores", "sweep_files"}
SLOW_FIXTURES = {"frame_set", "frame_set_dir", "frame_features"}


def quick_files() -> list[Path]:
    """The test files of the Makefile's quick tier."""
    listed = re.search(r"^QUICK := ((?:.*\\\n)*.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert listed is not None
    paths = [ROOT / name for name in listed[1].replace("\\\n", " ").split()]
    assert [path for path in paths if not path.exists()] == []
    return [file for path in paths for file in ([path] if path.is_file() else sorted(path.rglob("test_*.py")))]


def test_the_quick_tier_stays_large_and_quick() -> None:
    files = quick_files()
    assert len(files) >= 17
    for path in files:
        nodes = list(ast.walk(tree(path)))
        imported = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
        arguments = {node.arg for node in nodes if isinstance(node, ast.arg)}
        assert not imported & SLOW_PARTS, path
        assert not arguments & SLOW_FIXTURES, path


def test_every_folder_of_tests_is_in_the_table() -> None:
    folders = {path.parent.relative_to(ROOT) for path in TESTS.rglob("test_*.py")} - {TESTS.relative_to(ROOT)}
    named = {Path(name) for name in re.findall(r"^\| `(tests/[\w/]+)` \|", README, re.MULTILINE)}
    assert [folder for folder in folders if Path(*folder.parts[:3]) not in named] == []
    assert [name for name in named if not (ROOT / name).is_dir()] == []


def test_every_make_target_of_the_table_exists() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([\w-]+)`", README)) <= targets


def test_the_table_of_faults_is_that_of_the_code() -> None:
    rows = re.findall(r"^\| (0\.\d+) \| ([\w ]+) \|", README, re.MULTILINE)
    assert {float(value): fault for value, fault in rows} == assigned("FAULTS")


def test_faults_are_planted_in_modules_that_exist() -> None:
    """The names are strings, so that moving a module would switch its fault off without a word."""
    patched = next(
        node.value
        for node in ast.walk(tree(SITECUSTOMIZE))
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PATCHES"
    )
    assert isinstance(patched, ast.Dict)
    modules = [ast.literal_eval(key) for key in patched.keys if key is not None]
    assert len(modules) == 2
    assert [module for module in modules if importlib.util.find_spec(module) is None] == []


def assigned(name: str) -> object:
    """The literal that a top-level name of sitecustomize.py is assigned."""
    for node in tree(SITECUSTOMIZE).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"{SITECUSTOMIZE} assigns no {name}")
