"""The project's own source, read as syntax trees: imports, strings, private names and sizes."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).parents[2]
PACKAGES = ("search", "vaegan_core")

Level = Literal["module", "function", "typing"]
"""When an import runs: with its module, with a function, or never (under TYPE_CHECKING)."""


@dataclass(frozen=True)
class Import:
    """One name that a file imports; `imported` is a path without suffix for our own files, else a dotted name."""

    importer: str
    imported: str
    name: str
    level: Level
    place: str


@dataclass(frozen=True)
class Size:
    what: str
    lines: int
    methods: int
    place: str


@cache
def files(folder: str) -> tuple[Path, ...]:
    return tuple(sorted((ROOT / folder).rglob("*.py")))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def label(path: Path) -> str:
    """A file's path from the root without its suffix, `search/cli`; a package's own is that of its folder."""
    relative = path.relative_to(ROOT).with_suffix("")
    return str(relative.parent if relative.name == "__init__" else relative)


def place(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"


def imports(folder: str) -> Iterator[Import]:
    """Every import of every file below `folder`, at any nesting level, one entry for each imported name."""
    for path in files(folder):
        for node, level in _imports_of(tree(path), "module"):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(label(path), _target(alias.name), "", level, place(path, node))
            else:
                assert node.level == 0, f"{place(path, node)}: a relative import"
                for alias in node.names:
                    target = _target(str(node.module), alias.name)
                    yield Import(label(path), target, alias.name, level, place(path, node))


def _imports_of(node: ast.AST, level: Level) -> Iterator[tuple[ast.Import | ast.ImportFrom, Level]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, level
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _imports_of(child, "typing" if level == "typing" else "function")
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for statement in child.body:
                yield from _imports_of(ast.Module([statement], []), "typing")
            for statement in child.orelse:
                yield from _imports_of(ast.Module([statement], []), level)
        else:
            yield from _imports_of(child, level)


def _target(module: str, name: str = "") -> str:
    """The file of ours that `from module import name` reads; the module itself where it is not ours."""
    if module.split(".")[0] not in PACKAGES:
        return module
    path = module.replace(".", "/")
    inner = f"{path}/{name}"
    return inner if name and ((ROOT / f"{inner}.py").is_file() or (ROOT / inner).is_dir()) else path


def strings(folder: str) -> Iterator[tuple[str, str, str]]:
    """Every string constant below `folder`, docstrings and parts of f-strings too: (file, place, text)."""
    for path in files(folder):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield label(path), place(path, node), node.value


def private_attributes(folder: str) -> Iterator[tuple[str, str, str]]:
    """Attributes `x._name` that the file does not define itself: (file, place, name)."""
    for path in files(folder):
        nodes = list(ast.walk(tree(path)))
        defined = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        defined |= {node.id for node in nodes if isinstance(node, ast.Name)}
        defined |= {node.attr for node in nodes if isinstance(node, ast.Attribute) and _is_self(node.value)}
        for node in nodes:
            if isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in defined:
                yield label(path), place(path, node), node.attr


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def is_private(name: str) -> bool:
    return any(part.startswith("_") and not part.startswith("__") and part != "_" for part in name.split("."))


def sizes(folder: str) -> Iterator[Size]:
    """Every file, class and function below `folder`."""
    for path in files(folder):
        module = tree(path)
        yield Size(label(path), len(path.read_text().splitlines()), 0, place(path, module))
        for node in ast.walk(module):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                lines = (node.end_lineno or first) - first + 1
                yield Size(f"{label(path)}.{node.name}", lines, 0, place(path, node))
            elif isinstance(node, ast.ClassDef):
                methods = sum(isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef) for item in node.body)
                yield Size(f"{label(path)}.{node.name}", 0, methods, place(path, node))
