"""Finished runs read back from MLflow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from trials import tiny

from search.tracking.client import ensure_experiment
from search.tracking.reader import TrialRun, read_config
from vaegan_core.config.trial import parse_trial
from vaegan_core.evaluation import KL


def test_a_configuration_comes_back_as_it_was_written_even_where_yaml_dialects_differ(tmp_path: Path) -> None:
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    run_id = client.create_run(ensure_experiment(client, "dialect")).info.run_id
    with pytest.raises(ValueError, match=r"has no artifact config\.yaml"):
        read_config(client, run_id)
    for frames in ("1e3", "on", "0o17"):
        config = parse_trial(tiny().model_dump(mode="json") | {"frames": frames})
        client.log_text(run_id, config.to_yaml(), "config.yaml")
        assert read_config(client, run_id) == config
    with pytest.raises(ValueError, match="there is no run nothing at"):
        read_config(client, "nothing")


def test_a_confirmation_needs_its_tag() -> None:
    metrics = {"confirmed/val/kl": 7.0, "confirmed_half_width/val/kl": 1.0, "final/val/kl": 6.0}
    trial = TrialRun("r", 0, "completed", {}, metrics, {"confirmed": "2 of 3 seeds"})
    assert trial.final == {KL: 6.0}
    assert trial.confirmed == {KL: 7.0}
    assert trial.confirmation
    assert trial.confirmation.in_words() == "val/kl 7 ± 1 (2 of 3 seeds)"
    assert TrialRun("r", 0, "completed", {}, metrics, {}).confirmation is None


@pytest.mark.parametrize(
    "module", ["search.report.page", "search.promotion.promote", "search.local.train", "search.local.rerun"]
)
def test_what_reads_finished_runs_loads_neither_the_journal_nor_ray(module: str) -> None:
    unwanted = ("search.journal", "search.running", "search.cluster", "ray.")
    code = f"import {module}, sys; print([name for name in sys.modules if f'{{name}}.'.startswith({unwanted})])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
