"""Inception FID, with a network of random weights: what it says, when, and which files it refuses."""

from __future__ import annotations

import math
import os
import pickle
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from unittest import mock

import pytest
import torch
import yaml
from sweeps import sweep_data
from torch import nn
from trials import tiny

from search.config.load import load_sweep
from search.preflight.describe import describe
from search.running.sweep_frames import open_frames
from search.terminal import Screen
from vaegan_core.data.batches import as_tensor, to_images
from vaegan_core.data.frames import FrameSet
from vaegan_core.evaluation import SAMPLES_FID, Evaluation
from vaegan_core.metrics.frame_features import FrameFeatures
from vaegan_core.metrics.inception import load_inception
from vaegan_core.problems import ConfigError
from vaegan_core.training.trainer import Trainer

CPU = torch.device("cpu")
COUNT = 6
REFUSED = r"evaluate\.inception_weights must name"


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file like torch-fidelity's, 96 MB, of weights that keep the size of what passes through."""
    from torch_fidelity import FeatureExtractorInceptionV3

    with (
        torch.random.fork_rng(devices=[]),
        mock.patch.object(FeatureExtractorInceptionV3, "load_state_dict"),
        mock.patch("torch.load"),
    ):
        torch.manual_seed(0)
        network = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path="unused")
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(network.state_dict(), path)
    return str(path)


def test_the_distance_is_none_to_itself_and_grows_with_noise(weights: str, frame_set: FrameSet) -> None:
    chosen = torch.linspace(0, frame_set.num_train - 1, COUNT).round().long()
    images = to_images(as_tensor(frame_set.train)[chosen])
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    same, slight, strong = (
        load_inception(weights).distance((images + std * noise).split(3), frame_set, COUNT, CPU)
        for std in (0.0, 0.1, 1.0)
    )
    assert same == pytest.approx(0, abs=1e-3 * slight)
    assert 0 < slight < strong / 3


def test_the_last_evaluation_alone_has_it_and_the_training_stays_the_same(
    weights: str, frame_set: FrameSet, frame_features: FrameFeatures
) -> None:
    without, found = (
        _evaluations(frame_set, frame_features, evaluate__num_samples=COUNT, evaluate__inception_weights=path)
        for path in (None, weights)
    )
    (early, last), fid = found, found[-1].metrics[SAMPLES_FID]
    assert fid > 0
    assert math.isfinite(fid)
    assert [early.metrics, last.metrics] == [without[0].metrics, without[1].metrics | {SAMPLES_FID: fid}]
    assert [point.step for evaluation in found for point in evaluation.points if point.key == SAMPLES_FID] == [12]
    assert _curves(found) - {(SAMPLES_FID, 12, fid)} == _curves(without)


def _evaluations(frame_set: FrameSet, features: FrameFeatures, **changes: object) -> list[Evaluation]:
    """A training that begins at a known state of the global generator, which it must leave alone."""
    torch.manual_seed(0)
    evaluations: list[Evaluation] = []
    state = torch.get_rng_state()
    Trainer(tiny(**changes), frame_set, features).run(evaluations.append)
    assert torch.equal(torch.get_rng_state(), state)
    return evaluations


def _curves(evaluations: list[Evaluation]) -> set[tuple[str, int, float]]:
    points = [point for evaluation in evaluations for point in evaluation.points]
    return {(point.key, point.step, point.value) for point in points if not point.key.startswith("speed/")}


# --- Files that are refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("save", [torch.save, lambda thing, path: path.write_bytes(pickle.dumps(thing, 2))])
def test_a_malicious_file_is_refused_and_not_executed(save: Callable[[object, Path], None], tmp_path: Path) -> None:
    executed, path = tmp_path / "executed", tmp_path / "weights.pth"

    class Malicious:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(executed),)

    save(Malicious(), path)
    with pytest.raises(ValueError, match=REFUSED):
        load_inception(str(path))
    assert not executed.exists()
    with suppress(RuntimeError):
        torch.load(path, weights_only=False)
    assert executed.exists(), "the file is no danger, so the test shows nothing"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "does not exist"),
        (b"", "cannot be read"),
        (b"<html>Not Found</html>", "cannot be read"),
        ([torch.zeros(2)], "holds something else"),
        ({"epoch": 3}, "holds something else"),
        ({"fc.weight": torch.zeros(2)}, "holds the tensors of another network"),
    ],
)
def test_a_file_of_something_else_is_refused(content: object, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ValueError, match=f"{REFUSED} .* but {path} {problem}"):
        load_inception(str(path))


def test_a_cut_off_file_is_refused(weights: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(Path(weights).read_bytes()[:-1_000_000])
    with pytest.raises(ValueError, match="cannot be read"):
        load_inception(str(path))


def test_without_torch_fidelity_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(ValueError, match=r"inception_weights needs .* pip install 'vaegan-search\[inception\]'"):
        load_inception("weights of another name.pth")


def test_a_trainer_refuses_before_its_first_step(frame_set: FrameSet, frame_features: FrameFeatures) -> None:
    with pytest.raises(ValueError, match=REFUSED):
        Trainer(tiny(evaluate__inception_weights="nowhere.pth"), frame_set, frame_features)


# --- In a sweep -------------------------------------------------------------------------------------------------------


def sweep_file(directory: Path, **changes: object) -> Path:
    data = sweep_data(**changes)
    data["base"]["evaluate"]["inception_weights"] = "weights.pth"
    path = directory / "sweep.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def test_a_missing_file_is_one_of_the_errors_of_a_sweep(tmp_path: Path) -> None:
    path = sweep_file(tmp_path, budget={"trials": 0})
    with pytest.raises(ConfigError) as caught:
        load_sweep(path, need_frames=True)
    found = [where for where, _ in caught.value.problems]
    assert found == ["budget.trials", "base.frames", "base.evaluate.inception_weights"]


def test_a_sweep_with_another_file_is_refused_before_anything_is_written(
    frame_set_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("weights.pth").write_bytes(b"damaged")
    sweep = load_sweep(sweep_file(tmp_path), [f"base.frames={frame_set_dir}"], need_frames=True)
    for use in (lambda: list(describe(sweep)), lambda: open_frames(sweep, Screen())):
        with pytest.raises(ValueError, match=REFUSED):
            use()
    assert not Path("runs").exists()


def test_workers_get_an_absolute_path_and_check_tells_it(
    weights: str, frame_set_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(weights).parent)
    sweep = load_sweep(sweep_file(tmp_path), [f"base.frames={frame_set_dir}"], need_frames=True)
    assert sweep.config.base["evaluate"]["inception_weights"] == weights
    assert any(weights in line and SAMPLES_FID in line for line in describe(sweep))
