"""pythae's VAEGAN with our three networks inside, trained by pythae's own trainer."""

from __future__ import annotations

import contextlib
import logging
import os
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from pythae.data.datasets import BaseDataset
from pythae.models import VAEGAN, VAEGANConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseDiscriminator, BaseEncoder
from pythae.trainers import CoupledOptimizerAdversarialTrainer, CoupledOptimizerAdversarialTrainerConfig
from torch import Tensor

from vaegan_core.config.model import ModelConfig
from vaegan_core.data.batches import as_tensor, to_images
from vaegan_core.model.networks import Decoder, Discriminator, Encoder

FEATURES, JUDGMENT = 1, 2
"""Layers of the discriminator as pythae counts them: the convolutions up to the feature map, and the rest."""


class PythaeEncoder(BaseEncoder):
    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor) -> ModelOutput:
        posterior = self.encoder(x)
        return ModelOutput(embedding=posterior.mean, log_covariance=posterior.logvar)


class PythaeDecoder(BaseDecoder):
    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.decoder(z))


class PythaeDiscriminator(BaseDiscriminator):
    depth = JUDGMENT

    def __init__(self, discriminator: Discriminator) -> None:
        super().__init__()
        self.discriminator = discriminator

    def forward(self, x: Tensor, output_layer_levels: list[int] | None = None) -> ModelOutput:
        features = self.discriminator.features(x)
        if output_layer_levels == [FEATURES]:
            return ModelOutput(**{f"embedding_layer_{FEATURES}": features})
        return ModelOutput(embedding=torch.sigmoid(self.discriminator.classifier(features)))


class CountingTrainer(CoupledOptimizerAdversarialTrainer):
    """pythae's trainer, which also counts the optimizer steps: it lets a network rest when the losses are uneven."""

    updates: Counter[str]

    def _optimizers_step(self, model_output: ModelOutput) -> None:
        self.updates["steps"] += 1
        self.updates.update(name for name in ("encoder", "decoder", "discriminator") if model_output[f"update_{name}"])
        super()._optimizers_step(model_output)


class PythaeRunner:
    """Steps as `train_step`, its loop over one epoch, makes them, with its defaults but for the batch size."""

    def __init__(
        self,
        model: ModelConfig,
        frames: np.ndarray,
        batch: int,
        steps: int,
        threads: int,
        scratch: Path,
        updates: Counter[str],
    ) -> None:
        """`updates` counts the optimizer steps of each network, and "steps"."""
        logging.disable(logging.INFO)  # it announces itself at length
        self.threads = threads
        size = frames.shape[1:3]
        config = VAEGANConfig(input_dim=(3, *size), latent_dim=model.latent_dim, reconstruction_layer=FEATURES)
        networks = (
            PythaeEncoder(Encoder(model, size)),
            PythaeDecoder(Decoder(model, size)),
            PythaeDiscriminator(Discriminator(model, size)),
        )
        images = to_images(as_tensor(frames[: steps * batch]))
        self.dataset = BaseDataset(images, torch.ones(len(images)))
        self.trainer = CountingTrainer(
            VAEGAN(config, *networks),
            self.dataset,
            training_config=CoupledOptimizerAdversarialTrainerConfig(
                output_dir=str(scratch), per_device_train_batch_size=batch
            ),
        )
        self.trainer.updates = updates
        self.trainer.prepare_training()
        self.num_parameters = sum(parameter.numel() for parameter in self.trainer.model.parameters())

    def warm_up(self) -> None:
        """One step of two images."""
        whole, few = self.trainer.train_loader, BaseDataset(self.dataset.data[:2], self.dataset.labels[:2])
        self.trainer.train_loader = self.trainer.get_train_dataloader(few)
        self.run()
        self.trainer.train_loader = whole

    def run(self) -> int:
        """One epoch; how many images it had."""
        threads = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):  # its progress bar
                self.trainer.train_step(epoch=1)
        finally:
            torch.set_num_threads(threads)
        return len(self.dataset)
