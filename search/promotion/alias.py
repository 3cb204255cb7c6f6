"""An alias of a registered model: who holds it, who held it before, and how it is moved by one process at a time.

MLflow's registry has no compare-and-set: of two processes that read the alias and then move it, both would believe that
they had won. So whoever moves it first writes a *claim*, a tag of the model with a key of its own, and then reads all
claims. Because every process writes before it reads, of two at least one sees the other. The rule: while there are
claims of others, the one with the smallest key waits for them to disappear, and all others withdraw. Inside its claim a
process reads the alias again and gives up if it is no longer what its gates were about. A claim older than
CLAIM_SECONDS is of a process that died, and is removed; one that finds its own claim removed moves nothing.

The versions that held the alias are kept in order in another tag of the model. A move writes the alias first and then
the history, a rollback first the history and then the alias: cut off in between, both look as if somebody had moved the
alias by hand, which is noticed and taken into the history.
"""

from __future__ import annotations

import json
import os
import platform
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from search.promotion.errors import PromotionLost
from search.tracking.errors import is_refusal
from vaegan_core.spelling import did_you_mean

CLAIM_SECONDS = 900.0
WAIT_SECONDS = 60.0
POLL_SECONDS = 0.2
LONGEST_HISTORY = 1000


class Alias:
    """One alias of one registered model, which need not exist yet."""

    def __init__(self, client: MlflowClient, model: str, alias: str) -> None:
        self.client = client
        self.model = model
        self.alias = alias

    @property
    def _claims(self) -> str:
        return f"vaegan.{self.alias}.claim."

    @property
    def _history(self) -> str:
        return f"vaegan.{self.alias}.history"

    def holder(self) -> ModelVersion | None:
        """The version that has the alias; None where no version has it, or there is no such model."""
        try:
            return self.client.get_model_version_by_alias(self.model, self.alias)
        except MlflowException as error:
            if not is_refusal(error):
                raise
            return None

    def history(self) -> list[str]:
        """The versions that held the alias, oldest first; the present holder is the last one."""
        return taken_in(json.loads(self._tags().get(self._history, "[]")), _number(self.holder()))

    # --- Moving it ----------------------------------------------------------------------------------------------------

    @contextmanager
    def claimed(self) -> Iterator[Callable[[str], None]]:
        """Inside, this process alone moves the alias; yields the function that moves it to a version.

        Raises PromotionLost, before anything is changed, while another process is moving it.
        """
        self._make_model()
        key = f"{self._claims}{uuid.uuid4().hex}"
        who = {"by": f"process {os.getpid()} on {platform.node()}", "time": time.time()}
        self.client.set_registered_model_tag(self.model, key, json.dumps(who))
        try:
            self._wait_for_turn(key)
            yield lambda version: self._move(key, version)
        finally:
            with suppress(MlflowException):
                self.client.delete_registered_model_tag(self.model, key)

    def check_holder(self, expected: str | None) -> None:
        """Raises PromotionLost if another version has the alias than the one that the gates were about."""
        now = _number(self.holder())
        if now != expected:
            there = "no version" if expected is None else f"version {expected}"
            raise PromotionLost(
                f"the alias {self.alias} of {self.model} was moved from {there} to {_words(now)} meanwhile, so this "
                "promotion was compared with the wrong one and moved nothing; run it again"
            )

    def _move(self, key: str, version: str) -> None:
        tags = self._tags()
        if key not in tags:
            raise PromotionLost(
                f"this promotion of {self.model} took so long that another one held it for dead; nothing was moved"
            )
        history = taken_in(json.loads(tags.get(self._history, "[]")), _number(self.holder()))
        self.client.set_registered_model_alias(self.model, self.alias, version)
        self._write_history([*history, version])
        self.check_moved(version)

    def check_moved(self, version: str) -> None:
        """Raises PromotionLost where somebody moved the alias on at the same moment, without a claim."""
        now = _number(self.holder())
        if now != version:
            raise PromotionLost(
                f"the alias {self.alias} of {self.model} was moved to {_words(now)} right after it had been moved to "
                f"version {version}, by something other than this command; see who did, and run it again"
            )

    def roll_back(self, *, dry_run: bool) -> tuple[str, str]:
        """Moves the alias back to the version that held it before; returns (from, to). Again goes one further back.

        Raises ValueError where there is nothing to go back to.
        """
        if dry_run:
            return self._step_back()[:2]
        self._require_model()
        with self.claimed():
            now, before, history = self._step_back()
            self._write_history(history)
            self.client.set_registered_model_alias(self.model, self.alias, before)
            self.check_moved(before)
            moved = datetime.now(UTC).isoformat(timespec="seconds")
            self.client.set_model_version_tag(self.model, now, "rolled_back", f"to version {before} at {moved}")
        return now, before

    def _step_back(self) -> tuple[str, str, list[str]]:
        """The holder, the version before it that still exists, and the history up to that one."""
        self._require_model()
        history = self.history()
        if _number(self.holder()) is None:
            raise ValueError(f"no version of {self.model} has the alias {self.alias}, so there is nothing to roll back")
        there = {str(each.version) for each in self.client.search_model_versions(f"name = '{self.model}'")}
        now = history[-1]
        for end in range(len(history) - 1, 0, -1):
            if history[end - 1] in there and history[end - 1] != now:
                return now, history[end - 1], history[:end]
        raise ValueError(
            f"version {now} is the first that had the alias {self.alias} of {self.model}, so there is nothing to roll "
            "back to"
        )

    # --- Its tags -----------------------------------------------------------------------------------------------------

    def _wait_for_turn(self, key: str) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while others := self._others(key):
            first, by = min(others.items())
            if first < key or time.monotonic() > deadline:
                raise PromotionLost(
                    f"another promotion to {self.alias} of {self.model} is under way ({by}), so this one moved "
                    f"nothing; run it again afterwards. If it was killed, its claim ends {CLAIM_SECONDS / 60:.0f} "
                    "minutes after it was made"
                )
            time.sleep(POLL_SECONDS)

    def _others(self, key: str) -> dict[str, str]:
        """Who else claims the alias, by key; claims of the dead are removed."""
        others = {}
        for other, value in self._tags().items():
            if not other.startswith(self._claims) or other == key:
                continue
            claim = json.loads(value)
            if time.time() - claim["time"] > CLAIM_SECONDS:
                with suppress(MlflowException):
                    self.client.delete_registered_model_tag(self.model, other)
            else:
                others[other] = claim["by"]
        return others

    def _tags(self) -> dict[str, str]:
        try:
            return dict(self.client.get_registered_model(self.model).tags)
        except MlflowException as error:
            if not is_refusal(error):
                raise
            return {}

    def _write_history(self, history: Sequence[str]) -> None:
        self.client.set_registered_model_tag(self.model, self._history, json.dumps(history[-LONGEST_HISTORY:]))

    def _make_model(self) -> None:
        if self.client.search_registered_models(f"name = '{self.model}'"):
            return
        try:
            self.client.create_registered_model(self.model)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _require_model(self) -> None:
        if not self.client.search_registered_models(f"name = '{self.model}'"):
            names = sorted(each.name for each in self.client.search_registered_models())
            known = f"{', '.join(names) or 'none'}{did_you_mean(self.model, names)}"
            raise ValueError(f"there is no registered model {self.model}; models there: {known}")


def taken_in(history: Sequence[str], holder: str | None) -> list[str]:
    """The history with the present holder at its end, who may have got the alias by other means."""
    if holder is None or (history and history[-1] == holder):
        return list(history)
    return [*history, holder]


def _number(version: ModelVersion | None) -> str | None:
    return None if version is None else str(version.version)


def _words(number: str | None) -> str:
    return "no version" if number is None else f"version {number}"
