"""Names that more than one module must agree on: MLflow tags, artifacts and keys. Metric names belong to the core."""

# Tags of a run
SWEEP_TAG = "vaegan.sweep"
KIND_TAG = "vaegan.kind"
TRIAL_TAG = "vaegan.trial"
OUTCOME_TAG = "outcome"
REASON_TAG = "reason"
RUNG_TAG = "rung"
ORIGIN_TAG = "origin"
FRAMES_TAG = "frames"
DEVICE_TAG = "device"
HOST_TAG = "host"
GIT_TAG = "git_sha"
ON_FRONT_TAG = "on_front"
OBJECTIVES_TAG = "objectives"
MODEL_PATH_TAG = "model_path"
MODEL_SHA_TAG = "model_sha256"
CONFIRMED_TAG = "confirmed"
FEASIBLE_TAG = "feasible"

# Kinds of run
SWEEP_KIND = "sweep"
TRIAL_KIND = "trial"
REPLICATE_KIND = "replicate"

# Artifacts
CONFIG_ARTIFACT = "config.yaml"
SWEEP_ARTIFACT = "sweep.yaml"
GIT_DIFF_ARTIFACT = "git.diff"
ENVIRONMENT_ARTIFACT = "environment.txt"
ERROR_ARTIFACT = "error.txt"
MODEL_ARTIFACT = "model.safetensors"

# Prefixes of metrics
FINAL_PREFIX = "final/"
BEST_PREFIX = "best/"
STEP = "step"
CONFIRMED_PREFIX = "confirmed/"
PARAM_PREFIX = "param/"
"""Of parameters that population based training changed on the way."""
HALF_WIDTH_PREFIX = "confirmed_half_width/"
BASELINE_PREFIX = "baseline/"

CHAMPION_ALIAS = "champion"
