"""One real sweep on captured game frames, as a user runs it, and everything a user does with it afterwards."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from pages import page_data
from readmes import Readme
from servers import free_port
from stores import Stores, assert_agreement, open_stores
from sweep_files import NAME, SMALL, environment, prepare, vaegan

from search.provenance import decided_in
from search.standings.progress import read_steps
from search.standings.standings import standings
from search.tracking.reader import image_paths, read_config, read_curve
from vaegan_core.data.frames import FRAMES_FILE, FrameSet, hash_frames, write_manifest
from vaegan_core.training.curves import LOSS_TERMS


@pytest.fixture(scope="module")
def swept(frame_set_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which the small sweep has run to its end."""
    directory = tmp_path_factory.mktemp("sweep")
    prepare(directory, frame_set_dir)
    done = vaegan(directory, "sweep", "sweep.yaml")
    for line in ("vaegan ui", f"vaegan promote {NAME}", "vaegan rerun "):
        assert line in done.stdout
    return directory


@pytest.fixture(scope="module")
def stores(swept: Path) -> Stores:
    return open_stores(swept)


def test_its_trials_were_heard_of_between_their_evaluations(stores: Stores, swept: Path) -> None:
    steps = read_steps(swept / "runs" / "sweeps" / NAME)
    assert steps, "no heartbeat"
    assert set(steps) <= {trial.number for trial in stores.journal.trials()}


def test_journal_optuna_and_mlflow_tell_the_same(stores: Stores) -> None:
    assert_agreement(stores)
    outcomes = {record.outcome for record in stores.journal.trials()}
    assert {"completed", "diverged"} <= outcomes


def test_a_diverged_trial_says_which_term_at_which_step_and_is_infeasible_to_the_sampler(stores: Stores) -> None:
    bad = next(record for record in stores.journal.trials() if record.origin == "point bad")
    assert bad.outcome == "diverged"
    assert " at step " in bad.reason
    assert stores.client.get_run(str(bad.run_id)).info.run_name == f"trial {bad.number} · bad"
    assert stores.run.trials[bad.number].tags["reason"] == bad.reason
    assert stores.study.trials[bad.number].constraints == {"diverged": 1.0}


def test_every_trial_has_every_loss_curve_validation_and_grids(stores: Stores) -> None:
    for run in stores.run.trials:
        if run.outcome == "diverged":
            continue
        evaluations = stores.journal.evaluations(run.number)
        for term in LOSS_TERMS:
            assert len(read_curve(stores.client, run.run_id, term)) >= 20, term
        assert len(evaluations) >= 2
        grids = image_paths(stores.client, run.run_id)
        assert {step for _, step in grids} == set(evaluations) & {20, 40, 80}, "the first, second and fourth evaluation"
        assert {key for key, _ in grids} == {"reconstructions", "prior_samples", "fitted_samples"}


def test_every_trial_says_what_its_machine_did(stores: Stores) -> None:
    for run in stores.run.completed:
        memory = read_curve(stores.client, run.run_id, "system/system_memory_usage_megabytes")
        assert memory[-1].step == stores.sweep.steps
        assert memory[-1].value > 100


def test_constants_are_on_the_sweep_and_parameters_on_the_trials(stores: Stores) -> None:
    constants = stores.client.get_run(stores.run.run_id).data.params
    assert constants["model.latent_dim"] == "8"
    for record, run in zip(stores.journal.trials(), stores.run.trials, strict=True):
        assert set(run.params) == set(record.params)
        assert not set(run.params) & set(constants)


def test_tags_are_made_for_searching(stores: Stores) -> None:
    experiment = [stores.run.experiment_id]
    front = standings(stores.sweep, stores.journal).front
    found = stores.client.search_runs(experiment, f"tags.sweep = '{NAME}' and tags.on_front = 'true'")
    assert {int(run.data.tags["vaegan.trial"]) for run in found} == front
    stopped = stores.client.search_runs(experiment, "tags.outcome = 'pruned' and tags.rung = '0'")
    pruned = {record.number for record in stores.journal.trials("pruned")}
    assert {int(run.data.tags["vaegan.trial"]) for run in stopped} == pruned


def test_no_value_in_mlflow_is_nan_or_infinite(stores: Stores) -> None:
    for run in stores.run.trials:
        assert np.isfinite(list(run.metrics.values())).all()


def test_the_parent_shows_the_trivial_baselines_and_a_summary(stores: Stores) -> None:
    assert {"mean_color_mse", "mean_color_fd", "floor"} <= set(stores.run.baselines)
    assert "| trial |" in stores.run.tags["mlflow.note.content"]
    text = Path(stores.client.download_artifacts(stores.run.run_id, "sweep.yaml")).read_text()
    assert yaml.safe_load(text)["space"] == SMALL["space"]


def test_the_stored_configuration_keeps_its_wishes_and_the_run_says_what_became_of_them(stores: Stores) -> None:
    config = read_config(stores.client, stores.run.trials[0].run_id)
    assert config.train.threads == "auto"
    assert decided_in(stores.run.trials[0].tags)["threads"] == 1


def test_only_the_best_trials_keep_files_and_only_their_models(stores: Stores, swept: Path) -> None:
    trials = swept / "runs" / "sweeps" / NAME / "trials"
    kept = {(int(path.parts[-3]), path.name) for path in trials.rglob("*") if path.is_file()}
    best = standings(stores.sweep, stores.journal).best[: stores.sweep.config.tracking.keep_models]
    assert kept == {(record.number, "model.safetensors") for record in best}


def test_a_second_sweep_never_overwrites_the_first_and_the_same_one_is_quick_to_reopen(swept: Path) -> None:
    before = (swept / "runs" / "sweeps" / NAME / "journal.db").read_bytes()
    refused = vaegan(swept, "sweep", "sweep.yaml", check=False)
    assert refused.returncode == 2
    assert f"vaegan resume {NAME}" in refused.stderr
    other = vaegan(swept, "sweep", "sweep.yaml", "--resume", "--set", "base.train.batch_size=4", check=False)
    assert other.returncode == 2
    assert "another YAML" in other.stderr
    again = vaegan(swept, "sweep", "sweep.yaml", "--resume")
    assert "is complete" in again.stdout
    assert (swept / "runs" / "sweeps" / NAME / "journal.db").read_bytes() == before


def test_rerunning_the_best_trial_gives_identical_numbers(stores: Stores, swept: Path) -> None:
    best = next(trial for trial in stores.run.completed)
    done = vaegan(swept, "rerun", best.run_id)
    assert "Identical" in done.stdout
    own = re.search(r"MLflow run (\w+), below", done.stdout)
    assert own
    run = stores.client.get_run(own[1])
    assert run.data.tags["mlflow.parentRunId"] == best.run_id
    assert run.data.tags["identical"] == "true"
    assert run.data.params == dict(best.params)
    assert read_curve(stores.client, own[1], "train/kl")[-1].value == best.metrics["train/kl"]


def test_a_rerun_on_other_frames_is_refused(stores: Stores, swept: Path, frame_set: FrameSet, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    darker = frame_set.frames // 2
    np.save(tmp_path / "other" / FRAMES_FILE, darker)
    write_manifest(tmp_path / "other", frame_set.manifest.model_copy(update={"sha256": hash_frames(darker)}))
    done = vaegan(swept, "rerun", stores.run.completed[0].run_id, "--frames", str(tmp_path / "other"), check=False)
    assert done.returncode == 2
    assert "was trained on frames" in done.stderr


def test_a_promotion_confirms_judges_and_registers_the_recommended_trial(stores: Stores, swept: Path) -> None:
    """The first of these tests: the others use the version that it makes."""
    done = vaegan(swept, "promote", NAME)
    for gate in ("completed", "weights", "diagnoses", "reproduces", "confirmed", "constraints", "baseline", "holder"):
        assert f"  pass    {gate}: " in done.stdout
    assert "metrics are the logged ones, bit for bit" in done.stdout
    assert "version 1 of vaegan-small, alias champion" in done.stdout
    again = vaegan(swept, "promote", NAME).stdout
    assert "version 1 of vaegan-small, alias champion, as before: nothing changed." in again
    version = stores.client.get_model_version_by_alias("vaegan-small", "champion")
    assert version.tags["confirmed"].endswith("(2 of 2 seeds)")
    page = stores.client.get_run(str(version.run_id))
    assert page.data.tags["confirmed"] == "2 of 2 seeds"
    assert page.info.status == "FINISHED"


def python_in_the_readme() -> str:
    """The lines of search/README.md that use a model, for this sweep and its frames."""
    [code] = [block.text for block in Readme("search/README.md").blocks if block.language == "python"]
    return code.replace("vaegan-demo", f"vaegan-{NAME}").replace("runs/frames/doom", "frames")


def test_the_lines_of_the_readme_use_the_model_in_a_fresh_process_without_pickle(swept: Path) -> None:
    shown = "import json; print(json.dumps([list(each.shape) for each in (recon, z, between, samples)]))"
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"{python_in_the_readme()}\n{shown}"],
        cwd=swept,
        env={"PATH": "/usr/bin:/bin", "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [[4, 17, 31, 3], [4, 8], [2, 17, 31, 3], [8, 17, 31, 3]]


def printed_after(heading: str, text: str) -> str:
    """The command below a heading."""
    return text.partition(f"{heading}:\n")[2].splitlines()[0].strip()


def in_a_fresh_shell(line: str, directory: Path) -> str:
    """Runs a line as printed, without what this shell has on its PATH; returns its output."""
    bare = {key: value for key, value in environment(directory).items() if key in ("HOME", "LANG", "PYTHONPATH")}
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=directory,
        env=bare | {"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_lines_that_promotion_prints_work_in_a_fresh_shell_and_the_alias_goes_back(
    stores: Stores, swept: Path
) -> None:
    """Another trial, forced past the gates that stand for the first: its lines, over HTTP too, and the way back."""
    holder = stores.client.get_model_version_by_alias("vaegan-small", "champion")
    other = next(trial for trial in stores.run.ranked if trial.run_id != holder.run_id)
    refused = vaegan(swept, "promote", f"{NAME}/{other.number}", "--no-confirm", check=False)
    assert refused.returncode == 1
    assert "not run confirmed: 0 of 2 fresh seeds; not trained (--no-confirm)" in refused.stdout
    text = vaegan(swept, "promote", other.run_id[:12], "--no-confirm", "--force").stdout
    assert "is version 2 of vaegan-small, alias champion, forced past confirmed" in text
    assert "32 samples of 31x17" in in_a_fresh_shell(printed_after("See what it makes", text), swept)
    assert "mlflow.pyfunc.loaded_model" in in_a_fresh_shell(printed_after("Load it", text), swept)
    port = str(free_port())
    serve = printed_after("Serve it", text).replace("5001", port)
    ask = (
        printed_after("and ask it for a sample", text)
        .replace("5001", port)
        .replace("curl -s", "curl -s --retry 60 --retry-connrefused --retry-delay 1")
    )
    latents = json.dumps([[0.0] * 8] * 2)
    server = subprocess.Popen(["bash", "-c", serve], cwd=swept, start_new_session=True)
    try:
        [sample] = json.loads(in_a_fresh_shell(ask, swept))["predictions"]
        decode = ask.replace('"inputs": [[]]', f'"inputs": {latents}').replace('"sample"', '"decode"')
        decoded = json.loads(in_a_fresh_shell(decode, swept))["predictions"]
        answer = json.loads(in_a_fresh_shell(ask.replace('"count": 1', '"count": 0'), swept))
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()
    assert np.array(sample).shape == (17, 31, 3)
    assert np.array(decoded).shape == (2, 17, 31, 3)
    assert answer["message"].endswith("count must be from 1 to 10,000, but got 0; it is the number of samples")
    assert "went back from version 2 to version 1" in vaegan(swept, "promote", NAME, "--rollback").stdout
    last = vaegan(swept, "promote", NAME, "--rollback", check=False)
    assert last.returncode == 2
    assert "there is nothing to roll back to" in last.stderr


def test_the_report_is_one_page_with_everything_in_it(stores: Stores, swept: Path) -> None:
    vaegan(swept, "report", NAME)
    page = (swept / "runs" / "sweeps" / NAME / "report.html").read_text()
    (data,) = page_data(page)["sweeps"]
    assert set(data["run"]) == {trial.run_id for trial in stores.run.trials}
    assert data["pictures"]
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "bad" in data["point"]["words"], "points keep their names"
    missing = vaegan(swept, "report", "nothing", check=False)
    assert missing.returncode == 2
    assert "no sweep named nothing" in missing.stderr


FIVE_MISTAKES = {
    "base.model.widht": ("base", "model", "widht", 4),
    "space.loss.feature.recon": ("space", "loss.feature.recon", None, {"low": 2.0, "high": 1.0}),
    "space.model.encoder.norm.1": ("space", "model.encoder.norm", None, ["batch", "bacth"]),
    "budget.trials": ("budget", "trials", None, 0),
    "resources.gpus": ("resources", "gpus", None, 1),
}


def test_five_mistakes_give_five_errors_and_start_nothing(frame_set_dir: Path, tmp_path: Path) -> None:
    path = prepare(tmp_path, frame_set_dir)
    data = yaml.safe_load(path.read_text())
    for first, second, third, value in FIVE_MISTAKES.values():
        node = data.setdefault(first, {})
        if third is None:
            node[second] = value
        else:
            node[second][third] = value
    path.write_text(yaml.safe_dump(data))
    for verb in ("check", "sweep"):
        done = vaegan(tmp_path, verb, "sweep.yaml", check=False)
        assert done.returncode == 2
        assert "has 5 errors" in done.stderr
        for where in FIVE_MISTAKES:
            assert f"  {where}: " in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_check_says_what_would_happen_and_does_nothing(frame_set_dir: Path, tmp_path: Path) -> None:
    prepare(tmp_path, frame_set_dir)
    done = vaegan(tmp_path, "check", "sweep.yaml")
    assert "8 (3 of them named points), 80 steps each, rungs at 40" in done.stdout
    assert not (tmp_path / "runs").exists()


def test_one_training_with_overrides_and_its_resume(frame_set_dir: Path, tmp_path: Path) -> None:
    prepare(tmp_path, frame_set_dir)
    trial = SMALL["base"] | {"loss": SMALL["base"]["loss"] | {"kl": {"control": "fixed", "sigma": 0.2}}}
    (tmp_path / "trial.yaml").write_text(yaml.safe_dump(trial))
    vaegan(tmp_path, "train", "trial.yaml", "--set", "train.steps=40", "-o", "out")
    assert (tmp_path / "out" / "model.safetensors").is_file()
    refused = vaegan(tmp_path, "train", "trial.yaml", "--set", "train.steps=40", "-o", "out", check=False)
    assert refused.returncode == 2
    assert "--resume" in refused.stderr
    missing = vaegan(tmp_path, "train", "nothing.yaml", check=False)
    assert missing.returncode == 2
    assert "nothing.yaml" in missing.stderr
    assert "Traceback" not in missing.stderr


def test_a_sweep_that_cannot_start_leaves_its_name_free_and_no_run_behind(frame_set_dir: Path, tmp_path: Path) -> None:
    prepare(tmp_path, frame_set_dir)
    done = vaegan(tmp_path, "sweep", "sweep.yaml", "--set", "resources.gpu=64", check=False)
    assert done.returncode == 2
    assert "resources.gpu: one trial takes 64, but this machine has " in done.stderr
    assert not (tmp_path / "runs").exists()
