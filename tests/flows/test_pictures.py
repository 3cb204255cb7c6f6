"""`vaegan sample` and `vaegan reconstruct` on a trained model: registered, of a run, and in a file."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sweep_files import vaegan
from trials import tiny

from search.cli import main
from search.names import Artifact, Kind, Outcome, Prefix, Tag
from search.tracking.client import ensure_experiment, open_client
from search.tracking.runs import NewRun, create_run
from vaegan_core.data.batches import as_tensor, to_frames, to_images
from vaegan_core.data.frames import FRAMES_FILE, FrameManifest, FrameSet, Source, hash_frames, write_manifest
from vaegan_core.evaluation import LAYOUT_FD, PIXEL_MSE
from vaegan_core.metrics.frame_features import FrameFeatures
from vaegan_core.model.saved import SavedModel, load_model
from vaegan_core.training.trainer import Trainer

NAME = "models:/vaegan-toy@champion"
OLD_MODEL = Path(__file__).parents[1] / "support" / "models" / "served.tar.gz"
RUN_WITHOUT_MODEL = "no model"


@dataclass(frozen=True)
class Stored:
    """A directory in which a sweep of one trial was promoted, and what it holds."""

    directory: Path
    weights: Path
    run_id: str
    parent_id: str

    @property
    def model(self) -> SavedModel:
        return load_model(self.weights)


@pytest.fixture(scope="module")
def stored(
    frame_set_dir: Path, frame_set: FrameSet, frame_features: FrameFeatures, tmp_path_factory: pytest.TempPathFactory
) -> Stored:
    directory = tmp_path_factory.mktemp("pictures")
    weights = directory / "out" / Artifact.MODEL
    config = tiny(frames=str(frame_set_dir))
    trainer = Trainer(config, frame_set, frame_features)
    trainer.run(lambda _: None)
    trainer.save_model(weights)

    client = open_client(f"sqlite:///{directory}/runs/mlflow.db")
    experiment = ensure_experiment(client, "toys")
    tags = {Tag.SWEEP_ID: "toy", Tag.OBJECTIVES: f"{PIXEL_MSE},{LAYOUT_FD}"}
    parent_id = create_run(client, experiment, NewRun(Kind.SWEEP, "toy", more=tags))
    for key, value in (("mean_color_mse", 1.0), ("mean_color_fd", 9.0), ("floor", 1.0)):
        client.log_metric(parent_id, f"{Prefix.BASELINE}{key}", value)
    tags = {Tag.SWEEP_ID: "toy", Tag.TRIAL: "0", Tag.OUTCOME: Outcome.COMPLETED}
    run_id = create_run(client, experiment, NewRun(Kind.TRIAL, "toy-0", parent=parent_id, more=tags))
    for key in (PIXEL_MSE, LAYOUT_FD):
        client.log_metric(run_id, f"{Prefix.FINAL}{key}", 0.5)
    client.log_text(run_id, config.to_yaml(), Artifact.CONFIG)
    client.log_artifact(run_id, str(weights))
    client.log_text(parent_id, "base: {}\n", Artifact.SWEEP)
    client.set_terminated(parent_id)
    vaegan(directory, "promote", "toy", "--force", "--no-confirm")
    return Stored(directory, weights, run_id, parent_id)


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def run(stored: Stored, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in the directory of the sweep."""

    def run(*words: object) -> Done:
        monkeypatch.chdir(stored.directory)
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        monkeypatch.setattr(sys, "argv", ["vaegan", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return Done(int(ended.value.code or 0), said.out, said.err)

    return run


def pixels(path: Path) -> np.ndarray:
    image = Image.open(path)
    assert image.mode == "RGB"
    return np.asarray(image)


def all_pixels(directory: Path) -> np.ndarray:
    return np.stack([pixels(path) for path in sorted(directory.glob("[0-9]*.png"))])


def expected_samples(model: SavedModel, count: int, seed: int, sampler: str) -> np.ndarray:
    noise = torch.randn(count, model.latent_dim, generator=torch.Generator().manual_seed(seed))
    return to_frames(model.sample(noise, sampler)).numpy()


# --- Samples ----------------------------------------------------------------------------------------------------------


def test_every_name_of_a_model_gives_the_same_samples(stored: Stored, run: Run, tmp_path: Path) -> None:
    expected = expected_samples(stored.model, 5, 3, "fitted")
    names = (NAME, "models:/vaegan-toy/1", stored.run_id, stored.weights, stored.weights.parent)
    for number, name in enumerate(names):
        done = run("sample", name, "-o", tmp_path / str(number), "--count", 5, "--seed", 3)
        assert done.code == 0, done.err
        assert "5 samples of 31x17 from the density fitted to z of training frames, seed 3" in done.out
        assert sorted(path.name for path in (tmp_path / str(number)).iterdir()) == [f"{i:05d}.png" for i in range(5)]
        assert np.array_equal(all_pixels(tmp_path / str(number)), expected)


def test_the_same_seed_gives_the_same_bytes_and_the_prior_others(stored: Stored, run: Run, tmp_path: Path) -> None:
    for name, options in (("a", ()), ("b", ()), ("other", ("--seed", 1)), ("prior", ("--sampler", "prior"))):
        run("sample", stored.weights, "-o", tmp_path / name, "--count", 10, "--grid", *options)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    assert not np.array_equal(all_pixels(tmp_path / "other"), all_pixels(tmp_path / "a"))
    assert np.array_equal(all_pixels(tmp_path / "prior"), expected_samples(stored.model, 10, 0, "prior"))
    assert pixels(tmp_path / "a" / "grid.png").shape == (2 * 18 + 1, 8 * 32 + 1, 3), "10 images in rows of 8"


def test_a_model_that_an_earlier_version_registered_gives_samples_of_the_prior(run: Run, tmp_path: Path) -> None:
    with tarfile.open(OLD_MODEL) as archive:
        archive.extractall(tmp_path, filter="data")
    done = run("sample", tmp_path / "model", "-o", tmp_path / "out", "--count", 4)
    assert "4 samples of 31x17 from the prior N(0, I), seed 0" in done.out
    refused = run("sample", tmp_path / "model", "-o", tmp_path / "fitted", "--sampler", "fitted")
    assert refused.code == 2
    assert "the sampler must be prior, but got 'fitted': this model was stored without a fitted density" in refused.err
    assert not (tmp_path / "fitted").exists()


SERVED = """
import sys
import mlflow, numpy as np
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
frames = np.zeros((5, 17, 31, 3), dtype=np.uint8)
params = {"mode": "sample", "seed": 3}
images = [model.predict(frames, params=params | more) for more in ({}, {"sampler": "prior"})]
np.save(sys.argv[3], np.stack(images))
print({param.name: param.default for param in model.metadata.signature.params})
"""


def test_the_served_model_gives_the_same_samples_and_says_where_they_come_from(stored: Stored, tmp_path: Path) -> None:
    uri = f"sqlite:///{stored.directory}/runs/mlflow.db"
    command = [sys.executable, "-c", SERVED, uri, NAME, str(tmp_path / "images.npy")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "{'mode': 'reconstruct', 'count': 0, 'seed': 0, 'sampler': 'fitted'}"
    expected = [expected_samples(stored.model, 5, 3, sampler) for sampler in ("fitted", "prior")]
    assert np.abs(np.load(tmp_path / "images.npy").astype(int) - expected).max() <= 1
    version = open_client(uri).get_model_version_by_alias("vaegan-toy", "champion")
    assert "from the ex-post density, fitted to z of training frames" in version.description


# --- Reconstructions --------------------------------------------------------------------------------------------------


def test_reconstructions_of_a_frame_set_are_those_of_spread_test_frames(
    stored: Stored, frame_set: FrameSet, frame_set_dir: Path, run: Run, tmp_path: Path
) -> None:
    done = run("reconstruct", NAME, frame_set_dir, "-o", tmp_path / "out", "--grid")
    assert "16 reconstructions of 31x17" in done.out
    chosen = np.linspace(0, len(frame_set.test) - 1, 16).round().astype(int)
    x = to_images(as_tensor(frame_set.test[chosen]))
    model = stored.model
    assert np.array_equal(all_pixels(tmp_path / "out"), to_frames(model.decode(model.encode(x))).numpy())
    grid = pixels(tmp_path / "out" / "grid.png")
    assert grid.shape == (4 * 18 + 1, 8 * 32 + 1, 3)
    assert np.array_equal(grid[1:18, 1:32], frame_set.test[0]), "frames above"
    assert np.array_equal(grid[19:36, 1:32], pixels(tmp_path / "out" / "00000.png")), "their reconstructions below"


def test_reconstructions_of_image_files_are_in_their_order_and_cropped(
    stored: Stored, frame_set: FrameSet, run: Run, tmp_path: Path
) -> None:
    """A picture with bars beside it is cropped to the frame; in the grid, three frames make a row of three."""
    frame = Image.fromarray(frame_set.test[0])
    wide = Image.new("RGB", (61, 17), "red")
    wide.paste(frame, (15, 0))
    wide.save(tmp_path / "wide.png")
    frame.resize((62, 34)).save(tmp_path / "large.jpg")
    frame.convert("L").save(tmp_path / "gray.png")
    paths = [tmp_path / name for name in ("wide.png", "large.jpg", "gray.png")]
    done = run("reconstruct", stored.weights, *paths, "-o", tmp_path / "out", "--grid")
    assert "3 reconstructions of 31x17" in done.out
    model = stored.model
    expected = model.decode(model.encode(to_images(as_tensor(frame_set.test[:1]))))
    assert np.array_equal(pixels(tmp_path / "out" / "00000.png"), to_frames(expected)[0].numpy())
    grid = pixels(tmp_path / "out" / "grid.png")
    assert grid.shape == (2 * 18 + 1, 3 * 32 + 1, 3)
    assert np.array_equal(grid[1:18, 1:32], frame_set.test[0])


def test_a_strip_goes_from_one_reconstruction_to_the_other(
    stored: Stored, frame_set: FrameSet, frame_set_dir: Path, run: Run, tmp_path: Path
) -> None:
    for name, index in (("a", 0), ("b", -1)):
        Image.fromarray(frame_set.test[index]).save(tmp_path / f"{name}.png")
    pair = [tmp_path / "a.png", tmp_path / "b.png"]
    run("reconstruct", stored.weights, *pair, "-o", tmp_path / "ends")
    done = run("reconstruct", stored.weights, *pair, "-o", tmp_path / "way", "--interpolate")
    assert "8 images between two frames of 31x17" in done.out
    way, ends = all_pixels(tmp_path / "way"), all_pixels(tmp_path / "ends")
    assert len(way) == 8
    assert np.abs(way[[0, -1]].astype(int) - ends).max() <= 1
    strip = pixels(tmp_path / "way" / "strip.png")
    assert strip.shape == (18 + 1, 8 * 32 + 1, 3)
    assert np.array_equal(strip[1:18, 1:32], way[0])
    run("reconstruct", stored.weights, frame_set_dir, "-o", tmp_path / "set", "--interpolate")
    assert np.array_equal(all_pixels(tmp_path / "set"), way), "of a frame set, its first and last test frame"


# --- What is wrong ----------------------------------------------------------------------------------------------------


def refused(done: Done, message: str, code: int = 2) -> None:
    assert done.code == code, done
    assert message in done.err
    assert "Traceback" not in done.err
    assert len(done.err.strip().splitlines()) == 1, done.err


def test_a_directory_that_holds_something_is_refused_before_the_model_is_looked_for(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    for words in (("sample", "nothing"), ("reconstruct", "nothing", "no.png")):
        for path, what in ((tmp_path, "holds files"), (tmp_path / "mine.txt", "is a file")):
            refused(
                run(*words, "-o", path), f"--output must be a new or empty directory, but {path} {what}; name another"
            )
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("models:/nothing@champion", "there is no models:/nothing@champion at "),
        ("models:/vaegan-toy@best", "there is no models:/vaegan-toy@best at "),
        ("models:/vaegan-toy/7", "models there: vaegan-toy"),
        ("models:/vaegan-toy", "MODEL must be models:/NAME@ALIAS or models:/NAME/VERSION, the id of a run"),
        ("nothing", "but got 'nothing', which is not here either"),
        ("0" * 32, f"there is no run {'0' * 32} at "),
        ("runs", "runs holds no model.safetensors"),
        (RUN_WITHOUT_MODEL, "a run has weights if it reached its last step"),
    ],
)
def test_an_unknown_model_is_one_line(stored: Stored, run: Run, tmp_path: Path, name: str, message: str) -> None:
    given = stored.parent_id if name == RUN_WITHOUT_MODEL else name
    refused(run("sample", given, "-o", tmp_path / "out"), message)
    assert not (tmp_path / "out").exists()


def test_a_store_that_is_not_there_is_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: Stored
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for uri, message, code in (
        (f"sqlite:///{tmp_path}/none.db", "there are no runs at sqlite:///", 2),
        ("http://127.0.0.1:9", "MLflow at http://127.0.0.1:9 cannot be used (", 1),
    ):
        monkeypatch.setattr("search.paths.tracking_uri", lambda uri=uri: uri)
        for name in (NAME, stored.run_id):
            refused(run("sample", name, "-o", tmp_path / "out"), message, code)


def test_weights_that_are_damaged_or_no_model_are_one_line(stored: Stored, run: Run, tmp_path: Path) -> None:
    data = bytearray(stored.weights.read_bytes())
    data[-3] ^= 1
    (tmp_path / "flipped.safetensors").write_bytes(data)
    (tmp_path / "cut.safetensors").write_bytes(data[:1000])
    (tmp_path / "text.safetensors").write_text("hello")
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copy(stored.weights, folder)
    (folder / "size.json").write_text("[]")
    for name, message in (
        ("flipped.safetensors", "is damaged: its tensors do not match the SHA-256 stored with them"),
        ("cut.safetensors", "cut.safetensors is not a readable checkpoint"),
        ("text.safetensors", "text.safetensors is not a readable checkpoint"),
        ("folder", "size.json beside it must hold height and width"),
    ):
        refused(run("sample", tmp_path / name, "-o", tmp_path / "out"), message)
        assert not (tmp_path / "out").exists()


def test_frames_that_cannot_be_used_are_one_line(stored: Stored, frame_set: FrameSet, run: Run, tmp_path: Path) -> None:
    frame = tmp_path / "frame.png"
    Image.fromarray(frame_set.test[0]).save(frame)
    (tmp_path / "text.png").write_text("hello")
    other = write_square_frames(tmp_path / "other")
    for words, message in (
        ((tmp_path / "none.png",), "none.png cannot be used as a frame: No such file or directory"),
        ((tmp_path / "text.png",), "text.png cannot be used as a frame: not a picture that Pillow can read"),
        ((tmp_path,), f"no frame set at {tmp_path} (no manifest.json)"),
        ((other,), f"the model takes frames of 31x17, but those of {other} are 16x16"),
        ((frame, "--interpolate"), "--interpolate needs exactly two frames, but got 1"),
        ((frame, frame, frame, "--interpolate"), "--interpolate needs exactly two frames, but got 3"),
        ((frame, frame, "--interpolate", "--grid"), "--interpolate shows its images in strip.png; leave out --grid"),
    ):
        refused(run("reconstruct", stored.weights, *words, "-o", tmp_path / "out"), message)
        assert not (tmp_path / "out").exists()
    refused(
        run("sample", stored.weights, "-o", tmp_path / "out", "--sampler", "posterior"),
        "the sampler must be fitted or prior, but got 'posterior'",
    )


def write_square_frames(directory: Path) -> Path:
    """A frame set of another size."""
    directory.mkdir()
    frames = np.zeros((4, 16, 16, 3), dtype=np.uint8)
    np.save(directory / FRAMES_FILE, frames)
    sources = (Source(name="a", split="train", start=0, count=2), Source(name="b", split="test", start=2, count=2))
    write_manifest(
        directory, FrameManifest(height=16, width=16, sources=sources, made_by={}, sha256=hash_frames(frames))
    )
    return directory
