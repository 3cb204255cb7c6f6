"""Curve values of a step."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vaegan_core.model.networks import Posterior

Values = dict[str, Tensor | float]
"""Curve values of a step by key; tensors are scalars on the device, without gradient."""


def probabilities(logits: Mapping[str, Tensor]) -> Values:
    """Mean of sigmoid(D) for each kind of image."""
    return {f"discriminator/probability_{kind}": torch.sigmoid(each.detach()).mean() for kind, each in logits.items()}


def autoencoder_curves(raw: Mapping[str, Tensor], weighted: Mapping[str, Tensor], posterior: Posterior) -> Values:
    total = torch.stack([term.detach() for term in weighted.values()]).sum()
    return {"train/autoencoder": total} | curves(raw, weighted) | latent_curves(posterior)


def latent_curves(posterior: Posterior) -> Values:
    """Norm of the posterior mean over a batch, and the mean posterior standard deviation."""
    norms = posterior.mean.detach().norm(dim=1)
    values: Values = {
        "latent/mean_norm_min": norms.min(),
        "latent/mean_norm": norms.mean(),
        "latent/mean_norm_max": norms.max(),
    }
    if posterior.logvar is not None:
        values["latent/std"] = torch.exp(0.5 * posterior.logvar.detach()).mean()
    return values


def curves(raw: Mapping[str, Tensor], weighted: Mapping[str, Tensor]) -> Values:
    values: Values = {f"train/{name}": term.detach() for name, term in raw.items()}
    return values | {f"weighted/{name}": term.detach() for name, term in weighted.items()}


IMAGES_PER_SECOND = "speed/images_per_second"
LOSS_TERMS = (
    "train/kl",
    "train/discriminator_real",
    "train/discriminator_recon",
    "train/discriminator_prior",
    "train/generator_recon",
    "train/generator_prior",
    "train/feature_recon",
    "train/feature_prior",
    "train/pixel",
)
"""The seed's formula, raw (before weights); `train/kl` in nats."""
