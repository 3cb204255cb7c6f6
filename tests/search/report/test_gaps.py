"""What is wrong with samples, in words: z, the decoder, both, neither, or unknown."""

import pytest

from search.report.gaps import gaps_in_words
from vaegan_core.evaluation import DECODER_GAP, EXPOST_GAP, GAP_FLOOR, PIXEL_MSE, PRIOR_GAP

BASELINES = {"floor": 30.0}


@pytest.mark.parametrize(
    ("prior", "decoder", "verdicts"),
    [
        (500.0, 400.0, ("z is wrong", "G is blurred")),
        (15.0, 400.0, ("z is right", "G is blurred")),
        (500.0, 40.0, ("z is wrong", "G is sharp")),
        (19.0, 59.0, ("z is right", "G is sharp")),
        (20.0, 60.0, ("z is wrong", "G is blurred")),
    ],
)
def test_each_gap_is_held_against_its_floor(prior: float, decoder: float, verdicts: tuple[str, str]) -> None:
    metrics = {PRIOR_GAP: prior, EXPOST_GAP: 12.0, GAP_FLOOR: 10.0, DECODER_GAP: decoder}
    sentences = gaps_in_words(7, metrics, BASELINES)
    assert tuple(sentence.split(":")[0] for sentence in sentences) == verdicts
    assert "trial 7's own" in sentences[0]
    assert "fitted to q(z) they are 12" in sentences[0]
    assert "real frames: 30" in sentences[1]


def test_a_floor_as_large_as_the_distance_of_mean_colors_tells_nothing_of_the_decoder() -> None:
    metrics = {PRIOR_GAP: 15.0, EXPOST_GAP: 12.0, GAP_FLOOR: 10.0, DECODER_GAP: 55.0}
    *_, told = gaps_in_words(7, metrics, BASELINES | {"mean_color_fd": 61.0})
    assert told.startswith("G is sharp")
    *_, untold = gaps_in_words(7, metrics, BASELINES | {"mean_color_fd": 60.0})
    assert untold.startswith("Too few frames tell whether G is sharp")


def test_trials_of_old_versions_have_no_gaps() -> None:
    assert gaps_in_words(0, {PIXEL_MSE: 0.1}, BASELINES) == []
