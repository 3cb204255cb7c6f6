"""A sweep that is continued by its YAML lives where it has lived, if there is one."""

from __future__ import annotations

from pathlib import Path

import pytest
from sweeps import make_journal, make_sweep

from search.commands import sweeps
from search.journal.meta import Meta
from search.running.driver import Ground


@pytest.fixture
def grounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Ground]:
    """Where the sweep `toy` would run, whose journal is here and names a storage."""
    found: list[Ground] = []
    (tmp_path / "storage").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VAEGAN_STORAGE", raising=False)
    monkeypatch.setattr("search.config.load.load_sweep", lambda *_, **__: make_sweep())
    monkeypatch.setattr("search.preflight.machine.check_machine", lambda _: None)
    monkeypatch.setattr(sweeps, "_run", lambda _load, _directory, ground: found.append(ground))
    directory = tmp_path / "runs/sweeps/toy"
    directory.mkdir(parents=True)
    journal = make_journal(directory)
    journal.set_meta(Meta.STORAGE, str(tmp_path / "storage"))
    journal.close()
    return found


@pytest.mark.parametrize("more", [{"resume": True}, {"extend": 10}])
def test_a_sweep_that_is_continued_by_its_yaml_stays_in_its_storage(
    more: dict[str, int], grounds: list[Ground], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = str(tmp_path / "storage")
    sweeps.sweep(Path("toy.yaml"), **more)
    sweeps.sweep(Path("toy.yaml"), storage=storage, **more)
    monkeypatch.setenv("VAEGAN_STORAGE", str(tmp_path))
    sweeps.sweep(Path("toy.yaml"), **more)
    assert [ground.storage for ground in grounds] == [storage] * 3
    with pytest.raises(ValueError, match=r"^the sweep toy lives in .*/storage, and cannot be continued with --storage"):
        sweeps.sweep(Path("toy.yaml"), storage=str(tmp_path), **more)


def test_only_a_sweep_that_is_there_is_extended_by_its_yaml(grounds: list[Ground], tmp_path: Path) -> None:
    (tmp_path / "runs/sweeps/toy").rename(tmp_path / "runs/sweeps/tea")
    with pytest.raises(ValueError, match=r"^there is no sweep named toy; there are: tea$"):
        sweeps.sweep(Path("toy.yaml"), extend=10)
    with pytest.raises(ValueError, match=r"^there is no sweep named toy in .*/storage; there are: none$"):
        sweeps.sweep(Path("toy.yaml"), storage=str(tmp_path / "storage"), extend=10)
    assert grounds == []
    assert not (tmp_path / "runs/sweeps/toy").exists()
