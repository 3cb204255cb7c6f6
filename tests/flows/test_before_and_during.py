"""What is said before a sweep is paid for, and what ends it early."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sweeps import BASELINES, evaluation, make_journal, make_sweep, sweep_data
from tuning import tuning

from search.commands.words import best_in_words
from search.config.load import load_sweep, parse_sweep
from search.config.space import lies_in
from search.config.sweep import Sweep
from search.journal.meta import Meta
from search.journal.sweeps import differences
from search.paths import disk_use, trial_directory
from search.preflight import describe, forecast
from search.preflight.storage import check_storage, check_tracking
from search.running import gpu_share, resources
from search.running.keeping import Keeping
from search.running.resources import concurrent_trials
from search.running.stop_flag import StopFlag
from search.standings.progress import expected_end, expected_steps, most_steps, read_progress
from vaegan_core.data.frames import FRAMES_FILE, MANIFEST_FILE, FrameSet
from vaegan_core.evaluation import FITTED_SAMPLES, PRIOR_SAMPLES, RECONSTRUCTIONS
from vaegan_core.metrics.frame_features import ensure_features
from vaegan_core.problems import ConfigError


@pytest.fixture
def flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., StopFlag]:
    monkeypatch.setattr("search.running.stop_flag.LOOK_SECONDS", 0.0)

    def make(**changes: object) -> StopFlag:
        return StopFlag(make_sweep(**changes), make_journal(tmp_path), tmp_path)

    return make


# --- Budgets ----------------------------------------------------------------------------------------------------------


def test_nothing_stops_a_sweep_within_its_budget(flag: Callable[..., StopFlag]) -> None:
    stop = flag(budget={"trials": 3, "hours": 1, "gpu_hours": 1, "disk_gb": 1}, resources={"gpu": 0.5})
    stop.look()
    assert not stop()
    assert set(stop.used()) == {"hours", "GPU hours", "GB on disk"}


def test_hours_end_the_sweep(flag: Callable[..., StopFlag]) -> None:
    stop = flag(budget={"trials": 3, "hours": 1e-9})
    stop.look()
    assert stop.reason == "the budget of 1e-09 hours is used up"


def test_gpu_hours_of_all_attempts_end_the_sweep(flag: Callable[..., StopFlag]) -> None:
    stop = flag(budget={"trials": 3, "gpu_hours": 2.0}, resources={"gpu": 0.5})
    stop.journal.add_trial(0, {}, "", "random")
    stop.journal.start_attempt(0)
    stop.look()
    assert not stop()
    stop.journal.start_trial(0, 1, "", {"host": "h", "device": "d"})
    stop.journal.db.execute(
        "UPDATE attempts SET environment = json_set(environment, '$.began', ?)", (time.time() - 4 * 3600,)
    )
    used, _ = stop.used()["GPU hours"]
    assert used == pytest.approx(2.0, abs=0.01), "four hours of half a GPU"
    stop.look()
    assert stop.reason == "the budget of 2 GPU hours is used up"


def test_disk_ends_the_sweep(flag: Callable[..., StopFlag], tmp_path: Path) -> None:
    stop = flag(budget={"trials": 3, "disk_gb": 0.001})
    stop.look()
    assert not stop()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_bytes(bytes(2_000_000))
    assert disk_use(tmp_path) > 2_000_000
    stop.look()
    assert stop.reason == "the budget of 0.001 GB on disk is used up"


def test_a_disk_that_is_slow_to_look_at_is_looked_at_seldom(
    flag: Callable[..., StopFlag], monkeypatch: pytest.MonkeyPatch
) -> None:
    now, looks = [0.0], []

    def look(_: Path) -> int:
        looks.append(now[0])
        now[0] += 1.6  # seconds, for 8,000 files
        return 0

    monkeypatch.setattr("search.running.stop_flag.time.monotonic", lambda: now[0])
    monkeypatch.setattr("search.running.stop_flag.disk_use", look)
    stop = flag(budget={"trials": 3, "disk_gb": 1})
    for _ in range(500):
        stop.look()
        stop.used()  # the view does so at every refresh
        now[0] += 2.0
    assert 1.6 * len(looks) / now[0] < 0.03


def test_a_file_with_two_links_takes_its_room_once(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_bytes(bytes(1000))
    os.link(tmp_path / "checkpoint", tmp_path / "kept")
    assert disk_use(tmp_path) == 1000


def test_another_process_can_stop_it_and_trials_that_do_not_stop_are_cut_off(
    flag: Callable[..., StopFlag], monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = flag()
    stop.journal.set_meta(Meta.STOP_REQUESTED, "stopped by vaegan stop")
    stop.look()
    assert stop.reason == "stopped by vaegan stop"
    monkeypatch.setattr("search.running.stop_flag.STOP_MINUTES", 0.0)
    with pytest.raises(KeyboardInterrupt):
        stop.look()


def test_an_old_wish_to_stop_does_not_stop_the_next_run(flag: Callable[..., StopFlag], tmp_path: Path) -> None:
    stop = flag()
    stop.journal.set_meta(Meta.STOP_REQUESTED, "stopped by vaegan stop")
    again = StopFlag(stop_sweep := make_sweep(), stop.journal, tmp_path)
    again.look()
    assert not again()
    assert stop_sweep.config.name == "toy"


# --- Files of trials --------------------------------------------------------------------------------------------------


def test_disk_use_stays_bounded_for_only_the_best_keep_their_weights(tmp_path: Path) -> None:
    t = tuning(tmp_path, tracking={"keep_models": 2}, budget={"trials": 30}, scheduler={"name": "none"})
    t.journal.set_meta(Meta.BASELINES, json.dumps(BASELINES))
    keeping = Keeping(t.search, t.search.place.files())
    for number in range(30):
        t.start()
        files = trial_directory(tmp_path, number) / "attempt-1"
        files.mkdir(parents=True)
        (files / "model.safetensors").write_bytes(b"weights")
        (files / "step-00000480.safetensors").write_bytes(b"state")
        (files / "step-00000120.safetensors").write_bytes(b"state of a report that never came")
        quality = (7 * number) % 30 / 30
        if number % 5 == 4:
            t.report(number, evaluation(60, outcome="diverged", reason="nan"))
        else:
            t.complete(number, 0.01 + quality / 10, 2 + quality, saved=True)
        keeping.after_trial(number)
        left = {path.name for path in (tmp_path / "trials").rglob("*") if path.is_file()}
        assert left <= {"model.safetensors"}
        assert len(list((tmp_path / "trials").iterdir())) <= 2
    kept = {int(path.name) for path in (tmp_path / "trials").iterdir()}
    assert kept == set(sorted((n for n in range(30) if n % 5 != 4), key=lambda n: (7 * n) % 30)[:2])


# --- GPUs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("peak", "total", "count"), [(10, 80, 7), (50, 80, 1), (90, 80, 1), (1, 80, 16)])
def test_as_many_trials_share_a_gpu_as_its_memory_holds_with_a_margin(peak: int, total: int, count: int) -> None:
    assert gpu_share.trials_per_gpu(gpu_share.Memory(peak, total)) == count


def test_the_largest_configuration_is_found(frame_set_dir: Path) -> None:
    sweep = make_sweep()
    frame_set = FrameSet.open(frame_set_dir)
    config = resources.largest(resources.suggestions(sweep), frame_set)
    assert config.model.width == 16
    small, large = (
        config.model_copy(update={"train": config.train.model_copy(update={"batch_size": b})}) for b in (8, 64)
    )
    assert resources.estimated_bytes(small, frame_set) < resources.estimated_bytes(large, frame_set)


def test_auto_takes_no_gpu_where_there_is_none_and_keeps_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, journal = make_sweep(resources={"gpu": "auto"}), make_journal(tmp_path)
    measured: list[int] = []
    monkeypatch.setattr(gpu_share, "_measured_share", lambda *_: measured.append(1) or 0.25)
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 4.0})
    assert gpu_share.with_gpu_share(sweep, None, None, journal, None).config.resources.gpu == 0.0
    for gpu, times in (("H100", 1), ("H100", 1), ("T4", 2)):
        there = {"CPU": 64.0, "GPU": 8.0, f"accelerator_type:{gpu}": 1.0}
        monkeypatch.setattr("ray.cluster_resources", lambda there=there: there)
        found = gpu_share.with_gpu_share(sweep, None, None, journal, None)
        assert found.config.resources.gpu == 0.25
        assert len(measured) == times, "a sweep that is resumed on the same kind of GPU packs as it did before"
    assert concurrent_trials(found, {"CPU": 64.0, "GPU": 8.0}) == 32


def test_the_gpu_with_the_least_room_decides_and_is_named() -> None:
    large = gpu_share.Memory(6 * 10**9, 80 * 10**9, "A100 on w1")
    small = gpu_share.Memory(5 * 10**9, 16 * 10**9, "T4 on w2")
    alone = "The largest trial takes 6.00 of 80.0 GB on A100 on w1: 12 share one."
    assert gpu_share.share_in_words([large, large]) == alone
    assert gpu_share.share_in_words([large, small]) == (
        "The largest trial takes 5.00 of 16.0 GB on T4 on w2, so 2 share each GPU, also A100 on w1, which has room for "
        "12: a sweep of its own there would use it better."
    )


def test_the_probe_does_all_that_a_trial_ever_does(frame_set_dir: Path) -> None:
    frame_set = FrameSet.open(frame_set_dir)
    config = next(iter(resources.suggestions(make_sweep())))
    late = config.model_copy(update={"loss": config.loss.model_copy(update={"start": 0.5})})
    last = gpu_share.train_at_worst(late, frame_set, ensure_features(frame_set))
    assert last.outcome == "completed"
    assert last.images.keys() == {RECONSTRUCTIONS, PRIOR_SAMPLES, FITTED_SAMPLES}
    norms = {point.step for point in last.points if point.key == "gradient/decoder/generator_prior"}
    assert norms == {1, 2}, "a step without gradient norms or GAN terms takes less"


# --- vaegan check -----------------------------------------------------------------------------------------------------


def sweep_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, frame_set_dir: Path, **changes: object) -> Sweep:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    data = sweep_data(**changes)
    data["base"]["frames"] = str(frame_set_dir)
    data["base"]["model"]["depth"] = 2
    return parse_sweep(data, "toy")


def test_check_says_what_a_sampler_cannot_learn(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, frame_set_dir: Path
) -> None:
    space = {"model.width": {"choices": [8, 16], "prior": {"value": 16, "sure": "high"}}}
    kl = {"loss.kl": {"one_of": {"fixed": {"sigma": [0.1, 0.2]}}}}
    sweep = sweep_here(monkeypatch, tmp_path, frame_set_dir, constraints=["val/kl_per_dim <= 1"], space=space | kl)
    lines = "\n".join(describe.describe(sweep))
    assert "  model.width: one of 8, 16; 16 is believed to be good (sure: high)" in lines
    assert "Note: random does not look at priors; tpe, gp, cmaes do." in lines
    assert "Note: random learns nothing from trials that diverge; tpe does." in lines
    assert "Note: random does not see the constraints" in lines
    sweep = sweep_here(monkeypatch, tmp_path, frame_set_dir, sampler={"name": "tpe"})
    assert "Note:" not in "\n".join(describe.describe(sweep))


@pytest.mark.parametrize(
    ("budget", "line"),
    [
        ({"trials": 12}, "It ends after 12 trials."),
        ({"trials": 12, "gpu_hours": 2.5}, "It ends after 12 trials or 2.5 GPU hours, whichever comes first."),
    ],
)
def test_check_says_what_ends_the_sweep(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, frame_set_dir: Path, budget: dict[str, Any], line: str
) -> None:
    assert line in describe.describe(sweep_here(monkeypatch, tmp_path, frame_set_dir, budget=budget))


def test_check_says_that_a_feature_network_is_trained_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, frame_set_dir: Path
) -> None:
    (tmp_path / "set").mkdir()
    for name in (FRAMES_FILE, MANIFEST_FILE):
        (tmp_path / "set" / name).symlink_to(frame_set_dir / name)
    lines = "\n".join(describe.describe(sweep_here(monkeypatch, tmp_path, tmp_path / "set")))
    assert "no feature network yet; the sweep first trains it, about 1 min on a CPU core." in lines


def test_a_probe_forecasts_time_and_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, frame_set_dir: Path) -> None:
    changes = {"confirm": {"top": 1, "seeds": 2}, "budget": {"trials": 6}, "resources": {"max_concurrent": 1}}
    sweep = sweep_here(monkeypatch, tmp_path, frame_set_dir, **changes)
    found = forecast.probe(sweep)
    assert found.checkpoint_bytes > found.model_bytes > 1000
    assert found.curves > 20
    assert most_steps(sweep) == (6 + 2) * 480
    known = forecast.Probe("a device", 0.5, 10.0, 10**9, 10**8, 10**5, 40)
    lines = list(forecast.forecast(sweep, known))
    hours = (expected_steps(sweep) * 0.5 + expected_steps(sweep) / 40 * 10) / 3600
    assert f"{60 * hours:.0f} minutes of wall time expected" in lines[1]
    grids = 8 * 480 / 40 * 10**5 * 4
    points = 40 * 8 * 480 / 20 * 120
    assert forecast.disk_forecast(sweep, 1, known) == pytest.approx((1 + 6) * 10**9 + 2 * 3 * 10**8 + grids + points)


def test_where_nothing_can_be_written_is_said_before_anything_runs(tmp_path: Path) -> None:
    check_storage(tmp_path / "not" / "yet" / "there")
    assert list(tmp_path.iterdir()) == []
    check_tracking(f"sqlite:///{tmp_path}/mlflow.db", "vaegan")
    with pytest.raises(ValueError, match=r"MLflow at http://127\.0\.0\.1:9 does not answer"):
        check_tracking("http://127.0.0.1:9", "vaegan")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"sweeps go to .*/sweeps, but .*/file is no directory; move it away"):
        check_storage(tmp_path / "file" / "sweeps")
    with pytest.raises(ValueError, match=r"MLflow's runs \(tracking\.uri\) go to .*/file, but"):
        check_tracking(f"sqlite:///{tmp_path}/file/mlflow.db", "vaegan")


# --- Going on with another YAML ---------------------------------------------------------------------------------------


def test_differences_name_the_keys() -> None:
    before = make_sweep().config
    now = parse_sweep(sweep_data(budget={"trials": 7}, retries=3), "toy").config
    assert differences(before, now) == {
        "budget.trials": "budget.trials: 6 then, 7 now",
        "retries": "retries: 1 then, 3 now",
    }


def test_known_points_must_lie_in_the_space() -> None:
    space = make_sweep().space
    point = {"optimizer.autoencoder.lr": 1e-3, "model.width": 8, "loss.kl.control": "fixed", "loss.kl.sigma": 0.2}
    assert lies_in(space, point)
    assert not lies_in(space, point | {"model.width": 12})
    assert not lies_in(space, point | {"loss.kl.capacity_max": 20})
    assert not lies_in(space, {name: point[name] for name in list(point)[:2]})


def test_a_grid_smaller_than_the_budget_is_all_there_is_to_do() -> None:
    data = sweep_data(space={"model.width": [8, 16]}, sampler={"name": "grid"}, budget={"trials": 50})
    data["base"]["loss"]["kl"]["beta"] = 1.0
    assert parse_sweep(data, "toy").num_trials == 2


@pytest.mark.parametrize(
    ("override", "key", "expected"),
    [
        ("space.loss.kl.one_of.fixed.sigma.high=0.9", "loss.kl.sigma", 0.9),
        ("space.optimizer.autoencoder.lr.high=1", "optimizer.autoencoder.lr", 1.0),
    ],
)
def test_overrides_reach_into_dotted_keys_of_the_space(
    tmp_path: Path, override: str, key: str, expected: float
) -> None:
    import yaml

    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep_data()))
    sweep = load_sweep(tmp_path / "sweep.yaml", [override])
    assert sweep.space.parameters()[key].high == expected  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="hgih"):
        load_sweep(tmp_path / "sweep.yaml", [override.replace("high", "hgih")])


def test_progress_is_what_the_journal_says(tmp_path: Path) -> None:
    t = tuning(tmp_path, budget={"trials": 5}, confirm={"top": 1, "seeds": 2})
    t.start(3)
    t.complete(0, 0.3, 5.0)
    t.report(1, evaluation(40, 0.1, 1.0))
    progress = read_progress(t.sweep, t.journal)
    assert (progress.counts, progress.done, progress.budget) == ({"completed": 1, "running": 2}, 1, 5)
    assert progress.steps == 520
    assert progress.best == {"val/pixel_mse": (0, 0.3), "val/layout_fd": (0, 5.0)}, "only full fidelity counts"
    assert progress.expected_steps > 480 * 3


def test_a_trial_that_violates_a_constraint_is_not_called_best(tmp_path: Path) -> None:
    t = tuning(tmp_path, constraints=["val/layout_fd <= 6"])
    t.start(3)
    assert best_in_words(read_progress(t.sweep, t.journal)) == "no trial completed yet"
    t.complete(0, 0.1, 7.0)
    assert best_in_words(read_progress(t.sweep, t.journal)) == "every trial that completed violates a constraint"
    t.complete(1, 0.3, 5.0)
    t.complete(2, 0.2, 5.5)
    progress = read_progress(t.sweep, t.journal)
    assert progress.best == {"val/pixel_mse": (2, 0.2), "val/layout_fd": (1, 5.0)}
    assert best_in_words(progress) == "best: val/pixel_mse 0.2 (trial 2), val/layout_fd 5 (trial 1)"


def test_a_trial_is_expected_to_end_where_the_rungs_still_ahead_let_it() -> None:
    sweep = make_sweep()  # 480 steps, rungs at 120 and 240, each keeps one half
    assert expected_end(sweep) == 120 + 120 / 2 + 240 / 4
    assert expected_end(sweep, 40) == expected_end(sweep)
    assert expected_end(sweep, 120) == 120 + 120 + 240 / 2
    assert expected_end(sweep, 300) == 480


def test_a_trial_ends_at_a_validation_not_at_the_rung_before_it() -> None:
    base = make_sweep().config.base | {"evaluate": {"every": "100", "also_at": [30]}}
    scheduler = {"name": "asha", "min_steps": 10, "reduction_factor": 2}
    sweep = make_sweep(base=base, scheduler=scheduler)
    assert sweep.rungs == (10, 20, 40, 80, 160, 320)
    assert expected_end(sweep) == 30 + 70 / 2 + 100 / 4 + 200 / 8 + 80 / 16
