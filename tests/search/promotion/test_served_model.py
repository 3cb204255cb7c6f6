"""Models that were registered by earlier versions of the code: they bring their own core and must go on loading."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from vaegan_core.data.batches import as_tensor, to_frames, to_images
from vaegan_core.model.saved import load_model

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
