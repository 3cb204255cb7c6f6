"""Keys of a journal's meta table, each written once."""

from __future__ import annotations

from enum import StrEnum


class Meta(StrEnum):
    """Keys of the meta table; values are text."""

    # Written when the sweep is created
    ID = "id"
    SWEEP = "sweep"
    """The sweep's YAML, as it is now."""
    FRAMES = "frames"
    """Fingerprint of the frame set."""
    FEATURES = "features"
    """Fingerprint of the frame set's feature network."""
    BASELINES = "baselines"
    """JSON: scores of trivial models."""
    CODE = "code"
    """Commit that the sweep began with."""
    STORAGE = "storage"
    """URI of the storage that the sweep lives in; "" where that is its own directory."""
    WARM_START = "warm_start"
    """JSON: completed trials of earlier sweeps, a list of {params, metrics}."""

    QUESTIONS = "questions"
    """JSON: the questions as they were registered, see questions.py."""

    # Written while it runs
    SHIPPED_POINTS = "shipped_points"
    """Id of the last curve point that the storage has; MLflow is sent none after it, or one that is lost with this
    machine would be repeated there."""
    EPOCH = "epoch"
    """The storage lease's, of the driver that wrote here last."""
    STOP_REQUESTED = "stop_requested"
    """Reason given by another process (`vaegan stop`)."""
    EXTENDED_AS = "extended_as"
    """The request, where it has a name, that the sweep was extended for last."""
    GPU_SHARE = "gpu_share"
    """GPUs per trial, as measured for `resources.gpu: auto`."""
    PUBLISHED = "published"
    """Set once MLflow has everything of a finished sweep."""

    # What MLflow has been sent
    PARENT_RUN_ID = "parent_run_id"
    POINTS_CURSOR = "points_cursor"
    """Id of the last curve point that was sent."""
    IMAGES_CURSOR = "images_cursor"
    """Id of the last image that was sent."""
    MAYBE_DUPLICATES = "maybe_duplicates"
    """Set when a run may have been made twice: the server did not answer in time."""
    ON_FRONT_SENT = "on_front_told"
    """JSON: numbers of the trials tagged as on the front."""
    MODELS_SENT = "models_told"
    """JSON: by trial number, whether its weights were sent or only their place and hash."""
    SUMMARY_SENT = "summary_told"
    """The description that the sweep's run has."""
    QUESTIONS_SENT = "questions_sent"
    """The registered questions that the sweep's run has."""
    EVALUATIONS_SENT = "evaluations_sent"
    """Number of evaluations in the table that the sweep's run has."""
