"""cluster.yaml against Ray's own validator, and against itself: no hyperparameters, no open cluster."""

import copy
from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

CLUSTER = yaml.safe_load((Path(__file__).parents[3] / "cluster.yaml").read_text())


def test_rays_validator_accepts_it() -> None:
    validate_config(prepare_config(copy.deepcopy(CLUSTER)))


def test_rays_validator_would_have_seen_a_mistake() -> None:
    with pytest.raises(Exception, match="max_wrokers"):
        validate_config(prepare_config(copy.deepcopy(CLUSTER) | {"max_wrokers": 3}))


def test_every_ray_process_asks_for_the_token() -> None:
    starts = [
        line for key in ("head", "worker") for line in CLUSTER[f"{key}_start_ray_commands"] if "ray start" in line
    ]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in line for line in starts)
