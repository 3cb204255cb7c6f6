"""The served model, and models that were registered by earlier versions of the code: they bring their own core and must
go on loading."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mlflow.exceptions import MlflowException
from trials import tiny

from search.promotion.promote import check_names
from search.promotion.served_model import ServedModel
from vaegan_core.data.batches import as_tensor, to_frames, to_images
from vaegan_core.model.latent_density import LatentDensity
from vaegan_core.model.networks import Autoencoder
from vaegan_core.model.saved import load_model
from vaegan_core.tensor_files import save_tensors

STORED = Path(__file__).parents[2] / "support" / "models" / "served.tar.gz"
"""The directory of a model that `vaegan promote` registered while the core was one flat folder, without the modules
that serving does not import."""
SIZE = (17, 31)

LOAD = """
import sys
import mlflow, numpy as np
model = mlflow.pyfunc.load_model(sys.argv[1])
frames = np.load(sys.argv[2])
modes = ("reconstruct", "sample", "encode")
outputs = {mode: model.predict(frames, params={"mode": mode, "seed": 1}) for mode in modes}
np.savez(sys.argv[3], **outputs)
import vaegan_core
print(vaegan_core.__file__)
"""


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    with tarfile.open(STORED) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "model"


def test_an_old_model_loads_in_a_fresh_process_and_its_weights_say_the_same_here(stored: Path, tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (4, *SIZE, 3), dtype=np.uint8)
    np.save(tmp_path / "frames.npy", frames)
    paths = [str(stored), str(tmp_path / "frames.npy"), str(tmp_path / "outputs.npz")]
    done = subprocess.run([sys.executable, "-c", LOAD, *paths], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(stored / "code" / "vaegan_core" / "__init__.py"), "it uses the core it brought"
    outputs = np.load(tmp_path / "outputs.npz")
    model = load_model(stored / "artifacts" / "model.safetensors", SIZE).autoencoder
    with torch.inference_mode():
        mean = model.encoder(to_images(as_tensor(frames))).mean
        z = torch.randn(len(frames), mean.shape[1], generator=torch.Generator().manual_seed(1))
        expected = {"reconstruct": to_frames(model.decoder(mean)), "sample": to_frames(model.decoder(z))}
    assert outputs["encode"] == pytest.approx(mean.numpy(), abs=1e-5)
    for mode, images in expected.items():
        assert outputs[mode].dtype == np.uint8
        assert outputs[mode].shape == frames.shape
        assert outputs[mode].astype(int) == pytest.approx(images.numpy().astype(int), abs=1)


def write_model(path: Path, density: LatentDensity | None) -> Path:
    """The file of a model that was never trained."""
    config = tiny(model__decoder__norm="group")
    tensors = Autoencoder(config.model, SIZE).state_dict() | (density.tensors() if density else {})
    save_tensors(path, tensors, {"step": 1, "config": config.dump(), "size": SIZE})
    return path


def serve(weights: Path) -> ServedModel:
    size = weights.with_name("size.json")
    size.write_text(json.dumps({"height": SIZE[0], "width": SIZE[1]}))
    served = ServedModel()
    served.load_context(SimpleNamespace(artifacts={"weights": str(weights), "size": str(size)}))
    return served


def test_the_sampler_decides_what_z_of_samples_is_drawn_from(tmp_path: Path) -> None:
    """The density is N(3, 1e-6 I), so that its samples are nearly the decoder's image of z = 3."""
    density = LatentDensity(torch.ones(1), torch.full((1, 8), 3.0), 1e-3 * torch.eye(8)[None])
    served = serve(write_model(tmp_path / "model.safetensors", density))
    frames = np.zeros((5, *SIZE, 3), dtype=np.uint8)
    fitted, default, prior = (
        served.predict(None, frames, {"mode": "sample", "seed": 2} | more)
        for more in ({"sampler": "fitted"}, {}, {"sampler": "prior"})
    )
    assert np.array_equal(fitted, default)
    decoder = served.saved.autoencoder.decoder
    noise = torch.randn(5, 8, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        assert np.array_equal(prior, to_frames(decoder(noise)).numpy())
        assert np.array_equal(fitted, to_frames(decoder(3 + 1e-3 * noise)).numpy())
    with pytest.raises(ValueError, match="the sampler must be fitted or prior, but got 'posterior'"):
        served.predict(None, frames, {"mode": "sample", "sampler": "posterior"})


def test_a_model_without_a_density_samples_from_the_prior_unless_told_otherwise(tmp_path: Path) -> None:
    served = serve(write_model(tmp_path / "model.safetensors", None))
    frames = np.zeros((3, *SIZE, 3), dtype=np.uint8)
    default, prior = (served.predict(None, frames, {"mode": "sample"} | more) for more in ({}, {"sampler": "prior"}))
    assert np.array_equal(default, prior)
    with pytest.raises(ValueError, match="this model was stored without a fitted density"):
        served.predict(None, frames, {"mode": "sample", "sampler": "fitted"})


@pytest.fixture
def served(tmp_path: Path) -> ServedModel:
    return serve(write_model(tmp_path / "model.safetensors", None))


def test_decoding_what_was_encoded_is_a_reconstruction(served: ServedModel) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, *SIZE, 3), dtype=np.uint8)
    recon = served.predict(None, frames)
    z = served.predict(None, frames, {"mode": "encode"})
    assert (str(z.dtype), z.shape) == ("float32", (3, 8))
    assert np.array_equal(served.predict(None, z, {"mode": "decode"}), recon)
    assert np.array_equal(served.predict(None, z.astype(object), {"mode": "decode"}), recon), "as MLflow hands on JSON"
    assert np.array_equal(served.predict(None, frames.astype(np.int64)), recon)


def test_samples_need_no_frames_and_are_those_that_frames_would_give(served: ServedModel) -> None:
    frames = np.zeros((5, *SIZE, 3), dtype=np.uint8)
    params = {"mode": "sample", "seed": 3}
    for empty in (np.array([]), np.array([[]], dtype=object), None):
        assert np.array_equal(served.predict(None, empty, params | {"count": 5}), served.predict(None, frames, params))


NAN_LATENT = np.full((1, 8), np.nan)


@pytest.mark.parametrize(
    ("given", "params", "sentence"),
    [
        (np.zeros((1, 4, 4, 3), np.uint8), {}, "uint8 frames [n, 17, 31, 3], but got uint8 [1, 4, 4, 3]"),
        (np.full((1, *SIZE, 3), 0.5), {}, "other numbers than whole ones from 0 to 255"),
        (np.full((1, *SIZE, 3), 256), {}, "other numbers than whole ones from 0 to 255"),
        (np.array([]), {}, "input of mode reconstruct must be uint8 frames [n, 17, 31, 3], but got float64 [0]"),
        (np.array(["a"]), {"mode": "decode"}, "input of mode decode must be latents [n, 8]"),
        (np.zeros((2, 7)), {"mode": "decode"}, "latents [n, 8], but got float64 [2, 7]"),
        (NAN_LATENT, {"mode": "decode"}, "one at least and all finite"),
        (np.array([]), {"mode": "smaple"}, "but got 'smaple'; did you mean sample?"),
        (np.array([]), {"mode": "sample"}, "count must be from 1 to 10,000, but got 0"),
        (np.array([]), {"mode": "sample", "count": 10**9}, "but got 1000000000"),
        (np.array([[1], [2, 3]], dtype=object), {"mode": "decode"}, "lists of different lengths"),
    ],
)
def test_what_the_model_does_not_take_is_one_sentence_that_a_server_answers_with_400(
    served: ServedModel, given: np.ndarray, params: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)) as refused:
        served.predict(None, given, params)
    assert isinstance(refused.value, MlflowException)
    assert refused.value.get_http_status_code() == 400


def test_a_file_that_is_no_model_says_so(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.safetensors", None)
    assert load_model(path).size == SIZE
    config = tiny().dump()
    save_tensors(tmp_path / "checkpoint.safetensors", {"a": torch.zeros(1)}, {"config": config})
    with pytest.raises(ValueError, match=r"checkpoint\.safetensors does not say how large its frames are"):
        load_model(tmp_path / "checkpoint.safetensors")
    with pytest.raises(ValueError, match="does not hold the weights of an autoencoder of its configuration"):
        load_model(tmp_path / "checkpoint.safetensors", SIZE)


@pytest.mark.parametrize("name", ["a/b", "models:/a", "", "a'b", "..", "a b"])
def test_the_name_of_a_model_is_checked_before_anything_is_asked_or_logged(name: str) -> None:
    with pytest.raises(ValueError, match="--model must be made of letters, digits"):
        check_names(name, "champion")
