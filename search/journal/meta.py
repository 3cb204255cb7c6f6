"""Keys of a journal's meta table, each written once."""

from __future__ import annotations

POINTS_CURSOR = "points_cursor"
"""Key of the meta: id of the last point that MLflow has."""


PUBLISHED = "published"


WARM_START = "warm_start"
"""Key of the journal's meta: results of earlier sweeps, a JSON list of {params, metrics}."""


STOP_REQUESTED = "stop_requested"
"""Key of the journal's meta: a reason that another process wrote (`vaegan stop`)."""


SHARE = "gpu_share"


# Keys of the journal's meta
IMAGES_CURSOR = "images_cursor"
MAYBE_DUPLICATES = "maybe_duplicates"
ON_FRONT_TOLD = "on_front_told"
MODELS_TOLD = "models_told"
SUMMARY_TOLD = "summary_told"
