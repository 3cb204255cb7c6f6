"""What is in the report's page: its text, the data of its scripts, and its budgets. Looks are tested in a browser."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from delivered import make_sweep_directory, write
from mlflow import MlflowClient
from pages import page_data
from PIL import Image
from planted_store import STEPS

from search.config.load import load_sweep
from search.names import Outcome
from search.report import curves, pictures
from search.report import page_data as columns
from search.report.findings import Findings
from search.report.health import Check, Facts
from search.report.importance import Importance
from search.report.page import render, write_page, write_sweep_file
from search.report.reported import Reported, read_reported
from search.tracking.reader import TrialRun
from vaegan_core.evaluation import LAYOUT_FD, METRICS, PIXEL_MSE, RECONSTRUCTIONS

HOSTILE = "</script><script>alert(1)</script><!-- & \u2028"
SAID = Findings(
    ("28 trials were searched.", f"Recommended is trial 4: {HOSTILE}"),
    4,
    "vaegan promote planted",
    (
        Check("bounds", False, "the best lie at a bound", "vaegan sweep a.yaml --set space.x.high=2"),
        Check("noise", None, "no trial was repeated"),
        Check("divergence", True, "few trials diverged"),
    ),
    (
        Importance(PIXEL_MSE, "model.width", 0.1, 0.0, 0.3, told=False),
        Importance(PIXEL_MSE, "optimizer.autoencoder.lr", 0.6, 0.5, 0.8, told=True),
    ),
)


@pytest.fixture(scope="module")
def reported(client: MlflowClient) -> Reported:
    return dataclasses.replace(read_reported(client, "planted"), findings=SAID)


@pytest.fixture(scope="module")
def page(client: MlflowClient, reported: Reported) -> str:
    return render(client, [reported])


@pytest.mark.parametrize("tags", [{}, {"git_sha": "0123456789abcdef"}])
def test_the_page_names_the_commit_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: MlflowClient, tags: dict[str, str]
) -> None:
    monkeypatch.setattr("search.tracking.runs.source_tags", lambda: tags)
    directory = make_sweep_directory(tmp_path, f"page-{len(tags)}")
    write(directory, client.tracking_uri).finish("")
    write_page(client, [read_reported(client, "toy")], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text().split("<body>")[1]
    assert ("code 0123456789</p>" in page) == bool(tags)
    assert "frames " + "f" * 16 in page
    assert "mean color" in page
    assert f"<dt>{PIXEL_MSE}</dt><dd>{METRICS[PIXEL_MSE].meaning}" in page
    sprites = page_data(page)["sweeps"][0]["pictures"]
    assert [sprite["prior_samples"]["steps"] for sprite in sprites.values()] == [[40, 80, 120], [40, 80, 120]]


def test_the_command_for_a_sweep_with_other_settings_finds_the_file_that_the_report_writes(
    client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    reported = read_reported(client, "planted")
    write_sweep_file(client, reported.sweep)
    facts = Facts(reported.sweep, reported.evaluations, reported.plan)
    command = shlex.split(facts.anew("space.optimizer.autoencoder.lr.high=0.1"))
    assert command[:3] == ["vaegan", "sweep", "runs/sweeps/planted/sweep.yaml"]
    assert command[-2:] == ["--warm-start", "planted"]
    settings = [word for option, word in pairwise(command) if option == "--set"]
    loaded = load_sweep(command[2], settings)
    assert loaded.config.name == "planted-next"
    assert loaded.config.space["optimizer.autoencoder.lr"]["high"] == 0.1
    assert "--warm-start" not in facts.anew("base.train.steps=960"), "trials of another base cannot be compared"
    Path(command[2]).write_text("a person's own")
    write_sweep_file(client, reported.sweep)
    assert Path(command[2]).read_text() == "a person's own"


def test_sections_come_in_the_order_in_which_they_are_read(page: str) -> None:
    headings = re.findall(r"<h2[^>]*>(.*?)</h2>", page)
    assert headings == [
        "In words",
        "Health checks",
        "Front",
        "Trials",
        "What mattered",
        "Pictures",
        "Curves",
        "Diagnoses, and what failed",
    ]
    said = ("28 trials were searched.", ">vaegan promote planted<", "▲ warning", "? cannot")
    places = [page.index(text) for text in said]
    assert places == sorted(places)
    assert page.index(">▲ warning<") < page.index(">? cannot be told<") < page.index(">✓ pass<")
    assert page.index('row">optimizer.autoencoder.lr') < page.index('row">model.width')


def test_nothing_in_it_can_leave_its_element_or_load_anything(page: str) -> None:
    assert page.count("<script") == page.count("</script>") == 2
    assert HOSTILE not in page
    assert "alert(1)" in page
    data = page.split('id="data">')[1].split("</script>")[0]
    assert not set("<>&") & set(data)
    assert "RuntimeError: <script>alert('reason')</script>" in page_data(page)["sweeps"][0]["reason"]["words"]
    assert re.findall(r"""(?:src|href)=["'](?!#|data:)([^"']*)""", page.split("<script>")[0]) == []
    assert "unsafe" not in page.split("<title>")[0]
    assert re.search(r"default-src &#39;none&#39;|default-src 'none'", page)


def test_its_columns_are_those_of_the_runs(reported: Reported, page: str) -> None:
    (data,) = page_data(page)["sweeps"]
    runs = {trial.number: trial for trial in reported.sweep.trials}
    assert sorted(data["number"]) == sorted(runs)
    assert data["number"][: len(reported.sweep.ranked)] == [trial.number for trial in reported.sweep.ranked]
    by_key = {metric["key"]: metric["values"] for metric in data["metrics"]}
    rates = next(each for each in data["parameters"] if each["key"] == "optimizer.autoencoder.lr")
    for place, number in enumerate(data["number"]):
        run = runs[number]
        assert data["run"][place] == run.run_id
        assert data["outcome"]["words"][data["outcome"]["at"][place]] == run.outcome
        assert by_key[LAYOUT_FD][place] == columns.short(run.final.get(LAYOUT_FD))
        assert rates["values"][place] == columns.short(float(run.params["optimizer.autoencoder.lr"]))
        assert bool(data["front"][place]) == (run.tags.get("on_front") == "true")


def test_axes_are_those_of_the_space(page: str) -> None:
    parameters = {each["key"]: each for each in page_data(page)["sweeps"][0]["parameters"]}
    rate, width, sigma = (parameters[key] for key in ("optimizer.autoencoder.lr", "model.width", "loss.kl.sigma"))
    assert (rate["low"], rate["high"], rate["log"]) == (1e-4, 1e-2, True)
    assert width["choices"] == ["8", "16"]
    assert sigma["only"] == "loss.kl.control = fixed"
    control = parameters["loss.kl.control"]
    fixed = [control["choices"][value] == "fixed" for value in control["values"]]
    assert [value is not None for value in sigma["values"]] == fixed
    assert next(iter(parameters)) == "optimizer.autoencoder.lr", "the one that can be told comes first"


def test_without_a_space_the_values_give_the_axes(client: MlflowClient, reported: Reported) -> None:
    data = columns.data_of(client, dataclasses.replace(reported, plan=None))
    parameters = {each["key"]: each for each in data["parameters"]}
    values = [value for value in parameters["optimizer.autoencoder.lr"]["values"] if value is not None]
    assert parameters["optimizer.autoencoder.lr"]["low"] == min(values)
    assert not parameters["model.width"]["log"]
    assert parameters["loss.kl.control"]["choices"]
    assert data["rungs"] == []


@pytest.mark.parametrize("name", ["empty", "running", "diverged", "single"])
def test_every_sweep_has_a_page(client: MlflowClient, name: str) -> None:
    page = render(client, [read_reported(client, name)])
    (data,) = page_data(page)["sweeps"]
    assert len(data["number"]) == len(data["run"])
    text = page.split("<script")[0]
    assert ("No trial has started yet." in text) == (name == "empty")
    assert ("No trial reached full fidelity." in text) == (name in ("running", "diverged"))
    failed = text.split("What failed, and why")[1]
    assert ("train/kl is nan at step 91" in failed) == (name == "diverged")


def test_a_sweep_whose_baselines_are_still_to_be_sent_has_a_page(client: MlflowClient) -> None:
    """Its run is made first, and then gets its baselines; a report in between failed."""
    reported = read_reported(client, "empty")
    early = dataclasses.replace(reported, sweep=dataclasses.replace(reported.sweep, baselines={}))
    assert "No trial has started yet" in render(client, [early])


def test_several_sweeps_share_a_page(client: MlflowClient) -> None:
    page = render(client, [read_reported(client, name) for name in ("single", "running")])
    assert [sweep["name"] for sweep in page_data(page)["sweeps"]] == ["single", "running"]
    assert page.count('class="of-sweep"') == 2 * 4
    assert page.count("hidden>") >= 4
    with pytest.raises(ValueError, match="needs the name"):
        render(client, [])


def test_reasons_that_differ_in_numbers_alone_are_one() -> None:
    @dataclasses.dataclass
    class Ended:
        number: int
        outcome: str
        tags: dict[str, str]

    trials = [Ended(n, Outcome.DIVERGED, {"reason": f"train/kl is nan at step {n}"}) for n in range(12)]
    trials += [Ended(12, Outcome.FAILED, {}), Ended(13, Outcome.PRUNED, {"reason": "rank 3"})]
    first, second = columns.failures(trials)
    assert (first["count"], first["trials"], first["reason"]) == (12, list(range(8)), "train/kl is nan at step 0")
    assert (second["outcome"], second["reason"]) == ("failed", "no reason was recorded")


# --- Pictures and curves ----------------------------------------------------------------------------------------------


def test_the_front_is_pictured_before_quantiles_of_the_rest(reported: Reported) -> None:
    front = {trial.number for trial in reported.sweep.trials if trial.tags.get("on_front") == "true"}
    shown = [trial.number for trial in pictures.worth_showing(reported, len(front) + 5)]
    assert shown[0] == SAID.recommended
    assert front <= set(shown)
    assert len(set(shown)) == len(front) + 5
    assert len(pictures.worth_showing(reported, 2)) == 2
    assert len(pictures.worth_showing(reported, 1000)) == 28


def test_sprites_hold_the_first_rows_at_every_step(client: MlflowClient, reported: Reported) -> None:
    found = pictures.sprites(client, reported, pictures.BUDGET, 6)
    evaluated = {trial.number for trial in pictures.worth_showing(reported, 6) if trial.final}
    assert set(found) == evaluated
    best = next(iter(found.values()))[RECONSTRUCTIONS]
    assert best["steps"] == list(STEPS)[: len(best["steps"])]
    assert (best["width"], best["height"]) == (8 * 49 + 1, 2 * 28 + 1)


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_frames_with_white_edges_are_shown_whole(client: MlflowClient, tmp_path: Path, rows: int) -> None:
    """A product on white was three pixels high: the lines between frames were not told from their own white rows."""
    grid = np.full((rows * 33 + 1, 8 * 49 + 1, 3), 255, np.uint8)
    for top in range(1, len(grid) - 1, 33):
        grid[top + 4 : top + 28, 10:40] = 60
    (tmp_path / "images").mkdir()
    Image.fromarray(grid).save(tmp_path / "images" / f"{RECONSTRUCTIONS}+step+40+timestamp+1+x.png")
    trial = TrialRun("run", 3, Outcome.COMPLETED, {}, {}, {}, tmp_path.as_uri())
    found = pictures.read_sprites(client, [trial], pictures.BUDGET)[3][RECONSTRUCTIONS]
    assert (found["width"], found["height"]) == (8 * 49 + 1, min(rows, 2) * 33 + 1)


def test_pictures_stay_within_their_budget(client: MlflowClient, reported: Reported) -> None:
    whole = pictures.sprites(client, reported, pictures.BUDGET, 8)
    one = max(_bytes(kinds) for kinds in whole.values())
    few = pictures.sprites(client, reported, 3 * one, 8)
    assert 3 <= len(few) < len(whole)
    assert sum(map(_bytes, few.values())) <= 3 * one


def _bytes(kinds: dict[str, dict[str, str]]) -> int:
    return sum(len(sprite["source"].split(",")[1]) * 3 // 4 for sprite in kinds.values())


def test_curves_are_those_of_the_evaluations_and_of_the_first_trials(client: MlflowClient, reported: Reported) -> None:
    found = curves.curves_of(client, reported)
    first = reported.ordered[0]
    steps, values = found["trials"][first.number][PIXEL_MSE]
    assert list(zip(steps, values, strict=True)) == [
        (step, pytest.approx(value, rel=1e-4)) for step, value in reported.evaluations.curve(first.number, PIXEL_MSE)
    ]
    trained = [number for number, of in found["trials"].items() if "train/kl" in of]
    assert sorted(trained) == sorted(found["chosen"])
    assert len(trained) == curves.CHOSEN
    few = curves.curves_of(client, reported, points=60)["trials"]
    assert len([number for number, of in few.items() if PIXEL_MSE in of]) < 3


def test_no_run_is_asked_for_one_by_one(client: MlflowClient) -> None:
    asked: list[str] = []

    class Counted(MlflowClient):
        def __getattribute__(self, name: str) -> object:
            if name.startswith(("get_", "search_", "list_", "download_")):
                asked.append(name)
            return super().__getattribute__(name)

    counting = Counted(client.tracking_uri)
    render(counting, [read_reported(counting, "planted")])
    assert asked.count("get_run") == 1
    assert asked.count("search_runs") <= 3
    assert asked.count("get_metric_history") <= curves.CHOSEN * len(curves.TRAINING_CURVES)
    assert len(asked) - asked.count("get_metric_history") <= 10


@pytest.mark.parametrize(("items", "count", "expected"), [([], 3, []), ([1, 2], 3, [1, 2]), (range(9), 3, [0, 4, 8])])
def test_spread_keeps_the_ends(items: Sequence[int], count: int, expected: list[int]) -> None:
    assert pictures.spread(items, count) == expected


def test_numbers_that_are_none_do_not_reach_the_page() -> None:
    assert [columns.short(value) for value in (np.nan, np.inf, None, 1.0, 0.123456789)] == [
        None,
        None,
        None,
        1,
        0.12346,
    ]


@pytest.mark.parametrize(
    ("value", "text"), [(123456.0, "123456"), (131072, "131072"), (123456.7, "123460"), (-0.0, "0"), (2e20, "2e+20")]
)
def test_whole_numbers_have_all_their_digits(value: float, text: str) -> None:
    """A step of 123456 was 123460 in the report."""
    assert json.dumps(columns.short(value)) == text


def test_a_server_s_runs_are_linked_without_its_password(reported: Reported) -> None:
    class Client:
        tracking_uri = "https://me:secret@tracking.example:5000/ml/"

    address = columns.run_address(Client(), reported.sweep)
    place = f"https://tracking.example:5000/ml/#/experiments/{reported.sweep.experiment_id}/runs/RUN"
    assert address == f"{place}?workflowType=machine_learning"
