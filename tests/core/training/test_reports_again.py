"""A resumed training gives back the reports that may not have arrived."""

from __future__ import annotations

from pathlib import Path

import pytest
from trials import tiny

from vaegan_core.data.frames import FrameSet
from vaegan_core.evaluation import Evaluation
from vaegan_core.metrics.frame_features import FrameFeatures
from vaegan_core.training.trainer import Trainer


class Killed(Exception):
    pass


def test_every_report_from_a_step_on_is_given_back(
    frame_set: FrameSet, frame_features: FrameFeatures, tmp_path: Path
) -> None:
    config, checkpoint = tiny(evaluate__every=3), tmp_path / "checkpoint.safetensors"
    reported: list[Evaluation] = []

    def report(evaluation: Evaluation) -> None:
        reported.append(evaluation)
        if [each.step for each in reported] in ([3], [3, 3, 6, 9]):
            raise Killed

    for _ in range(2):  # an attempt that resumes keeps what the one before it reported
        with pytest.raises(Killed):
            Trainer(config, frame_set, frame_features).run(report, checkpoint=checkpoint)
    first = reported[1:]
    saved = checkpoint.read_bytes()
    for since, repeated in ((0, first), (6, first[1:]), (7, first[2:]), (99, first[2:]), (None, first[2:])):
        again: list[Evaluation] = []
        checkpoint.write_bytes(saved)
        Trainer(config, frame_set, frame_features).run(again.append, checkpoint=checkpoint, since=since)
        assert again[:-1] == repeated, since
        assert again[-1].step == 12
