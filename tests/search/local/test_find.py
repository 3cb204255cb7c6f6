"""Which run a person means."""

from __future__ import annotations

import pytest
from mlflow import MlflowClient

from search.local.find import find_run
from search.names import Kind, Tag
from search.tracking.runs import NewRun, create_run

PLACE = {"host": "h", "device": "d"}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> MlflowClient:
    """Two sweeps named demo, of which the newer one has two trials and a replicate, and one named night."""
    client = MlflowClient(f"sqlite:///{tmp_path_factory.mktemp('find')}/mlflow.db")
    for created, (id, name, trials) in enumerate((("old", "demo", 5), ("new", "demo", 2), ("n", "night", 0))):
        sweep = {Tag.SWEEP_ID: id, Tag.SWEEP_NAME: name, Tag.OBJECTIVES: "val/pixel_mse"}
        parent = create_run(client, "0", NewRun(Kind.SWEEP, name, created=1000.0 + created, more=sweep))
        for number in range(trials):
            tags = {**sweep, Tag.TRIAL: str(number)}
            run = create_run(client, "0", NewRun(Kind.TRIAL, f"{id}-{number}", PLACE, parent, 5000.0 - created, tags))
            create_run(client, "0", NewRun(Kind.RERUN, f"{id}-{number}-rerun", PLACE, run, more=tags))
    replicate = {Tag.SWEEP_ID: "new", Tag.SWEEP_NAME: "demo", Tag.TRIAL: "2"}
    create_run(client, "0", NewRun(Kind.REPLICATE, "new-2", PLACE, more=replicate))
    confirms = {**replicate, Tag.TRIAL: "0", Tag.SEED: "1000000"}
    create_run(client, "0", NewRun(Kind.REPLICATE, "new-0-again", PLACE, created=9000.0, more=confirms))
    impossible = {Tag.SWEEP_ID: "n", Tag.TRIAL: "0", Tag.OUTCOME: "impossible", Tag.REASON: "no such thing"}
    create_run(client, "0", NewRun(Kind.TRIAL, "night-000", PLACE, more=impossible))
    return client


def ids(client: MlflowClient) -> dict[str, str]:
    return {run.info.run_name: run.info.run_id for run in client.search_runs(["0"])}


@pytest.mark.parametrize(("name", "run"), [("demo/0", "new-0"), ("demo/001", "new-1"), ("demo/2", "new-2")])
def test_a_trial_by_the_newest_sweep_of_a_name_and_its_number(client: MlflowClient, name: str, run: str) -> None:
    assert find_run(client, name).info.run_name == run


def test_a_run_by_its_id_or_the_beginning_of_it(client: MlflowClient) -> None:
    run_id = ids(client)["new-1"]
    assert [find_run(client, name).info.run_id for name in (run_id, run_id[:12], run_id[:12].upper())] == [run_id] * 3


def test_a_beginning_of_several_names_them(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    both = [client.get_run(ids(client)[name]) for name in ("new-0", "new-1")]
    monkeypatch.setattr(client, "search_runs", lambda *_, **__: both)
    with pytest.raises(ValueError, match=r"2 runs begin with abcd: \w{8}… \(new-0\), \w{8}… \(new-1\); give more"):
        find_run(client, "abcd")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("demo/7", r"sweep demo has no trial 7; its trials are 0 to 1"),
        ("demmo/1", r"no sweep named demmo .*; did you mean demo\?"),
        ("it's/1", r"no sweep named it's"),
        ("demo", r"demo is a sweep; say which of its trials: demo/0"),
        ("nigt", r"RUN_ID must be the id of a run, .* or SWEEP/NUMBER such as demo/0, but got 'nigt', .*mean night\?"),
        ("night/0", r"run night/0 never began, so it cannot be repeated: no such thing"),
        ("abc", r"four or more of its first digits"),
    ],
)
def test_what_names_no_training_is_refused_with_what_is_near(client: MlflowClient, name: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        find_run(client, name)


def test_a_mistyped_id_gets_the_nearest_and_a_sweeps_own_run_trained_nothing(client: MlflowClient) -> None:
    run_id = ids(client)["new-1"]
    other = run_id[:-1] + ("0" if run_id[-1] != "0" else "1")
    with pytest.raises(ValueError, match=f"there is no run {other} at .*; did you mean {run_id}"):
        find_run(client, other)
    sweep = client.search_runs(["0"], f"tags.`{Tag.SWEEP_ID}` = 'new' and tags.`{Tag.KIND}` = 'sweep'")[0].info.run_id
    with pytest.raises(ValueError, match=r"is a sweep's own, which trained nothing; say which trial: demo/0"):
        find_run(client, sweep)
