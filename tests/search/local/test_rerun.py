"""What a rerun can keep on another machine and what it says, and real small trainings trained again."""

from __future__ import annotations

import gc
import json
import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow import MlflowClient
from trials import tiny

from search.local.compare import COMPUTED
from search.local.differences import verdict
from search.local.plan import Plan, Wanted, in_words, make_plan, resolved_here
from search.local.rerun import Result, rerun
from search.local.train import train_single
from search.paths import CHECKPOINT_FILE
from search.provenance import DECIDED, describe_environment
from search.tracking.client import open_client
from search.tracking.reader import read_curve
from vaegan_core.config.trial import TrialConfig, parse_trial
from vaegan_core.data.frames import FrameSet
from vaegan_core.evaluation import METRICS, PIXEL_MSE
from vaegan_core.training.machine import decided, wishing
from vaegan_core.training.trainer import Trainer

HERE = describe_environment(tiny())["device"]
GPU = {"device": "cuda", "threads": 3, "precision": "bfloat16", "channels_last": False, "compile": False}


def resolved(config: TrialConfig, facts: dict[str, Any] | None, **wanted: Any) -> TrialConfig:
    """What a rerun makes of the configuration of a run that was decided so."""
    tags = {DECIDED: json.dumps(facts)} if facts else {}
    run: Any = SimpleNamespace(data=SimpleNamespace(tags=tags))
    return resolved_here(run, config, Wanted("run", **wanted))


@pytest.mark.parametrize(
    ("config", "facts"),
    [
        (wishing(tiny(), {}), GPU),
        (wishing(tiny(), {"device": "cuda"}), GPU),
        (wishing(tiny(), GPU), None),
    ],
    ids=["wished auto", "wished cuda", "of an older version"],
)
def test_a_trial_of_a_gpu_is_trained_again_without_one(
    monkeypatch: pytest.MonkeyPatch, config: TrialConfig, facts: dict[str, Any] | None
) -> None:
    monkeypatch.setattr("vaegan_core.hardware.cpu_has_bfloat16", lambda: False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert decided(resolved(config, facts)) == GPU | {"device": "cpu", "precision": "float32"}
    assert decided(resolved(config, facts, debug=True))["compile"] is False


def test_on_the_same_machine_everything_is_as_it_was_and_a_device_can_be_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    facts = GPU | {"device": "cpu", "precision": "float32"}
    for config, known in ((wishing(tiny(), {}), facts), (wishing(tiny(), facts), None)):
        assert decided(resolved(config, known)) == facts
        assert decided(resolved(config, known, device="cpu")) == facts
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match="--device cuda needs a CUDA device, but torch finds none here"):
        resolved(tiny(), facts, device="cuda")


# --- Real trainings ---------------------------------------------------------------------------------------------------


def silent(_: object) -> None:
    """Nobody listens."""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowClient]:
    uri = f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        yield open_client(uri)


def trained(directory: Path, frame_set: FrameSet, stop_after: int = 100, **changes: Any) -> str:
    """The run of a training as `vaegan train` makes it; Ctrl-C comes at the first point after `stop_after` steps."""
    config = parse_trial(tiny(**changes).dump() | {"frames": str(frame_set.path)})

    def progress(step: int) -> None:
        if step > stop_after:
            raise KeyboardInterrupt

    try:
        train_single(config, directory, resume=directory.exists(), progress=progress, say=silent)
    except KeyboardInterrupt:
        assert stop_after < config.train.steps
    return (directory / "run_id.txt").read_text()


@pytest.fixture(scope="module")
def plain(client: MlflowClient, frame_set: FrameSet, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The run of a training of 12 steps, validated at 6 and 12."""
    assert client.tracking_uri == os.environ["MLFLOW_TRACKING_URI"]
    return trained(tmp_path_factory.mktemp("plain") / "out", frame_set)


def repeat(client: MlflowClient, directory: Path, run: str, **wanted: Any) -> tuple[Plan, Result]:
    plan = make_plan(client, Wanted(run, **wanted), directory)
    return plan, rerun(client, plan, silent, silent)


def test_the_same_training_again_is_identical_and_mlflow_says_so(
    client: MlflowClient, plain: str, tmp_path: Path
) -> None:
    plan, result = repeat(client, tmp_path, plain[:16])
    assert result.identical, result.in_words()
    assert result.comparison.compared > 100
    assert verdict(plan.changes).startswith("Nothing that computes the numbers differs")
    assert {row.key for row in result.rows} == METRICS.keys() - {"val/samples_fid"}
    assert all(row.then == row.now for row in result.rows)
    assert result.comparison.others == ()
    run = client.get_run(result.run_id)
    assert (run.data.tags["identical"], run.data.tags["mlflow.parentRunId"]) == ("true", plain)
    assert run.data.metrics["final/step"] == 12
    kept = json.loads(Path(client.download_artifacts(result.run_id, "comparison.json")).read_text())
    assert kept["identical"] is True
    assert kept["comparison"]["compared"] == result.comparison.compared
    again = repeat(client, tmp_path, result.run_id, steps=6)[1]
    assert again.identical, "a rerun can be trained again as well"


def test_a_store_that_goes_away_does_not_take_the_comparison_with_it(
    client: MlflowClient, plain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(client, Wanted(plain, steps=6), tmp_path)
    said: list[str] = []

    def away(*_: object, **__: object) -> None:
        raise ConnectionError("nobody answers")

    def progress(step: int) -> None:
        if step >= 3:
            for name in ("log_batch", "set_tag", "log_text", "search_runs", "set_terminated"):
                monkeypatch.setattr(MlflowClient, name, away)

    result = rerun(client, plan, progress, said.append)
    assert result.identical
    assert sum("MLflow" in line for line in said) == len(said) == 3
    assert said[-1] == "MLflow could not be written to, so the rerun's run does not have all of this."


def test_every_curve_has_its_place_in_the_order_of_computation(
    client: MlflowClient, plain: str, tmp_path: Path
) -> None:
    plan = make_plan(client, Wanted(plain), tmp_path)
    assert not [key for key, _ in plan.before if not key.startswith(COMPUTED)]


def test_a_training_that_was_resumed_is_identical_and_can_be_stopped_before_its_end(
    client: MlflowClient, frame_set: FrameSet, tmp_path: Path
) -> None:
    trained(tmp_path / "out", frame_set, stop_after=6)
    run = trained(tmp_path / "out", frame_set)
    assert repeat(client, tmp_path, run)[1].identical
    plan, shorter = repeat(client, tmp_path, run, steps=7)
    assert "Stops at step 7 of 12; compared up to there." in in_words(plan)
    assert (shorter.identical, shorter.reached, shorter.step) == (True, 7, 6)
    assert shorter.comparison.until == 6, "the last step that has points"
    assert client.get_run(shorter.run_id).info.status == "FINISHED"
    with pytest.raises(ValueError, match=r"--steps must be at most train.steps, .* is 12, but got 13; --set train.s"):
        make_plan(client, Wanted(run, steps=13), tmp_path)


def test_the_first_step_and_term_are_named_where_trainings_part(
    client: MlflowClient, plain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer.train_step

    def disturbed(trainer: Trainer) -> None:
        if trainer.step == 8:
            next(reversed(list(trainer.discriminator.parameters()))).data.add_(1e-3)
        step(trainer)

    monkeypatch.setattr(Trainer, "train_step", disturbed)
    _, result = repeat(client, tmp_path, plain)
    assert not result.identical
    first = result.comparison.first
    assert first is not None
    assert (first.step, first.key) == (9, "train/discriminator_prior")
    assert result.in_words().startswith(
        f"Different: {result.comparison.differing} of {result.comparison.compared} curve"
    )
    tags = client.get_run(result.run_id).data.tags
    assert (tags["identical"], tags["first_difference"]) == ("false", first.in_words())
    said = " ".join(result.explanations())
    assert "cannot be told: the original has none" in said
    assert f"vaegan rerun {plain} --set train.seed=1" in said


def test_a_variant_lies_beside_the_original_and_is_judged_by_fresh_seeds(
    client: MlflowClient, plain: str, tmp_path: Path
) -> None:
    for seed in (1, 2):
        repeat(client, tmp_path, plain, overrides=(f"train.seed={seed}",), steps=6)
    overrides = ("loss.kl.sigma=3", "optimizer.autoencoder.lr=0.01")
    plan, result = repeat(client, tmp_path, plain, overrides=overrides, steps=6)
    assert "Different on purpose: loss.kl.sigma=3, optimizer.autoencoder.lr=0.01." in in_words(plan)
    run = client.get_run(result.run_id)
    assert run.data.tags["variant"] == result.variant == "loss.kl.sigma=3, optimizer.autoencoder.lr=0.01"
    assert run.data.params == {"loss.kl.sigma": "3", "optimizer.autoencoder.lr": "0.01"}
    assert "identical" not in run.data.tags
    mse = next(row for row in result.rows if row.key == PIXEL_MSE)
    assert (result.step, result.seeds.seeds) == (6, 2)
    assert mse.then != mse.now
    assert mse.seeds is not None
    assert mse.beyond == mse.seeds.beyond(mse.now or 0.0)
    assert "by 2 fresh seeds" in " ".join(result.explanations())
    assert make_plan(client, Wanted(plain, overrides=("loss.kl.sigma=0.3",)), tmp_path).variant == "", "as it was"
    with pytest.raises(ValueError, match=r"(?s)2 errors:.*model.widht: .*did you mean width.*train.seed: must be"):
        make_plan(client, Wanted(plain, overrides=("model.widht=3", "train.seed=-1")), tmp_path)


def test_ctrl_c_leaves_an_interrupted_run_with_its_curves(client: MlflowClient, plain: str, tmp_path: Path) -> None:
    def interrupted(step: int) -> None:
        if step >= 9:
            raise KeyboardInterrupt

    result = rerun(client, make_plan(client, Wanted(plain), tmp_path), interrupted, silent)
    assert (result.interrupted, result.identical, result.comparison.until) == (True, True, 9)
    run = client.get_run(result.run_id)
    assert (run.info.status, run.data.tags["outcome"]) == ("KILLED", "interrupted")
    assert run.data.tags["identical"] == "true to step 9"
    assert [point.step for point in read_curve(client, result.run_id, "train/kl")] == [3, 6, 9]


def test_debug_names_the_first_tensor_that_is_not_finite(client: MlflowClient, plain: str, tmp_path: Path) -> None:
    overrides = ("optimizer.autoencoder.lr=1e38",)
    _, result = repeat(client, tmp_path, plain, overrides=overrides, debug=True)
    _, without = repeat(client, tmp_path, plain, overrides=overrides)
    assert (result.outcome, result.succeeded, without.outcome) == ("diverged", False, "diverged")
    assert "is not finite at step" in result.reason
    assert result.reached <= without.reached
    assert client.get_run(result.run_id).data.tags["reason"] == result.reason


def test_a_divergence_is_repeated_for_the_same_reason(
    client: MlflowClient, frame_set: FrameSet, tmp_path: Path
) -> None:
    run = trained(tmp_path / "out", frame_set, optimizer__autoencoder__lr=1e38)
    client.set_tag(run, "reason", "")
    plan, result = repeat(client, tmp_path, run)
    assert (result.outcome, result.comparison.first, result.identical) == ("diverged", None, False)
    client.set_tag(run, "reason", result.reason)
    assert repeat(client, tmp_path, run)[1].identical
    tags = plan.run.data.tags
    assert tags["outcome"] == "diverged"


def test_the_whole_state_is_continued_where_it_is_here(
    client: MlflowClient, plain: str, frame_set: FrameSet, tmp_path: Path
) -> None:
    run = trained(tmp_path / "out", frame_set, stop_after=6)
    plan, result = repeat(client, tmp_path, run, from_checkpoint=True)
    assert plan.kept is not None
    assert (plan.kept.whole, plan.kept.step, plan.steps, result.reached) == (True, 6, 6, 12)
    assert "Nothing starts fresh." in plan.kept.in_words()
    curves = [read_curve(client, each, PIXEL_MSE)[-1] for each in (plain, result.run_id)]
    assert curves[0][:3] == curves[1][:3], "as if it had never been stopped"
    assert repeat(client, tmp_path, result.run_id, steps=9)[1].identical, "trained from its beginning"
    with pytest.raises(ValueError, match=r"is at step 12 already, .* --set train.steps=24"):
        make_plan(client, Wanted(plain, from_checkpoint=True), tmp_path)


def test_weights_alone_are_continued_and_what_starts_fresh_is_said(
    client: MlflowClient, frame_set: FrameSet, tmp_path: Path
) -> None:
    run = trained(tmp_path / "out", frame_set)
    (tmp_path / "out" / CHECKPOINT_FILE).unlink()
    plan, result = repeat(client, tmp_path, run, from_checkpoint=True, steps=6)
    assert plan.kept is not None
    assert (plan.kept.whole, result.reached, result.variant) == (False, 6, "from the weights of step 12")
    assert "starts fresh: discriminator, Adam's moments" in plan.kept.in_words()
    now, then = (read_curve(client, each, "train/pixel")[0].value for each in (result.run_id, run))
    assert now < then, "it begins where the other had come to"
    with pytest.raises(ValueError, match=rf"began with the states of others, .* rerun {run} with --from-checkpoint"):
        make_plan(client, Wanted(result.run_id), tmp_path)
    client.set_tag(run, "model_sha256", "0" * 64)
    with pytest.raises(ValueError, match=r"are not those that were logged: their SHA-256 .* exchanged or damaged"):
        make_plan(client, Wanted(run, from_checkpoint=True), tmp_path)


def test_nothing_keeps_the_trainer_of_a_rerun_alive(
    client: MlflowClient, plain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[Trainer]] = []

    def make(*arguments: Any) -> Trainer:
        trainer = Trainer(*arguments)
        made.append(weakref.ref(trainer))
        return trainer

    monkeypatch.setattr("search.local.rerun.Trainer", make)
    plan = make_plan(client, Wanted(plain, debug=True), tmp_path)
    gc.disable()
    try:
        result = rerun(client, plan, silent, silent)
        alive = [reference() for reference in made]
    finally:
        gc.enable()
    assert result.identical, "looking closely changes nothing"
    assert alive == [None]
