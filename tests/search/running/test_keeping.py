"""Which files of trials are kept, and which are found again that the journal does not name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sweeps import BASELINES, evaluation
from tuning import Tuning, resume, tuning

from search.journal.meta import Meta
from search.journal.records import FileKind, MutationRecord, SavedRecord
from search.running.driver import mark_complete
from search.running.keeping import Keeping, find_states
from search.storage.trial_files import TrialFiles, attempt_folder
from vaegan_core.config.trial import parse_trial
from vaegan_core.strict_yaml import parse_yaml
from vaegan_core.tensor_files import DamagedCheckpoint, save_tensors


def save(t: Tuning, key: str, step: int, *, seed: int | None = None) -> Path:
    """A file of trial 0, or one that a trial with another seed would have written."""
    config = parse_trial(parse_yaml(t.journal.trial(0).config)).dump()
    if seed is not None:
        config["train"]["seed"] = seed
    path = t.directory / key
    path.parent.mkdir(parents=True, exist_ok=True)
    save_tensors(path, {"w": torch.tensor(1.0)}, {"step": step, "config": config})
    return path


def found(t: Tuning) -> tuple[str, int] | None:
    find_states(t.journal, t.search.place.files())
    state = t.journal.state(0)
    return (state.key, state.step) if state else None


def test_a_running_trial_keeps_its_last_state(tmp_path: Path) -> None:
    t = tuning(tmp_path)
    t.start()
    files = t.search.place.files()
    keeping = Keeping(t.search, files)
    for step in (40, 80, 120):
        save(t, f"trials/00000/attempt-1/step-{step:08d}.safetensors", step)
        t.report(0, evaluation(step), saved=True)
        keeping.after_report()
        assert files.all_keys() == [f"trials/00000/attempt-1/step-{step:08d}.safetensors"]
    assert [record.step for record in t.journal.saved_of(0)] == [120]


def test_a_state_that_another_trial_is_to_begin_with_outlasts_the_trial_that_gave_it(tmp_path: Path) -> None:
    t = tuning(tmp_path)
    t.journal.set_meta(Meta.BASELINES, json.dumps(BASELINES))
    t.start(2)
    files = t.search.place.files()
    keeping = Keeping(t.search, files)
    for step in (120, 160):
        save(t, f"trials/00000/attempt-1/step-{step:08d}.safetensors", step)
        t.report(0, evaluation(step), saved=True)
    t.report(1, evaluation(120), saved=True)
    t.journal.mutate_trial(MutationRecord(1, 120, 0, {}), t.journal.trial(1).config)
    save(t, "trials/00000/attempt-1/step-00000480.safetensors", 480)
    save(t, "trials/00000/attempt-1/model.safetensors", 480)
    t.complete(0, saved=True)
    keeping.after_trial(0)
    assert files.all_keys() == [
        "trials/00000/attempt-1/model.safetensors",
        "trials/00000/attempt-1/step-00000120.safetensors",
    ]
    state = t.journal.state_to_go_on_from(1)
    assert state is not None
    assert (state.trial, state.step) == (0, 120)


def test_states_that_the_journal_does_not_name_are_found_again(tmp_path: Path) -> None:
    t = tuning(tmp_path)
    t.start()
    assert found(t) is None
    save(t, "trials/00000/checkpoint.safetensors", 40)  # as versions before this one named it
    assert found(t) == ("trials/00000/checkpoint.safetensors", 40)
    t.journal.forget(t.journal.saved_of(0))
    for step in (80, 120):
        save(t, f"trials/00000/attempt-2/step-{step:08d}.safetensors", step)
    save(t, "trials/00000/attempt-3/step-00000160.safetensors", 160, seed=7)
    (tmp_path / "trials/00000/attempt-3/step-00000200.safetensors").write_bytes(b"torn")
    (tmp_path / "trials/00000/hang.txt").write_text("")
    assert found(t) == ("trials/00000/attempt-2/step-00000120.safetensors", 120), "the newest of its own"
    save(t, "trials/00000/attempt-2/step-00000160.safetensors", 160)
    assert found(t) == ("trials/00000/attempt-2/step-00000120.safetensors", 120), "what the journal names counts"


def test_a_state_that_is_named_and_not_there_is_forgotten(tmp_path: Path) -> None:
    t = tuning(tmp_path)
    t.start()
    t.report(0, evaluation(40), saved=True)
    assert found(t) is None
    t = resume(t)
    assert t.suggest()["state"] is None


def test_a_sweep_that_is_complete_keeps_its_best_weights_alone(tmp_path: Path) -> None:
    t = tuning(tmp_path)
    t.journal.set_meta(Meta.BASELINES, json.dumps(BASELINES))
    t.start(2)
    model = "trials/00000/attempt-1/model.safetensors"
    t.report(0, evaluation(40), saved=True)
    t.journal.add_saved([SavedRecord(0, 1, 120, FileKind.MODEL, model, "")])
    known = t.journal.state(0)
    assert known is not None
    beyond = "trials/00001/attempt-1-of-driver-1/step-00000060.safetensors"  # its report was lost with its machine
    later = "trials/00001/attempt-2-of-driver-3/step-00000080.safetensors"
    for key, step in ((model, 120), (known.key, 40), (beyond, 60), (later, 80)):
        save(t, key, step)
    place = replace(t.search.place, epoch=2)
    mark_complete(place, t.journal)
    assert place.files().all_keys() == [model, later]
    assert [record.key for record in t.journal.saved_of(0)] == [model]


def test_a_file_that_is_not_what_was_reported_is_refused(tmp_path: Path) -> None:
    t = tuning(tmp_path)
    t.start()
    path = save(t, "trials/00000/attempt-1/step-00000040.safetensors", 40)
    files = TrialFiles(str(tmp_path))
    with pytest.raises(DamagedCheckpoint, match=r"is not what was saved: its SHA-256 is \w+, but abc was reported"):
        files.reading("trials/00000/attempt-1/step-00000040.safetensors", "abc").__enter__()
    path.unlink()
    with pytest.raises(DamagedCheckpoint, match="is not there any more"):
        files.reading("trials/00000/attempt-1/step-00000040.safetensors", "abc").__enter__()


def test_no_two_attempts_write_the_same_file() -> None:
    folders = [attempt_folder(3, attempt, epoch) for epoch in (0, 1, 2, 11) for attempt in (1, 2, 11)]
    assert len(set(folders)) == len(folders)
