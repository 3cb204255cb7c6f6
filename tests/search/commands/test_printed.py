"""Every command that a command prints can be typed as it is printed, from a fresh shell."""

from __future__ import annotations

import ast
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_lines import commands_in, wrong_with
from source_tree import ROOT, files
from sweeps import make_journal, make_sweep, points_alone
from tuning import tuning

from search.commands.live import trial_table
from search.commands.options import at_store
from search.commands.promote import how_to_use
from search.commands.results import next_commands
from search.commands.sweeps import how_to_view
from search.commands.train import again
from search.config.load import parse_sweep
from search.names import point_of
from search.terminal import Screen, as_typed, program

MODEL = "models:/vaegan-demo@champion"


FILLED_IN = {"{store}": "", "{ours}": "", "{sets}": "--set name=other"}
"""Stand for what comes before a command, or is more than one word."""


def messages(path: Path) -> Iterator[str]:
    """Every text in a file that holds a command, with 1 in place of each value that is filled in."""
    tree = ast.parse(path.read_text())
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside | documentation:
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(_filled_in(part) for part in node.values)


def _filled_in(part: ast.expr) -> str:
    if isinstance(part, ast.Constant):
        return str(part.value)
    return FILLED_IN.get(ast.unparse(part), "1")


def test_every_command_in_a_message_is_one_that_vaegan_takes() -> None:
    found = [(path, words) for path in files("search") for text in messages(path) for words in commands_in(text)]
    assert len(found) >= 15
    wrong = {
        f"{path.relative_to(ROOT)}: vaegan {shlex.join(words)}": why
        for path, words in found
        if (why := wrong_with(words, len(words) > 1))  # in prose, a command may stand alone
    }
    assert wrong == {}


@pytest.mark.parametrize("on_path", [True, False])
def test_vaegan_is_named_as_it_can_be_typed_in_this_shell(
    on_path: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program.cache_clear()
    folder = tmp_path / "my project" / ".venv" / "bin"
    folder.mkdir(parents=True)
    for name in ("vaegan", "mlflow", "python"):
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    monkeypatch.setattr(sys, "prefix", str(folder.parent))
    monkeypatch.setenv("PATH", f"{folder}:/bin" if on_path else "/bin")
    monkeypatch.chdir(tmp_path / "my project")
    try:
        here = "" if on_path else ".venv/bin/"
        assert as_typed("Run `vaegan sync x`: vaegan-search or a/vaegan x") == (
            f"Run `{here}vaegan sync x`: vaegan-search or a/vaegan x"
        )
        program.cache_clear()
        monkeypatch.chdir(tmp_path)
        assert shlex.split(program("mlflow")) == ["mlflow" if on_path else "my project/.venv/bin/mlflow"]
        program.cache_clear()
        monkeypatch.setattr(sys, "prefix", str(tmp_path / "nowhere"))
        assert program("vaegan") == f"{shlex.quote(sys.executable)} -m search.cli"
    finally:
        program.cache_clear()


def printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """What commands say at their end, in a directory whose name has a space, with a store of the sweep's own."""
    place = tmp_path / "a place"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    sweep = make_sweep(tracking={"uri": f"sqlite:///{place}/other.db"})
    journal = make_journal(place)
    journal.add_trial(0, {}, "", "random")
    yield next_commands(sweep, journal, 0)
    journal.db.execute("UPDATE trials SET run_id = ?", ("0" * 32,))
    yield next_commands(sweep, journal, 0)
    other = f"sqlite:///{place}/other.db"
    yield from how_to_use((at_store(other), at_store(other, mlflow=True)), "vaegan-demo", (27, 48))
    yield how_to_view(place / "optuna.db")
    yield again(place / "trial.yaml", ["train.steps=3", "model.encoder={norm: batch}"], "a-point", place / "out")


def test_what_is_printed_at_the_end_of_commands_can_be_pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line.strip() for text in printed(tmp_path, monkeypatch) for line in as_typed(text).splitlines()]
    typed = [shlex.split(line) for line in lines if line and not line.endswith((":", "."))]
    names = []
    for words in typed:
        assert "…" not in words
        given = dict(word.split("=", 1) for word in words if word.startswith(("MLFLOW_TRACKING_URI=", "PATH=")))
        first, *arguments = words[len(given) :]
        path = given.get("PATH", "").replace("$PATH", os.environ["PATH"]) or None
        names.append(Path(first).name)
        assert shutil.which(first, path=path) or names[-1] == "optuna-dashboard", words
        if names[-1] == "vaegan":
            assert wrong_with(arguments, True) == ""
    assert {"vaegan", "python", "mlflow", "optuna-dashboard"} <= set(names)
    stores = [words[0].partition("=")[2] for words in typed if words[0].startswith("MLFLOW_TRACKING_URI=")]
    assert stores == [f"sqlite:///{tmp_path}/a place/other.db"] * 4, "rerun, sample, load and serve look there"


def test_the_store_is_named_only_where_a_command_would_not_look_there_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    ours = f"sqlite:///{tmp_path}/runs/mlflow.db"
    assert at_store(ours) == ""
    assert at_store(ours, mlflow=True) == f"MLFLOW_TRACKING_URI={ours} ", "MLflow has another default"
    assert at_store("http://host:5000") == "MLFLOW_TRACKING_URI=http://host:5000 "
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    assert at_store("http://host:5000") == at_store("http://host:5000", mlflow=True) == ""


def test_a_printed_command_runs_in_a_shell_without_vaegan_on_its_path(tmp_path: Path) -> None:
    line = as_typed("vaegan status nothing")
    shell = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": os.environ["HOME"]}
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=shell, capture_output=True, text=True, check=False)
    assert done.stderr == "Error: there is no sweep named nothing; there are: none\n"


def test_points_keep_their_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert [point_of(origin) for origin in ("point a-b", "point a, time 2 with these values", "random")] == [
        "a-b",
        "a, time 2 with these values",
        "",
    ]
    t = tuning(tmp_path, points={"like-the-seed": {"model.width": 8}})
    t.start()
    Screen().show(trial_table(t.sweep, t.journal, t.journal.trials()))
    assert "like-the-seed" in capsys.readouterr().out


def test_a_trial_that_replaces_a_whole_part_of_the_base_has_its_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = parse_sweep(points_alone(warm={"optimizer": {"warmup": 0.1}}), "sweep")
    journal = make_journal(tmp_path)
    journal.add_trial(0, sweep.config.points["warm"], "", "point warm")
    Screen().show(trial_table(sweep, journal, journal.trials()))
    assert "optimizer {'warmup': 0.1}" in capsys.readouterr().out
