"""Which trial comes next: named points, designs, the sampler's suggestions, trials of blocks, and replicates; told how
each ended.

Trials of blocks are no evidence for the sampler, which does not see them: what it suggests must not depend on what is
asked, their levels may lie outside the space and their lengths be other ones, and of one draw there are many near
copies, each of which would count."""

from __future__ import annotations

import json
import time
from collections import Counter, deque
from collections.abc import Mapping
from random import Random
from typing import Any

import optuna
from optuna.trial import TrialState

from search.config.strategies import MODELS, PbtConfig
from search.config.sweep import Sweep
from search.journal.journal import Journal
from search.journal.questions import register
from search.journal.records import BlockPlace, TrialRecord
from search.names import BLOCK, TIMES, UNFINISHED_OUTCOMES, Outcome
from search.standings.blocks import Blocks
from search.standings.standings import missing_replicates
from search.strategy.arms import BEST, around, beliefs, choose_arm, draw_near
from search.strategy.designs import grid_point, quasi_random
from search.strategy.evidence import Evidence
from search.strategy.population import param_points
from search.strategy.samplers import make_sampler
from search.strategy.study import STATES, build_study, constraint_values, final_values, intermediate_values
from vaegan_core.problems import ConfigError
from vaegan_core.strict_yaml import dump_yaml

SEED = "train.seed"
QUASI_RANDOM = "quasi-random"
NOWHERE = {"host": "none", "device": "none"}
"""Environment of a trial that never began."""


class Proposals:
    """New trials, written to the journal before anybody can run them."""

    def __init__(self, sweep: Sweep, journal: Journal, slots: int) -> None:
        self.sweep = sweep
        self.journal = journal
        self.slots = slots
        self.beliefs = beliefs(sweep) if sweep.space.nodes else {}
        self.evidence = Evidence(sweep, journal)
        self.study = build_study(sweep, journal)
        self.study.sampler = make_sampler(sweep.config.sampler, self.evidence, len(sweep.config.objectives))
        register(sweep, journal)  # before any trial, whoever made the journal
        self.blocks = Blocks(sweep, journal)
        records = [record for record in journal.trials() if record.block is None]
        self._drawn = sum(record.replicate_of is None for record in records)
        self._next = journal.next_number()
        used = {record.origin.partition(TIMES)[0] for record in records}
        self._points = deque(name for name in sweep.config.points if f"point {name}" not in used)
        trials = self.study.get_trials(deepcopy=False)
        first = len(trials) - len(records)
        self._optuna_trials = {
            record.number: optuna.trial.Trial(self.study, trials[first + index]._trial_id)
            for index, record in enumerate(records)
            if record.outcome in UNFINISHED_OUTCOMES
        }
        self._by_design = sum(record.origin.startswith((QUASI_RANDOM, "qmc", "grid")) for record in records)
        self._seen = Counter(_key(record.params) for record in records if record.replicate_of is None)

    # --- New trials ---------------------------------------------------------------------------------------------------

    def draw(self) -> int | None:
        """Number of a new trial; None while there is none: the budget of trials is used up, and blocks are complete or
        wait for trials that run. An impossible one ends at once."""
        share = self.sweep.config.blocks.share
        due = self.blocks.begun < share * (self.blocks.begun + self._drawn + 1)
        first, second = (self._draw_of_block, self._draw_own) if due else (self._draw_own, self._draw_of_block)
        number = first()
        return second() if number is None else number

    def _draw_of_block(self) -> int | None:
        """Number of a new trial that answers questions; None while there is none."""
        found = self.blocks.next()
        if found is None:
            return None
        group, trial = found
        number, self._next = self._next, self._next + 1
        config = self.sweep.trial(trial.values).to_yaml()
        place = BlockPlace(group, trial.block, trial.levels, trial.across)
        self.journal.add_block_trial(number, trial.params, config, f"{BLOCK}{trial.block}", place)
        self.blocks.add(group)
        return number

    def _draw_own(self) -> int | None:
        """Number of a new trial of the points or the sampler; None when their budget is used up."""
        while self._drawn < self.sweep.num_trials:
            number = self._draw()
            if self.journal.outcome(number) == Outcome.RUNNING:
                return number
            self.tell(number)
        return None

    def _draw(self) -> int:
        origin, fixed = self._proposal()
        trial, values = self._suggested(fixed)
        params = {name: value for name, value in values.items() if name in fixed or name in trial.params}
        times = self._seen[_key(params)]
        if times and SEED not in params:  # the same again teaches only what another seed does
            origin += f"{TIMES}{times + 1} with these values"
            values = values | {SEED: int(self.sweep.config.base["train"].get("seed", 0)) + times}
        self._seen[_key(params)] += 1
        self._drawn += 1
        return self._add(trial, params, values, origin)

    def replicates(self) -> list[int]:
        """Numbers of new trials that repeat the best ones with fresh seeds, as `confirm` asks for."""
        return [
            self._replicate(self.journal.trial(number), seed)
            for number, seed in missing_replicates(self.sweep, self.journal)
        ]

    def _proposal(self) -> tuple[str, dict[str, Any]]:
        """What proposes the next trial, and the values it fixes before the sampler fills in the rest."""
        sampler, space = self.sweep.config.sampler, self.sweep.space
        if self._points:
            name = self._points.popleft()
            return f"point {name}", self.sweep.config.points[name]
        if sampler.name == "grid":
            self._by_design += 1
            return "grid", grid_point(space, self._by_design - 1)
        if sampler.name == "qmc":
            return "qmc", self._quasi_random()
        if self._starting_up():
            if self.beliefs and self._drawn % 2:
                return self._believed()
            return f"{QUASI_RANDOM} start-up of {sampler.name}", self._quasi_random()
        return self._arm() if sampler.name in MODELS and space.nodes else (sampler.name, {})

    def _quasi_random(self) -> dict[str, Any]:
        self._by_design += 1
        return quasi_random(self.sweep.space, self._by_design - 1, self.sweep.config.sampler.seed)

    def _arm(self) -> tuple[str, dict[str, Any]]:
        """A proposal of whichever arm did best; a model's own has no fixed values."""
        standing, model = self.evidence.standing(), self.sweep.config.sampler.name
        arms = [model, *self.beliefs, *([BEST] if standing.good else [])]
        random = self._random()
        arm = choose_arm({arm: standing.count(arm) for arm in arms}, random)
        if arm in self.beliefs:
            return arm, draw_near(self.sweep.space, self.beliefs[arm], random)
        return arm, around(self.sweep.space, random.choice(standing.good).params, random) if arm == BEST else {}

    def _believed(self) -> tuple[str, dict[str, Any]]:
        """A proposal near one of the centers, whichever: nothing has been tried yet."""
        random = self._random()
        arm = random.choice(list(self.beliefs))
        return arm, draw_near(self.sweep.space, self.beliefs[arm], random)

    def _random(self) -> Random:
        return Random(f"{self.sweep.config.sampler.seed} {self._drawn}")

    def _starting_up(self) -> bool:
        """Whether the model would learn from too little; unless earlier sweeps taught it, a design fills all slots."""
        sampler = self.sweep.config.sampler
        if sampler.name not in MODELS:
            return False
        self.evidence.refresh()
        design = 0 if self.evidence.num_known >= sampler.startup_trials else self.slots
        return self._drawn < design or len(self.evidence) < sampler.startup_trials

    def _suggested(self, fixed: Mapping[str, Any]) -> tuple[optuna.trial.Trial, dict[str, Any]]:
        """Optuna's next trial with these values fixed, and all its values."""
        if self.sweep.space.nodes and fixed:
            self.study.enqueue_trial(dict(fixed))
        trial = self.study.ask()
        suggested = self.sweep.space.suggest(trial)
        return trial, suggested if self.sweep.space.nodes else dict(fixed)

    def _replicate(self, record: TrialRecord, seed: int) -> int:
        trial, values = self._suggested(record.params)
        return self._add(trial, record.params, values | {SEED: seed}, f"confirms trial {record.number}", record.number)

    def _add(
        self,
        trial: optuna.trial.Trial,
        params: dict[str, Any],
        values: Mapping[str, Any],
        origin: str,
        replicate_of: int | None = None,
    ) -> int:
        number, self._next = self._next, self._next + 1
        self._optuna_trials[number] = trial
        try:
            config = self.sweep.trial(values).to_yaml()
        except ConfigError as error:
            with self.journal.transaction():  # or a driver that dies in between would leave a trial to run
                self.journal.add_trial(number, params, dump_yaml(dict(values)), origin, replicate_of)
                self._end_impossible(number, str(error))
            return number
        self.journal.add_trial(number, params, config, origin, replicate_of)
        if isinstance(self.sweep.config.scheduler, PbtConfig):
            self.journal.add_points(number, param_points(params, 0, int(time.time() * 1000)))
        return number

    def _end_impossible(self, number: int, reason: str) -> None:
        """Ends a trial whose values cannot go together; it has a run in MLflow as every other trial."""
        attempt = self.journal.start_attempt(number)
        self.journal.start_trial(number, attempt, self.journal.trial(number).config, NOWHERE)
        self.journal.end_attempt(number, attempt)
        self.journal.end_trial(number, Outcome.IMPOSSIBLE, reason)

    # --- How they ended -----------------------------------------------------------------------------------------------

    def tell(self, number: int) -> None:
        """Tells the evidence and Optuna how a trial ended; Optuna nothing where it continues later."""
        self.evidence.tell(number)
        record = self.journal.trial(number)
        state = STATES[record.outcome]
        if not state.is_finished():
            return
        trial = self._optuna_trials.pop(number, None)
        if trial is None:  # Optuna heard of its end before it got a second chance, and is never told twice
            return
        objectives = self.sweep.config.objectives
        for name, value in constraint_values(self.sweep, record.outcome, self.journal.last_metrics(number)).items():
            trial.set_constraint(name, value)
        for step, value in intermediate_values(objectives, self.journal, record).items():
            trial.report(value, step)
        trial.set_user_attr("outcome", str(record.outcome))
        values = final_values(objectives, self.journal, record) if state == TrialState.COMPLETE else None
        self.study.tell(trial, values, state=state)


def _key(params: Mapping[str, Any]) -> str:
    return json.dumps(params, sort_keys=True)
