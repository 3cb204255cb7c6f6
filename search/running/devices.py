"""What a resumed sweep needs of this machine's devices, and what is different there."""

from __future__ import annotations

from search.config.sweep import Sweep
from search.journal.journal import Journal
from search.journal.records import TrialRecord
from search.names import UNFINISHED_OUTCOMES
from search.provenance import decided_in
from search.terminal import Screen
from vaegan_core.config.trial import TrialConfig, parse_trial
from vaegan_core.strict_yaml import parse_yaml
from vaegan_core.training.machine import DECIDED, wishing


def restore_wishes(sweep: Sweep, journal: Journal) -> None:
    """Puts `auto` back into unfinished trials of a version before 0.3, which replaced it by a machine's decision."""
    base = sweep.config.base.get("train", {})
    for trial in journal.trials(*UNFINISHED_OUTCOMES):
        config = _config(trial)
        if config.resolved:
            wishes = {name: base[name] for name in DECIDED if name in base}
            wishes |= {name: trial.params[key] for name in DECIDED if (key := f"train.{name}") in trial.params}
            wished = wishing(config, wishes)
            if wished != config:
                journal.set_config(trial.number, wished.to_yaml())


def check_devices(sweep: Sweep, journal: Journal, screen: Screen) -> None:
    """Says which unfinished trials go on without the GPU that they began on.

    `sweep` has a number of GPUs for each trial. Raises ValueError, before any trial runs, when trials ask for a GPU and
    get none.
    """
    if sweep.config.resources.gpu:
        return
    unfinished = journal.trials(*UNFINISHED_OUTCOMES)
    asking = ["new trials"] if sweep.config.base.get("train", {}).get("device") == "cuda" else []
    asking += [f"trial {trial.number}" for trial in unfinished if _config(trial).train.device == "cuda"]
    if asking:
        raise ValueError(
            f"{', '.join(asking)} must train on a GPU (train.device is cuda), but trials get none here: Ray has none, "
            "or resources.gpu is 0; give them one, or set train.device to auto or cpu"
        )
    moving = [str(t.number) for t in unfinished if decided_in(journal.environment(t.number)).get("device") == "cuda"]
    if moving:
        screen.say(
            f"Trials that began on a GPU go on without one: {', '.join(moving)}. Their numbers change slightly from "
            "there on, and the tag `moved` of their runs says where."
        )


def _config(trial: TrialRecord) -> TrialConfig:
    return parse_trial(parse_yaml(trial.config), f"trial {trial.number}")
