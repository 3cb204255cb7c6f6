"""Names that more than one module must agree on: what a trial's end is called, MLflow's tags, artifacts and keys.

Names of metrics belong to the core (vaegan_core/evaluation.py).
"""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """What became of a trial."""

    RUNNING = "running"
    COMPLETED = "completed"
    """It reached the last step."""
    PRUNED = "pruned"
    """It was stopped early."""
    DIVERGED = "diverged"
    IMPOSSIBLE = "impossible"
    """Its values cannot go together, so that it never began."""
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    """Stopped by a person, a budget or the driver's death; it continues when the sweep is resumed."""


FINAL_OUTCOMES = (Outcome.COMPLETED, Outcome.PRUNED, Outcome.DIVERGED, Outcome.IMPOSSIBLE, Outcome.FAILED)
INFEASIBLE_OUTCOMES = (Outcome.DIVERGED, Outcome.IMPOSSIBLE)
"""Ends that a sampler should learn to stay away from."""
UNFINISHED_OUTCOMES = (Outcome.RUNNING, Outcome.INTERRUPTED)


class Tag(StrEnum):
    """Tags of an MLflow run."""

    SWEEP_ID = "vaegan.sweep"
    SWEEP_NAME = "sweep"
    KIND = "vaegan.kind"
    TRIAL = "vaegan.trial"
    OUTCOME = "outcome"
    REASON = "reason"
    RUNG = "rung"
    ORIGIN = "origin"
    BLOCK = "block"
    """Number of the block of a trial that answers questions."""
    LEVELS = "levels"
    """Its level of each question, as JSON; 0 is the reference."""
    ACROSS = "across"
    """Its value of what levels run across, by question, as JSON."""
    FRAMES = "frames"
    DEVICE = "device"
    DECIDED = "decided"
    """What the machine decided where the configuration says `auto`, as JSON."""
    MOVED = "moved"
    """From which steps on a trial ran on another device, or with other decisions."""
    HOST = "host"
    GIT = "git_sha"
    ON_FRONT = "on_front"
    OBJECTIVES = "objectives"
    MODEL_PATH = "model_path"
    MODEL_SHA = "model_sha256"
    CONFIRMED = "confirmed"
    ATTEMPTS = "attempts"
    RESUMED = "resumed_at"
    """Steps of the checkpoints from which later attempts continued."""
    MISMATCH = "mismatch"
    """What a resumed attempt computed again with a different value."""
    IDENTICAL = "identical"
    """Whether a rerun gave the same numbers."""
    FEASIBLE = "feasible"
    SEED = "seed"
    """Seed of a replicate that `vaegan promote` trained; no journal knows it."""
    PROMOTION_SEEDS = "promotion_seeds"
    """With how many fresh seeds `vaegan promote` confirmed a trial."""
    PYTHON = "python"
    TORCH = "torch"
    FEATURES = "features"
    """Fingerprint of the frame set's feature network, which most validation metrics are measured with."""
    ADOPTED = "adopted"
    """From whose state, and at which steps, population based training had a trial continue."""
    DIRECTORY = "directory"
    """Where the files of a training outside a sweep are."""
    FIRST_DIFFERENCE = "first_difference"
    """Where a rerun first parts from the original."""
    VARIANT = "variant"
    """What a rerun changed on purpose."""


class Kind(StrEnum):
    """Kinds of MLflow run."""

    SWEEP = "sweep"
    TRIAL = "trial"
    REPLICATE = "replicate"
    RERUN = "rerun"


class Artifact(StrEnum):
    """Artifacts of an MLflow run; the model's name is also its file's in a trial's directory."""

    CONFIG = "config.yaml"
    SWEEP = "sweep.yaml"
    GIT_DIFF = "git.diff"
    ENVIRONMENT = "environment.txt"
    ERROR = "error.txt"
    MODEL = "model.safetensors"
    EVALUATIONS = "evaluations.parquet"
    REPORT = "report.html"
    QUESTIONS = "questions.json"
    """The questions of a sweep as they were registered."""
    LINEAGE = "lineage.yaml"
    """With which configuration, from whose state, a trial of population based training went on at which steps."""
    COMPARISON = "comparison.json"
    """A rerun compared with its original."""


class Prefix(StrEnum):
    """Prefixes of MLflow metrics that are not the trainer's curves."""

    FINAL = "final/"
    BEST = "best/"
    CONFIRMED = "confirmed/"
    HALF_WIDTH = "confirmed_half_width/"
    BASELINE = "baseline/"
    PARAM = "param/"
    """Parameters that population based training changed along the way."""
    SYSTEM = "system/"
    """MLflow's own; its web pages show these apart."""
    SPEED = "speed/"


STEP = "step"
TRIAL_HOURS, GPU_HOURS = "sweep/trial_hours", "sweep/gpu_hours"
"""What a sweep has spent: hours of all its attempts, and those times their GPUs."""
DERIVED_PREFIXES = (Prefix.FINAL, Prefix.BEST, Prefix.CONFIRMED, Prefix.HALF_WIDTH)
"""Metrics computed from a run's curves and from its replicates."""
UNREPEATABLE_PREFIXES = (Prefix.SPEED, Prefix.SYSTEM)
"""Curves that come out different each time."""

POINT = "point "
"""Begins the origin of a trial that was a named point."""
BLOCK = "block "
"""Begins the origin of a trial that answers questions."""
TIMES = ", time "
"""Before the number in the origin of a trial whose values were drawn before."""


def point_of(origin: str) -> str:
    """Name of the point that a trial was, with the number of times if it was drawn again; "" for other origins."""
    return origin.removeprefix(POINT) if origin.startswith(POINT) else ""


JOB = "VAEGAN_JOB"
"""Variable with the name of the Ray job that this process is part of."""
ASKED = "VAEGAN_ASKED"
"""Variable that all drivers have in common which one request of a person has started, one after the other."""
JOB_OPTIONS = "VAEGAN_JOB_OPTIONS"
"""Variable with what a person adds to a command that continues the sweep of this job, where they submitted it."""
SUBMITTED = "vaegan_submitted"
"""Package that a job gets besides ours: the sweep's YAML, and where the code comes from."""
STORAGE_AWAY = 75
"""Exit code where a sweep's storage did not answer, which may pass (EX_TEMPFAIL)."""
CHAMPION_ALIAS = "champion"
"""The alias that a promotion moves by default."""
TRAINING_VIEW = "?workflowType=machine_learning"
"""Ends addresses of MLflow's pages; without it MLflow 3.17 may open its pages for language models."""
