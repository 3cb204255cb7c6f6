"""With which configuration a trial of population based training trained, from which step, and from whose state."""

from __future__ import annotations

from search.config.space import build_trial
from search.config.strategies import mutable_parameters
from search.config.stretches import Stretch
from search.config.sweep import Sweep
from search.journal.journal import Journal
from search.journal.records import MutationRecord, TrialRecord
from vaegan_core.config.trial import TrialConfig, parse_trial
from vaegan_core.strict_yaml import parse_yaml

SEED = "train.seed"


def lineage(sweep: Sweep, journal: Journal, trial: int) -> list[Stretch]:
    """The stretches of a trial, in order; one for a trial that has always gone on by itself."""
    stretches = [Stretch(0, None, _first_config(sweep, journal, journal.trial(trial)))]
    for record in journal.mutations(trial):
        stretches.append(Stretch(record.step, record.donor, config_after(sweep, journal, record)))
    return stretches


def config_after(sweep: Sweep, journal: Journal, record: MutationRecord) -> TrialConfig:
    """The configuration with which a trial continues after a mutation: the donor's of that step, with the mutation's
    parameters and the trial's own seed."""
    donor = _config_at(sweep, journal, record.donor, record.step)
    own = _stored_config(journal.trial(record.trial))
    changed = {name: record.params[name] for name in mutable_parameters(sweep.space) if name in record.params}
    return build_trial(donor.dump(), changed | {SEED: own.train.seed})


def _config_at(sweep: Sweep, journal: Journal, trial: int, step: int) -> TrialConfig:
    """The configuration with which a trial came to a step."""
    before = [record for record in journal.mutations(trial) if record.step < step]
    return config_after(sweep, journal, before[-1]) if before else _first_config(sweep, journal, journal.trial(trial))


def _first_config(sweep: Sweep, journal: Journal, trial: TrialRecord) -> TrialConfig:
    """The configuration that a trial began with; the journal holds that of now."""
    stored = _stored_config(trial)
    if not journal.mutations(trial.number):
        return stored
    assigned = sweep.space.assign(lambda name, _: trial.params[name])
    return sweep.trial(trial.params | assigned | {SEED: stored.train.seed})


def _stored_config(trial: TrialRecord) -> TrialConfig:
    return parse_trial(parse_yaml(trial.config, "config.yaml"), "config.yaml")
