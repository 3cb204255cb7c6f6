"""What is wrong with a trial's samples, in words: z, the decoder, or both."""

from __future__ import annotations

import math
from collections.abc import Mapping

from vaegan_core.evaluation import DECODER_GAP, EXPOST_GAP, GAP_FLOOR, PRIOR_GAP

NEAR = 2.0
"""A distance below this multiple of its floor counts as small."""


def gaps_in_words(number: int, metrics: Mapping[str, float], baselines: Mapping[str, float]) -> list[str]:
    """Sentences on prior and decoder gap of one trial; none for trials of versions before 0.2, which have no gaps."""
    if any(key not in metrics for key in (PRIOR_GAP, EXPOST_GAP, GAP_FLOOR, DECODER_GAP)):
        return []
    prior, expost, floor, decoder = (metrics[key] for key in (PRIOR_GAP, EXPOST_GAP, GAP_FLOOR, DECODER_GAP))
    real = baselines["floor"]
    right = prior < NEAR * floor
    verdict = "z is right" if right else "z is wrong"
    fitted = f"; with z from the density fitted to q(z) they are {expost:.0f} from them"
    sharpness = "G is sharp" if decoder < NEAR * real else "G is blurred"
    if NEAR * real >= baselines.get("mean_color_fd", math.inf):
        sharpness = "Too few frames tell whether G is sharp, since mean colors would count as near"
    return [
        f"{verdict}: images of N(0, I) are {prior:.0f} from trial {number}'s own reconstructions of training frames "
        f"({PRIOR_GAP}; equal distributions: {floor:.0f}){fitted}.",
        f"{sharpness}: those reconstructions are {decoder:.0f} from the training frames ({DECODER_GAP}; other "
        f"real frames: {real:.0f}).",
    ]
