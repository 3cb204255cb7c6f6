"""An alias and its history; several who move it at once, on a real server."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from promotable import copy_store
from servers import MlflowServer

from search.promotion import alias as module
from search.promotion.alias import Alias, taken_in
from search.promotion.errors import PromotionLost

NAMES = itertools.count()


def model_with(client: MlflowClient, versions: int) -> Alias:
    """A model with versions 1, 2, … and an alias that none has."""
    name = f"model-{next(NAMES)}"
    client.create_registered_model(name)
    for _ in range(versions):
        client.create_model_version(name, "s3://nowhere/model")
    return Alias(client, name, "champion")


@pytest.fixture
def client(empty_store: Path, tmp_path: Path) -> MlflowClient:
    return MlflowClient(copy_store(empty_store, tmp_path))


def move(alias: Alias, version: str) -> None:
    with alias.claimed() as to:
        to(version)


def holder(alias: Alias) -> str | None:
    found = alias.holder()
    return None if found is None else str(found.version)


def claims(alias: Alias) -> list[str]:
    return [key for key in alias.client.get_registered_model(alias.model).tags if ".claim." in key]


@pytest.mark.parametrize(
    ("history", "now", "expected"),
    [([], None, []), ([], "1", ["1"]), (["1"], "1", ["1"]), (["1", "2"], "3", ["1", "2", "3"]), (["1"], None, ["1"])],
)
def test_a_holder_that_came_by_other_means_is_taken_into_the_history(
    history: list[str], now: str | None, expected: list[str]
) -> None:
    assert taken_in(history, now) == expected


def test_rolling_back_goes_one_further_each_time_through_all_that_held_it(client: MlflowClient) -> None:
    alias = model_with(client, 3)
    for version in ("1", "2", "3", "1"):
        move(alias, version)
    assert alias.history() == ["1", "2", "3", "1"]
    assert [alias.roll_back(dry_run=False)[1] for _ in range(3)] == ["3", "2", "1"]
    with pytest.raises(ValueError, match="version 1 is the first that had the alias champion"):
        alias.roll_back(dry_run=False)
    assert holder(alias) == "1"
    move(alias, "3")
    assert alias.roll_back(dry_run=False) == ("3", "1")
    assert client.get_model_version(alias.model, "3").tags["rolled_back"].startswith("to version 1 at ")
    assert claims(alias) == []


def test_a_dry_rollback_changes_nothing(client: MlflowClient) -> None:
    alias = model_with(client, 2)
    move(alias, "1")
    move(alias, "2")
    before = client.get_registered_model(alias.model).tags
    assert alias.roll_back(dry_run=True) == ("2", "1")
    assert holder(alias) == "2"
    assert client.get_registered_model(alias.model).tags == before


def test_rolling_back_passes_over_versions_that_were_deleted(client: MlflowClient) -> None:
    alias = model_with(client, 3)
    for version in ("1", "2", "3"):
        move(alias, version)
    client.delete_model_version(alias.model, "2")
    assert alias.roll_back(dry_run=False) == ("3", "1")
    assert alias.history() == ["1"]


def test_without_a_holder_or_a_model_there_is_nothing_to_roll_back(client: MlflowClient) -> None:
    alias = model_with(client, 1)
    with pytest.raises(ValueError, match="so there is nothing to roll back"):
        alias.roll_back(dry_run=False)
    near = Alias(client, alias.model.replace("model", "modle"), "champion")
    with pytest.raises(ValueError, match=f"did you mean {alias.model}"):
        near.roll_back(dry_run=False)


@pytest.mark.parametrize("broken", ["_write_history", "set_registered_model_alias"])
def test_a_move_that_is_cut_off_leaves_a_history_that_can_be_rolled_back(
    client: MlflowClient, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    alias = model_with(client, 2)
    move(alias, "1")
    with monkeypatch.context() as patch:
        patch.setattr(alias if broken == "_write_history" else client, broken, _interrupted)
        with pytest.raises(KeyboardInterrupt):
            move(alias, "2")
    if holder(alias) == "2":
        assert alias.roll_back(dry_run=False) == ("2", "1")
    assert alias.history() == ["1"]


@pytest.mark.parametrize("broken", ["_write_history", "set_registered_model_alias"])
def test_a_rollback_that_is_cut_off_can_be_done_again(
    client: MlflowClient, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    alias = model_with(client, 3)
    for version in ("1", "2", "3"):
        move(alias, version)
    with monkeypatch.context() as patch:
        patch.setattr(alias if broken == "_write_history" else client, broken, _interrupted)
        with pytest.raises(KeyboardInterrupt):
            alias.roll_back(dry_run=False)
    assert alias.roll_back(dry_run=False) == ("3", "2")
    assert alias.history() == ["1", "2"]


def _interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


# --- Several at once --------------------------------------------------------------------------------------------------


def test_whoever_finds_the_alias_moved_or_moves_last_says_so(client: MlflowClient) -> None:
    alias = model_with(client, 3)
    move(alias, "1")
    with pytest.raises(PromotionLost, match="moved from no version to version 1 meanwhile"), alias.claimed():
        alias.check_holder(None)
    alias.check_holder("1")
    with pytest.raises(PromotionLost, match="by something other than this command"):
        alias.check_moved("2")


def test_a_claim_of_the_dead_ends_and_one_held_for_dead_moves_nothing(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    alias = model_with(client, 2)
    dead = json.dumps({"by": "process 1 on elsewhere", "time": time.time() - module.CLAIM_SECONDS - 1})
    client.set_registered_model_tag(alias.model, "vaegan.champion.claim.0", dead)
    move(alias, "1")
    assert claims(alias) == []
    with alias.claimed() as to:
        [own] = claims(alias)
        client.delete_registered_model_tag(alias.model, own)
        with pytest.raises(PromotionLost, match="held it for dead; nothing was moved"):
            to("2")
    assert holder(alias) == "1"
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.0)
    living = json.dumps({"by": "process 1 on elsewhere", "time": time.time()})
    for key in ("vaegan.champion.claim.0", "vaegan.champion.claim.z"):
        client.set_registered_model_tag(alias.model, key, living)
        with pytest.raises(PromotionLost, match="process 1 on elsewhere"):
            move(alias, "2")
        client.delete_registered_model_tag(alias.model, key)
    assert holder(alias) == "1"


class Interleaved:
    """A client whose calls wait for their turn: which thread makes the next one is drawn from a seed."""

    def __init__(self, client: MlflowClient, turns: Callable[[], None]) -> None:
        self._client, self._turns = client, turns

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._client, name)

        def taken(*arguments: Any, **more: Any) -> Any:
            self._turns()
            return call(*arguments, **more)

        return taken


def compete(alias: Alias, expected: str | None, versions: tuple[str, ...], seed: int) -> list[str]:
    """Moves the alias to each version in a thread of its own, in an interleaving of single calls that the seed decides;
    returns the versions that believe that they have it."""
    import random

    order, won, lock = random.Random(seed), [], threading.Condition()
    waiting: set[int] = set()
    alive = set(range(len(versions)))
    turn: list[int] = []

    def next_turn() -> None:
        if alive and not turn and waiting == alive:
            turn.append(order.choice(sorted(alive)))
            lock.notify_all()

    def take_turn(index: int) -> None:
        with lock:
            waiting.add(index)
            next_turn()
            lock.wait_for(lambda: turn == [index])
            turn.clear()
            waiting.discard(index)

    def run(index: int, version: str) -> None:
        own = Alias(Interleaved(alias.client, lambda: take_turn(index)), alias.model, alias.alias)
        try:
            with own.claimed() as to:
                own.check_holder(expected)
                to(version)
            won.append(version)
        except PromotionLost:
            pass
        finally:
            with lock:
                alive.discard(index)
                waiting.discard(index)
                next_turn()

    threads = [threading.Thread(target=run, args=each) for each in enumerate(versions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return won


def test_of_promotions_at_once_exactly_one_wins_whatever_the_order_of_their_calls(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.0)
    alias, expected = model_with(client, 3), None
    for seed in range(12):
        versions = tuple(version for version in ("1", "2", "3") if version != expected)
        won = compete(alias, expected, versions, seed)
        assert [holder(alias)] == won, f"seed {seed}"
        assert claims(alias) == []
        expected = won[0]
    assert len(alias.history()) == 12


RACE = """
import sys
from mlflow import MlflowClient
from search.promotion.alias import Alias
from search.promotion.errors import PromotionLost

uri, model, version = sys.argv[1:]
alias = Alias(MlflowClient(uri), model, "champion")
print("ready", flush=True)
sys.stdin.readline()
try:
    with alias.claimed() as to:
        alias.check_holder(None)
        to(version)
    print("won")
except PromotionLost as error:
    print("lost:", error)
"""


@pytest.fixture
def racing(sqlite_server: MlflowServer) -> Iterator[tuple[Alias, list[subprocess.Popen[str]]]]:
    """Two processes that wait for a line to begin."""
    alias = model_with(MlflowClient(sqlite_server.uri), 2)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, sqlite_server.uri, alias.model, version],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for version in ("1", "2")
    ]
    yield alias, processes
    for process in processes:
        process.kill()


def test_two_processes_that_promote_at_once_cannot_both_win(
    racing: tuple[Alias, list[subprocess.Popen[str]]],
) -> None:
    alias, processes = racing
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate(timeout=90)[0].strip() for process in processes]
    won = [version for version, line in zip(("1", "2"), said, strict=True) if line == "won"]
    assert won == [holder(alias)], said
    assert sum(line.startswith("lost: ") for line in said) == 1
    assert claims(alias) == []
