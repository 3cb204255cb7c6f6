"""A trial's files: the state it continues from, and what is deleted when it has ended."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from search.paths import ADOPTED_FILE, CHECKPOINT_FILE, HANG_FILE, trial_directory
from vaegan_core.config import TrialConfig, parse_trial
from vaegan_core.problems import ConfigError
from vaegan_core.tensor_files import (
    DamagedCheckpoint,
    flatten_state,
    load_tensors,
    read_metadata,
    save_tensors,
    strip_prefix,
)
from vaegan_core.training.machine import decided
from vaegan_core.training.trainer import EVALUATIONS


def saved_step(directory: Path) -> int:
    """Step of the state that a trial continues from, 0 without one; an unreadable one raises when it is loaded."""
    for name in (ADOPTED_FILE, CHECKPOINT_FILE):
        with suppress(DamagedCheckpoint):
            if (directory / name).exists():
                return int(read_metadata(directory / name)["step"])
    return 0


def has_checkpoint(directory: Path, trial: int) -> bool:
    """Whether a sweep's directory holds the state of a trial."""
    return (trial_directory(directory, trial) / CHECKPOINT_FILE).is_file()


def saved_facts(directory: Path) -> dict[str, Any]:
    """What the machine decided for the state that a trial continues from; empty without one."""
    with suppress(DamagedCheckpoint):
        if (directory / CHECKPOINT_FILE).exists():
            return decided(parse_trial(read_metadata(directory / CHECKPOINT_FILE)["config"], CHECKPOINT_FILE))
    return {}


def adopt_state(donor: Path, checkpoint: Path, config: TrialConfig) -> None:
    """Turns `donor`, a copy of another trial's state, into the checkpoint of the trial with `config`.

    What the trial has reported stays its own.
    """
    tensors, metadata = load_tensors(donor)
    own = load_tensors(checkpoint)[0] if checkpoint.exists() else {}
    state = {name: tensor for name, tensor in tensors.items() if not name.startswith("evaluation")}
    state |= flatten_state(EVALUATIONS, strip_prefix(EVALUATIONS, own))
    save_tensors(checkpoint, state, metadata | {"config": config.dump()})
    donor.unlink()


def set_aside_foreign(checkpoint: Path, config: TrialConfig) -> None:
    """Renames a checkpoint of another configuration, which lies in the way of a trial's first attempt where the journal
    has lost a trial of that number: it was copied back, or the disk had promised too much when the power failed."""
    if not checkpoint.exists():
        return
    with suppress(DamagedCheckpoint, ConfigError):
        if parse_trial(read_metadata(checkpoint)["config"], str(checkpoint)).dump() == config.dump():
            return
    checkpoint.rename(checkpoint.with_name(f"other-{checkpoint.name}"))


def discard_checkpoint(directory: Path) -> None:
    """Deletes the checkpoints of an ended trial; its model, if it has one, is kept."""
    for name in (CHECKPOINT_FILE, ADOPTED_FILE, HANG_FILE):
        (directory / name).unlink(missing_ok=True)


def discard_trial(directory: Path) -> None:
    """Deletes all files of a trial."""
    shutil.rmtree(directory, ignore_errors=True)


def discard_states(directory: Path) -> None:
    """Deletes the states that were kept for trials that might have gone on, once the sweep is complete."""
    for path in (*directory.glob(f"trials/*/at-*-{CHECKPOINT_FILE}"), *directory.glob(f"trials/*/{CHECKPOINT_FILE}")):
        path.unlink()
        with suppress(OSError):  # not empty
            path.parent.rmdir()
