"""A trial's model into MLflow's registry and under an alias: chosen, confirmed, judged, registered, moved."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from search.config.sweep_config import Constraint, PromoteConfig
from search.names import CHAMPION_ALIAS, Artifact, Outcome, Prefix, Tag
from search.promotion import gates
from search.promotion.alias import Alias
from search.promotion.choose import Choice, choose
from search.promotion.confirm import find_replicates, missing_seeds, train_replicate, write_confirmation
from search.promotion.gates import Gate
from search.promotion.measure import Bench, features_differ, measure, set_up
from search.promotion.register import Source, register, registered_from
from search.terminal import duration
from search.tracking.errors import is_refusal
from search.tracking.reader import (
    SweepRun,
    TrialRun,
    changed_on_the_way,
    read_artifact,
    read_config,
    sweep_of_run,
)
from vaegan_core.model.saved import load_model
from vaegan_core.problems import ConfigError, valid_parts
from vaegan_core.strict_yaml import parse_yaml
from vaegan_core.tensor_files import write_atomically

DEFAULT_SEEDS = 3


@dataclass(frozen=True)
class Wish:
    """What a person asks for."""

    target: str
    best: str | None = None
    """Objective."""
    model: str | None = None
    """Registered model; None: vaegan-NAME."""
    alias: str = CHAMPION_ALIAS
    frames: str | None = None
    """Where the frame set is now."""
    confirm: bool = True
    force: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class Voice:
    """How a promotion speaks while it goes on."""

    say: Callable[[str], None]
    stage: Callable[[str], AbstractContextManager[Any]]
    progress: Callable[[str, int | None], AbstractContextManager[Callable[..., None]]]


@dataclass(frozen=True)
class Promotion:
    """What became of it."""

    model: str
    trial: TrialRun
    size: tuple[int, int] | None
    """(H, W) of its frames; None where its weights were not read."""
    gates: tuple[Gate, ...]
    version: str | None
    """The version that has the alias by this; None where it does not."""
    moved: bool
    """False: it had the alias already, or a gate failed, or nothing was to be changed."""

    @property
    def failed(self) -> list[Gate]:
        return [gate for gate in self.gates if not gate.passed and not gate.pending]


@dataclass(frozen=True)
class Rules:
    """What the sweep's YAML asks of a promotion."""

    config: PromoteConfig
    seeds: int
    constraints: tuple[Constraint, ...]
    base_seed: int

    @classmethod
    def of(cls, text: str, what: str) -> Rules:
        """From a sweep's YAML, of whatever version: sections that are not about promotions do not matter here."""
        data = parse_yaml(text, what)
        config, wrong = valid_parts(PromoteConfig, data.get("promote", {}))
        if wrong:
            raise ConfigError(what, [(f"promote.{path}", message) for path, message in wrong])
        rules = PromoteConfig(**config)
        confirm = data.get("confirm") or {}
        seeds = rules.seeds if rules.seeds is not None else int(confirm.get("seeds", DEFAULT_SEEDS))
        constraints = tuple(Constraint.parse(each) for each in data.get("constraints", ()))
        return cls(rules, seeds, constraints, int(data["base"].get("train", {}).get("seed", 0)))


def check_names(model: str | None, alias: str) -> None:
    """Raises ValueError, before anything is asked or logged, for names that MLflow's registry does not take."""
    if model is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", model):
        raise ValueError(f"--model must be made of letters, digits, '.', '_' and '-', but got {model!r}")
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", alias) or re.fullmatch(r"latest|v\d+", alias, re.IGNORECASE):
        raise ValueError(
            f"--alias must be made of letters, digits, '_' and '-', and be neither latest nor v1 and so on, but got "
            f"{alias!r}"
        )


def promote(client: MlflowClient, wish: Wish, voice: Voice) -> Promotion:
    """Promotes a trial: every gate is judged and said, and only if all pass, or with `force`, the alias is moved.

    Raises ValueError where nothing can be promoted, and PromotionLost where another process moves the alias.
    """
    check_names(wish.model, wish.alias)
    choice = choose(client, wish.target, wish.best)
    alias = Alias(client, wish.model or f"vaegan-{choice.sweep.name}", wish.alias)
    with TemporaryDirectory() as directory:
        return _Attempt(client, wish, voice, choice, alias, Path(directory) / Artifact.MODEL).run()


class _Attempt:
    """One promotion, from a chosen trial to a moved alias."""

    def __init__(
        self, client: MlflowClient, wish: Wish, voice: Voice, choice: Choice, alias: Alias, weights: Path
    ) -> None:
        self.client, self.wish, self.voice, self.alias, self.weights = client, wish, voice, alias, weights
        self.choice, self.sweep, self.trial = choice, choice.sweep, choice.trial
        self.bench: Bench | None = None
        self.judged: list[Gate] = []
        self.holder = alias.holder()

    @cached_property
    def rules(self) -> Rules:
        text = read_artifact(self.client, self.sweep.run_id, Artifact.SWEEP).decode()
        return Rules.of(text, f"sweep.yaml of {self.sweep.name}")

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the weights, which are downloaded on first use. Raises ValueError if MLflow does not have them."""
        try:
            write_atomically(self.weights, read_artifact(self.client, self.trial.run_id, Artifact.MODEL))
        except ValueError as error:
            rule = "a run has weights if it reached its last step and is among the sweep's best tracking.keep_models"
            raise ValueError(f"{error}; {rule}") from None
        return hashlib.sha256(self.weights.read_bytes()).hexdigest()

    def run(self) -> Promotion:
        self.voice.say(f"Trial {self.trial.number} of {self.sweep.name} ({self.choice.why}), to {self._target}. Gates:")
        if self.holder is not None and self.holder.run_id == self.trial.run_id and self._holds_these_weights():
            return self._ended(str(self.holder.version), moved=False)
        for gate in self._gates():
            self.voice.say(str(gate))
            self.judged.append(gate)
            if not gate.passed and not gate.forcible:
                return self._ended(None, moved=False)
        failed = [gate for gate in self.judged if not gate.passed]
        if self.wish.dry_run or (failed and not self.wish.force):
            return self._ended(None, moved=False)
        return self._ended(self._move(failed), moved=True)

    @property
    def _target(self) -> str:
        present = "no version has it yet" if self.holder is None else f"version {self.holder.version} has it"
        return f"{self.alias.model}@{self.alias.alias} ({present})"

    def _holds_these_weights(self) -> bool:
        tagged = None if self.holder is None else self.holder.tags.get(Tag.MODEL_SHA)
        return tagged in (None, self.trial.tags.get(Tag.MODEL_SHA))

    def _ended(self, version: str | None, *, moved: bool) -> Promotion:
        size = load_model(self.weights).size if moved else None
        return Promotion(self.alias.model, self.trial, size, tuple(self.judged), version, moved)

    # --- Gates, the cheap ones first --------------------------------------------------------------------------------

    def _gates(self) -> Iterator[Gate]:
        """Each gate, judged when it is asked for: training begins only after those before it were seen."""
        rules, objectives = self.rules, self.sweep.objectives
        yield gates.completed(self.trial)
        yield gates.weights(self.sha256, self.trial.tags.get(Tag.MODEL_SHA))
        yield gates.diagnoses(self.trial, rules.config.diagnoses)
        yield self._reproduces()
        why_not, pending = self._confirm()
        yield gates.confirmed(self.trial.confirmation, rules.seeds, why_not, pending=pending)
        yield gates.constraints(self.trial, [str(each) for each in rules.constraints])
        values = {**self.trial.final, **self.trial.confirmed}
        yield gates.baseline(values, objectives, self.sweep.scales, rules.config.baseline)
        yield self._against_holder()

    def _reproduces(self) -> Gate:
        try:
            with self.voice.stage("Measuring the stored weights on the frames"):
                self.bench = set_up(self.client, self.sweep, self.trial, self.wish.frames)
                now = measure(self.weights, self.bench)
        except ValueError as error:
            return Gate("reproduces", False, str(error), run=False)
        tolerance = self.rules.config.tolerance
        gate = gates.reproduces(now, self.trial.final, self.sweep.objectives, self.bench.moved, tolerance)
        other = "" if gate.passed else features_differ(self.bench, self.sweep.baselines)
        return replace(gate, words=f"{gate.words}; {other}") if other else gate

    def _confirm(self) -> tuple[str, bool]:
        """Trains the replicates that are missing, and rereads the trial; or says why not, and whether a promotion that
        is no dry run would."""
        confirmation, wanted = self.trial.confirmation, self.rules.seeds
        if wanted == 0 or (confirmation is not None and confirmation.ended >= wanted):
            return "", False
        replicates = find_replicates(self.client, self.sweep, self.trial)
        seeds = missing_seeds(replicates, wanted, self.rules.base_seed)
        if seeds:
            if why_not := self._why_not_train():
                return why_not, False
            if self.wish.dry_run:
                return f"a promotion would train them. {self._forecast(seeds)}", True
            assert self.bench is not None
            self.voice.say(f"          {self._forecast(seeds)}")
            for number, seed in enumerate(seeds, 1):
                title, steps = f"Fresh seed {number} of {len(seeds)}", self.bench.config.train.steps
                with self.voice.progress(title, steps) as advance:
                    train_replicate(self.client, self.choice, self.bench, seed, advance, self.voice.say)
            replicates = find_replicates(self.client, self.sweep, self.trial)
        if self.wish.dry_run:
            return "a promotion would write the mean of the replicates that have run", True
        write_confirmation(self.client, self.sweep, self.trial, replicates, self.rules.constraints)
        self.trial = _reread(self.client, self.trial)
        return "", False

    def _why_not_train(self) -> str:
        """Why no replicate can or need be trained; "" where it can."""
        if any(not gate.passed for gate in self.judged) and not self.wish.force:
            return "not trained, because a gate above has failed"
        if not self.wish.confirm:
            return "not trained (--no-confirm)"
        own = gates.baseline(self.trial.final, self.sweep.objectives, self.sweep.scales, self.rules.config.baseline)
        if not own.passed and not self.wish.force:
            return "not trained, because the trial's own values do not pass the baseline"
        if self.bench is None:
            return "they cannot be trained without the frames"
        if changed_on_the_way(self.client, self.trial.run_id, self.trial.metrics):
            return (
                "its parameters changed during training (population based training), so the configuration that is kept "
                "does not repeat it; promote.seeds: 0 asks for none"
            )
        return ""

    def _forecast(self, seeds: list[int]) -> str:
        """What training the seeds will take, at the speed at which the trial itself was trained."""
        assert self.bench is not None
        train = self.bench.config.train
        speed = self.trial.metrics.get(f"{Prefix.SPEED}images_per_second")
        info = self.client.get_run(self.trial.run_id).info
        seconds = train.steps * train.batch_size / speed if speed else None
        if Tag.ATTEMPTS not in self.trial.tags and info.end_time and info.start_time:
            seconds = (info.end_time - info.start_time) / 1000
        took = "" if seconds is None else f", about {duration(seconds * len(seeds))} at the speed of the trial itself"
        count = f"{len(seeds)} {'replicate' if len(seeds) == 1 else 'replicates'} of {train.steps:,} steps"
        return f"Training {count} here{took}; after Ctrl-C the same command continues."

    def _against_holder(self) -> Gate:
        version = None if self.holder is None else str(self.holder.version)
        decided = gates.holder_not_asked(self.rules.config, version)
        if decided is not None or self.holder is None:
            assert decided is not None
            return decided
        found = self._trial_behind(self.holder)
        if isinstance(found, str):
            return gates.incomparable(found, str(version))
        sweep, present = found
        if otherwise := self._measured_otherwise(present):
            return gates.incomparable(f"it was measured {otherwise}", str(version))
        if set(sweep.objectives) != set(self.sweep.objectives):
            other = ", ".join(sweep.objectives)
            return gates.incomparable(f"the objectives of its sweep are others ({other})", str(version))
        rule = self.rules.config.holder
        return gates.holder(self.trial, present, self.sweep.objectives, rule, str(version))

    def _measured_otherwise(self, present: TrialRun) -> str:
        """In what way the holder was measured that this trial was not; "" where numbers of both mean the same."""
        for tag, what in ((Tag.FRAMES, "on frames"), (Tag.FEATURES, "in features")):
            ours, theirs = (trial.tags.get(tag) for trial in (self.trial, present))
            if ours != theirs and (tag == Tag.FRAMES or (ours and theirs)):
                return f"{what} {theirs}, this one {what} {ours}"
        mine, its = (read_config(self.client, trial.run_id).evaluate for trial in (self.trial, present))
        for key in ("num_test", "num_samples", "density_components"):  # Fréchet distances grow with fewer images
            if getattr(mine, key) != getattr(its, key):
                return f"with evaluate.{key} {getattr(its, key)}, this one with {getattr(mine, key)}"
        return ""

    def _trial_behind(self, version: ModelVersion) -> tuple[SweepRun, TrialRun] | str:
        """The sweep and the trial that a version comes from; or why they cannot be read."""
        try:
            parent = self.client.get_run(version.run_id).data.tags["mlflow.parentRunId"]
            known = parent == self.sweep.run_id
            sweep = self.sweep if known else sweep_of_run(self.client, self.client.get_run(parent))
        except KeyError:
            return f"its run {version.run_id} is no trial of a sweep"
        except MlflowException as error:
            if not is_refusal(error):
                raise
            return f"its run {version.run_id} is not there any more"
        trials = [trial for trial in sweep.trials if trial.run_id == version.run_id]
        if not trials or trials[0].outcome != Outcome.COMPLETED:
            return f"its run {version.run_id} is not there any more, or is no completed trial"
        return sweep, trials[0]

    # --- The registry -----------------------------------------------------------------------------------------------

    def _move(self, overridden: list[Gate]) -> str:
        """Registers the weights, unless they are, and moves the alias; returns the version."""
        before = None if self.holder is None else str(self.holder.version)
        source = Source(self.sweep, self.trial, self.weights, self.sha256, self.bench)
        tags = self._tags(overridden)
        with self.alias.claimed() as move, self.voice.stage("Registering the model"):
            self.alias.check_holder(before)
            version = registered_from(self.client, self.alias.model, self.trial.run_id, self.sha256)
            if version is None:
                version = register(self.client, self.alias.model, source, tags)
            else:
                for key, value in tags.items():
                    self.client.set_model_version_tag(self.alias.model, version, key, value)
            self.alias.check_holder(before)
            move(version)
        return version

    def _tags(self, overridden: list[Gate]) -> Mapping[str, str]:
        """Where the version comes from and how it was judged."""
        confirmation = self.trial.confirmation
        tags = {
            Tag.SWEEP_ID: self.trial.tags[Tag.SWEEP_ID],
            Tag.SWEEP_NAME: self.sweep.name,
            Tag.TRIAL: str(self.trial.number),
            Tag.MODEL_SHA: self.sha256,
            Tag.OBJECTIVES: ",".join(self.sweep.objectives),
            Tag.CONFIRMED: confirmation.in_words() if confirmation else "no",
            "forced": "; ".join(f"{gate.name}: {gate.words}" for gate in overridden) or "no",
        }
        for tag in (Tag.FRAMES, Tag.GIT):
            if tag in self.trial.tags:
                tags[tag] = self.trial.tags[tag]
        return tags


def _reread(client: MlflowClient, trial: TrialRun) -> TrialRun:
    data = client.get_run(trial.run_id).data
    return replace(trial, metrics=data.metrics, tags=data.tags)
