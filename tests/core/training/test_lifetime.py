"""A trainer goes with its last reference: a reused worker must not carry one trial's networks into the next."""

import gc
import weakref

import pytest
from trials import tiny

from vaegan_core.data.frames import FrameSet
from vaegan_core.metrics.frame_features import FrameFeatures
from vaegan_core.training.trainer import Trainer


@pytest.mark.parametrize("update", ["joint", "simultaneous", "per_term", "per_term_stale"])
def test_nothing_keeps_a_trainer_alive(frame_set: FrameSet, frame_features: FrameFeatures, update: str) -> None:
    """Without the garbage collector, which may come gigabytes too late. The first training of a process is not looked
    at: libraries that are imported on first use keep their caller's frame."""
    references = []
    gc.disable()
    try:
        for _ in range(2):
            trainer = Trainer(tiny(train__update=update), frame_set, frame_features)
            with trainer.runtime():
                trainer.train_step()
                trainer.evaluate()
            references = [weakref.ref(part) for part in (trainer, trainer.autoencoder, trainer.update)]
            del trainer
    finally:
        gc.enable()
    assert [reference() for reference in references] == [None, None, None]
