"""The seed author's experiments as configurations: complete, his networks, and every one of them trains."""

from pathlib import Path
from typing import Any

import pytest
import torch

from search.config.load import load_sweep
from vaegan_core.data.frames import FrameSet
from vaegan_core.evaluation import Evaluation
from vaegan_core.metrics.frame_features import FrameFeatures
from vaegan_core.model.networks import Autoencoder, Discriminator
from vaegan_core.training.resolve import resolve
from vaegan_core.training.trainer import Trainer

HISTORY = Path(__file__).parents[3] / "search" / "sweeps" / "history.yaml"
TINY = (
    "base.model.latent_dim=8",
    "base.model.width=4",
    "base.model.depth=2",
    "base.train.steps=4",
    "base.train.batch_size=8",
    "base.train.log_every=2",
    "base.train.device=cpu",
    "base.evaluate={every: 4, num_test: 16, num_samples: 32}",
)
POINTS = load_sweep(HISTORY).config.points


def test_it_names_every_experiment() -> None:
    sweep = load_sweep(HISTORY)
    dates = {name.split("-")[0] for name in sweep.config.points}
    assert dates == {"0411", "0418", "0425", "code", "0509", "0516", "0523", "0530", "0606"}
    assert sweep.config.budget.trials == len(sweep.config.points) >= 25


def test_at_full_size_the_networks_are_the_authors() -> None:
    sweep = load_sweep(HISTORY)
    config = sweep.trial(sweep.config.points["0411-the-seed"])
    with torch.device("meta"):
        networks = Autoencoder(config.model, (65, 121)), Discriminator(config.model, (65, 121))
    encoder, decoder, discriminator = networks[0].encoder, networks[0].decoder, networks[1]
    counts = [sum(p.numel() for p in network.parameters()) / 1e6 for network in (encoder, decoder, discriminator)]
    assert [round(count, 2) for count in counts] == [76.53, 40.45, 21.44]


def test_one_setting_makes_it_small_without_changing_an_experiment() -> None:
    full, small = load_sweep(HISTORY), load_sweep(HISTORY, ["preset=small"])
    assert small.config.points == full.config.points
    assert small.config.name != full.config.name
    assert small.trial({}).model.width == 8
    assert load_sweep(HISTORY, ["preset=small", "base.model.width=6"]).trial({}).model.width == 6


@pytest.mark.parametrize("point", POINTS)
def test_each_experiment_trains(frame_set: FrameSet, frame_features: FrameFeatures, point: Any) -> None:
    sweep = load_sweep(HISTORY, TINY)
    config = resolve(sweep.trial(sweep.config.points[point]), threads=1)
    evaluations: list[Evaluation] = []
    Trainer(config, frame_set, frame_features).run(evaluations.append)
    (last,) = evaluations
    assert last.outcome == "completed", last.reason
    assert {point.step for point in last.points} == {2, 4}
