"""Which code, packages and machine a run comes from."""

from __future__ import annotations

import json
import platform
import re
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib.metadata import distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from search.names import SUBMITTED, Tag
from search.redaction import redact
from vaegan_core.config.trial import TrialConfig
from vaegan_core.training.machine import decided, differences

PROVENANCE_FILE = "provenance.json"
"""What a job gets of the repository that it was submitted from."""


def provenance() -> dict[str, str]:
    """Commit and diff of the code that runs: of its repository, else of the one that it was submitted from; texts are
    empty where neither is known."""
    if sha := _git("rev-parse", "HEAD").strip():
        return {"commit": sha, "diff": redact(_git("diff", "HEAD"))}
    return _submitted() or {"commit": "", "diff": ""}


@cache
def _submitted() -> dict[str, str]:
    """What came with the job that this process is part of; empty outside one."""
    spec = find_spec(SUBMITTED)
    if spec is None or spec.origin is None:
        return {}
    found: dict[str, str] = json.loads(Path(spec.origin).with_name(PROVENANCE_FILE).read_text())
    return found


@cache
def source_tags() -> dict[str, str]:
    """The commit that this package runs from, as MLflow's tag and as ours; empty where it is not known."""
    sha = provenance()["commit"]
    return {Tag.GIT: sha, "mlflow.source.git.commit": sha} if sha else {}


def code_version() -> str:
    """The commit that this package runs from, with "-changed" if files differ from it; "" where it is not known."""
    found = provenance()
    return f"{found['commit'][:12]}{'-changed' if found['diff'] else ''}" if found["commit"] else ""


def source_diff() -> str:
    """How files differ from that commit; "" if they do not."""
    return provenance()["diff"]


def changed_since(commit: str, folder: str) -> list[str] | None:
    """Files of a folder of the repository that differ between a commit and the files that run now; None where the
    commit is not known here."""
    if not re.fullmatch(r"[0-9a-f]{7,40}", commit) or not _git("cat-file", "-t", commit).startswith("commit"):
        return None
    return _git("diff", "--name-only", commit, "--", f":/{folder}").splitlines()


@cache
def installed_packages() -> str:
    """One line per package, name==version."""
    versions = {(d.metadata["Name"] or "").lower(): d.version for d in distributions()}
    return "".join(f"{name}=={version}\n" for name, version in sorted(versions.items()))


def _git(*arguments: str) -> str:
    """Output of a git command in this package's repository; "" outside one."""
    try:
        return subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=10
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


DECIDED = "decided"
"""Key of an environment: what the machine decided, as JSON."""
REPORTED_VERSIONS = ("torch", "torchvision", "numpy", "ray", "optuna", "mlflow")


def describe_environment(config: TrialConfig) -> dict[str, str]:
    """Where a trial runs: host, device, what the machine decided, and the versions that its numbers depend on."""
    import torch

    from vaegan_core.hardware import cpu_name

    cuda = config.train.device == "cuda"
    device = torch.cuda.get_device_name() if cuda else cpu_name()
    versions = {package: version(package) for package in REPORTED_VERSIONS}
    facts = {DECIDED: json.dumps(decided(config))}
    return {"host": platform.node(), "device": device, **facts, "python": platform.python_version(), **versions}


def decided_in(environment: Mapping[str, str]) -> dict[str, Any]:
    """What the machine decided for the training that ran there, by key of `train`; empty for a version before 0.3."""
    facts: dict[str, Any] = json.loads(environment.get(DECIDED, "{}"))
    return facts


def moved(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What differs between the devices of two trainings and between what they decided, in words; "" for nothing."""
    facts = [{"device name": environment.get("device"), **decided_in(environment)} for environment in (before, now)]
    return ", ".join(differences(*facts))
