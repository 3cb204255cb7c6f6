"""The files of clusters against Ray's own validator, and against themselves: no hyperparameters, no open cluster."""

from __future__ import annotations

import copy
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from command_lines import wrong_with
from ray.autoscaler._private.util import prepare_config, validate_config
from source_tree import ROOT

FILES = ("cluster.yaml", "search/cluster/aws.yaml")
RAYJOB = "search/cluster/rayjob.yaml"
KUBERAY = {
    "RayJob": "activeDeadlineSeconds backoffLimit clusterSelector entrypoint entrypointNumCpus entrypointNumGpus "
    "entrypointResources jobId metadata rayClusterSpec runtimeEnvYAML shutdownAfterJobFinishes submissionMode "
    "submitterConfig submitterPodTemplate suspend ttlSecondsAfterFinished",
    "RayCluster": "authOptions autoscalerOptions enableInTreeAutoscaling gcsFaultToleranceOptions headGroupSpec "
    "headServiceAnnotations managedBy rayVersion suspend workerGroupSpecs",
    "head": "enableIngress headService rayStartParams serviceType template",
    "worker": "groupName idleTimeoutSeconds maxReplicas minReplicas numOfHosts rayStartParams replicas scaleStrategy "
    "suspend template",
}
"""Keys of KubeRay's resources that its version 1.5.1 knows; others it drops without a word."""
SLURM = ROOT / "search" / "cluster" / "slurm.sbatch"
INSTANCES = {"m7i.xlarge", "g6.2xlarge"}
"""Types that AWS has; Ray's validator takes any name."""


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())
    return found


@pytest.mark.parametrize("name", FILES)
def test_rays_validator_accepts_it(name: str) -> None:
    validate_config(prepare_config(copy.deepcopy(read(name))))


@pytest.mark.parametrize("name", FILES)
def test_rays_validator_would_have_seen_a_mistake(name: str) -> None:
    with pytest.raises(Exception, match="max_wrokers"):
        validate_config(prepare_config(copy.deepcopy(read(name)) | {"max_wrokers": 3}))


@pytest.mark.parametrize("name", FILES)
def test_every_ray_process_asks_for_the_token_that_the_file_brings(name: str) -> None:
    cluster = read(name)
    starts = [
        line for key in ("head", "worker") for line in cluster[f"{key}_start_ray_commands"] if "ray start" in line
    ]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in line for line in starts)
    assert [Path(path).name for path in cluster["file_mounts"]] == ["auth_token"]
    assert "chmod 600 ~/.ray/auth_token" in cluster["setup_commands"]


@pytest.mark.parametrize("name", FILES)
def test_commands_are_shell_that_can_be_read(name: str) -> None:
    cluster = read(name)
    lines = [line for key in cluster if key.endswith("commands") for line in cluster[key]]
    assert len(lines) >= 6
    for line in lines:
        done = subprocess.run(["bash", "-n", "-c", line], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}: {done.stderr}"


def test_instances_are_of_types_that_there_are_and_no_trial_runs_on_the_head() -> None:
    types = read("search/cluster/aws.yaml")["available_node_types"]
    assert {each["node_config"]["InstanceType"] for each in types.values()} <= INSTANCES
    assert types["head"]["resources"] == {"CPU": 0}
    assert types["spot"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in types["on_demand"]["node_config"]


def test_the_batch_file_is_shell_that_can_be_read() -> None:
    assert subprocess.run(["bash", "-n", str(SLURM)], check=False).returncode == 0
    assert SLURM.read_text().startswith("#!/bin/bash\n#SBATCH ")


def test_kuberay_knows_every_key_and_brings_a_token() -> None:
    job = read(RAYJOB)
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    cluster = spec["rayClusterSpec"]
    assert spec.keys() <= set(KUBERAY["RayJob"].split())
    assert cluster.keys() <= set(KUBERAY["RayCluster"].split())
    assert cluster["headGroupSpec"].keys() <= set(KUBERAY["head"].split())
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["rayVersion"] == ray.__version__, "of the image, which is built with constraints.txt"
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        for container in group["template"]["spec"]["containers"]:
            assert container["resources"]["requests"] == container["resources"]["limits"]
    for group in cluster["workerGroupSpecs"]:
        assert group.keys() <= set(KUBERAY["worker"].split())
        assert "nvidia.com/gpu" in group["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_the_commands_of_the_files_are_ours_and_go_on_where_they_were_cut_off() -> None:
    [of_slurm] = re.findall(r"^  vaegan (.*)$", SLURM.read_text(), re.MULTILINE)
    for line in (of_slurm, read(RAYJOB)["spec"]["entrypoint"].removeprefix("vaegan ")):
        words = shlex.split(line.replace('"$1"', "SWEEP.yaml"))
        assert wrong_with(words, whole=True) == ""
        assert {"--cluster", "auto", "--resume"} <= set(words)


def test_the_image_copies_what_there_is() -> None:
    copied = re.findall(r"^COPY (.*) \S+$", (ROOT / "search" / "cluster" / "Dockerfile").read_text(), re.MULTILINE)
    assert {"vaegan_core", "search", "constraints.txt", "pyproject.toml"} <= set(" ".join(copied).split())
    assert all((ROOT / name).exists() for line in copied for name in line.split())
