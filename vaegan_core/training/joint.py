"""One Adam step per network, the discriminator first; every pass is made once and shared by all terms.

q = encoder(x); z ~ q; x_recon, x_prior = decoder(z), decoder(z_prior)
Discriminator:  L_D = weighted terms of D(x), D(x_recon), D(x_prior), detached, + R1, R2
                Adam(D, dL_D)
Autoencoder, with the new D frozen:
                d = d(terms for the decoder only)/d(x_recon, x_prior)
                a = d(terms for the autoencoder)/d(x_recon, x_prior)
                both scaled by |a reconstruction's| / |GAN's| in their generator terms, if weighting is adaptive
                decoder.grad = (d + a) through the decoder
                encoder.grad = a through the decoder and z, + dL_KL
                Adam(encoder), Adam(decoder)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vaegan_core.losses.functional import adaptive_weight
from vaegan_core.losses.terms import (
    GENERATOR_TERMS,
    IMAGE_TERMS,
    KL,
    PRIOR,
    REAL,
    RECON,
    Term,
    TermValues,
    fake_loss,
    resting,
)
from vaegan_core.model.modes import mixes_batch
from vaegan_core.training.curves import Values, autoencoder_curves, probabilities
from vaegan_core.training.gradients import image_gradient, sum_gradients
from vaegan_core.training.update import DECODER, DISCRIMINATOR, ENCODER, Draw, Encoded, Update


@dataclass(frozen=True)
class ImageGradients:
    """Gradients of the weighted image terms at [x_recon, x_prior], by how far they go. None: no term goes there."""

    decoder_only: list[Tensor] | None
    autoencoder: list[Tensor] | None
    gan_scale: Tensor | None
    """Factor of the generator terms, already in the gradients; None unless weighting is adaptive."""


class Joint(Update):
    """One Adam step per network, the discriminator first."""

    def step(self, draws: Sequence[Draw], step: int, measure: bool) -> Values:
        if not self.gan_acts(step):
            return self.step_before_gan(draws[-1], step, measure)
        for draw in draws[:-1]:
            encoded = self.encode_without_gradient(draw)
            self.discriminator_step(draw.x, encoded.x_recon, encoded.x_prior, step)
        draw, encoded = draws[-1], self.encode(draws[-1])
        x_recon, x_prior = (images.detach() for images in encoded.images)
        values, decoder_rests = self.discriminator_step(draw.x, x_recon, x_prior, step)
        return values | self.autoencoder_step(draw, encoded, step, measure, decoder_rests)

    def step_before_gan(self, draw: Draw, step: int, measure: bool) -> Values:
        """One Adam step of encoder and decoder from pixels and KL."""
        weighted, values = self.terms_before_gan(draw, step, measure)
        self.zero_grad(ENCODER, DECODER)
        torch.autograd.backward([value for value in weighted.values() if value.requires_grad])
        self.adam_step(ENCODER)
        self.adam_step(DECODER)
        return values

    def discriminator_step(
        self, x: Tensor, x_recon: Tensor, x_prior: Tensor, step: int
    ) -> tuple[Values, Tensor | None]:
        """One Adam step of the discriminator on detached images; also whether the decoder rests."""
        images = {REAL: x, RECON: x_recon, PRIOR: x_prior}
        verdicts = self.judge(images, self.augmentation(len(x)))
        logits = {kind: verdict.logits for kind, verdict in verdicts.items()}
        raw = self.terms.discriminator(logits)
        loss, values = self.discriminator_loss(raw, self.penalties(images, step))
        self.zero_grad(DISCRIMINATOR)
        if loss.requires_grad:
            torch.autograd.backward(loss)
        rests, decoder_rests = self.rests(raw)
        self.adam_step(DISCRIMINATOR, rests)
        return values | probabilities(self.terms.relative(logits), self.terms.score), decoder_rests

    def rests(self, raw: Mapping[Term, Tensor]) -> tuple[Tensor | None, Tensor | None]:
        """Whether discriminator and decoder rest in this step, from D's raw terms; None without `train.balance`."""
        balance = self.config.train.balance
        if balance is None:
            return None, None
        return resting(balance, raw[Term("discriminator", REAL)].detach(), fake_loss(self.config.loss, raw).detach())

    def autoencoder_step(
        self, draw: Draw, encoded: Encoded, step: int, measure: bool, decoder_rests: Tensor | None
    ) -> Values:
        """One Adam step of encoder and decoder."""
        images = {RECON: encoded.x_recon, PRIOR: encoded.x_prior}
        raw = self.image_terms(IMAGE_TERMS, draw.x, images, self.augmentation(len(draw.x)))
        weighted = self.terms.weighted(raw)

        def gradient(terms: Sequence[Term]) -> list[Tensor]:
            return image_gradient([weighted[term] for term in terms], encoded.images)

        gradients = self.image_gradients(weighted, gradient, encoded)
        weighted = scaled(weighted, gradients.gan_scale)
        weighted[KL], kl = self.kl(encoded.posterior, encoded.z, step)
        values = self.descend(encoded, weighted, gradients, decoder_rests, measure)
        return values | autoencoder_curves(raw | kl, weighted, encoded.posterior)

    def descend(
        self,
        encoded: Encoded,
        weighted: Mapping[Term, Tensor],
        gradients: ImageGradients,
        decoder_rests: Tensor | None,
        measure: bool,
    ) -> Values:
        """Adam steps of encoder and decoder from the gradients at the images and the weighted KL."""
        values = self.gradient_norms(weighted, encoded) if measure else {}
        self.zero_grad(ENCODER, DECODER)
        self.backward(encoded, gradients, weighted[KL])
        self.adam_step(ENCODER)
        self.adam_step(DECODER, decoder_rests)
        if gradients.gan_scale is not None:
            values["generator/adaptive_weight"] = gradients.gan_scale
        return values

    def image_gradients(
        self, weighted: Mapping[Term, Tensor], gradient: Callable[[Sequence[Term]], list[Tensor]], encoded: Encoded
    ) -> ImageGradients:
        """Takes `gradient`, the gradient of the sum of some terms at the images, of as few groups as possible."""
        adaptive = self.config.loss.generator.weighting == "adaptive"
        decoder_only = self.terms.decoder_only
        # Terms of prior samples go no further than the decoder either. They join that group if it exists, or if they
        # must: under batch norm they would reach the encoder through the statistics of the common batch.
        if decoder_only or mixes_batch(self.decoder):
            decoder_only |= {term for term in IMAGE_TERMS if term.image == PRIOR}
        groups: dict[tuple[bool, bool], list[Term]] = {}
        for term in weighted:
            if weighted[term].requires_grad:
                groups.setdefault((term in decoder_only, adaptive and term in GENERATOR_TERMS), []).append(term)
        grads = {group: gradient(terms) for group, terms in groups.items()}
        scale = None
        if adaptive:
            reconstruction, gan = (
                self._at_last_layer(sum_gradients(g for (_, of_gan), g in grads.items() if of_gan == wanted), encoded)
                for wanted in (False, True)
            )
            scale = adaptive_weight(reconstruction, gan)
            grads = {group: [scale * x for x in g] if group[1] else g for group, g in grads.items()}
        return ImageGradients(
            decoder_only=sum_gradients(g for (stops, _), g in grads.items() if stops),
            autoencoder=sum_gradients(g for (stops, _), g in grads.items() if not stops),
            gan_scale=scale,
        )

    def _at_last_layer(self, grads: list[Tensor] | None, encoded: Encoded) -> Tensor:
        """Gradients at the images taken on to the weight of the decoder's last layer."""
        weight = max(self.decoder.to_image.parameters(), key=torch.Tensor.numel)
        if grads is None:
            return torch.zeros_like(weight)
        (gradient,) = torch.autograd.grad(encoded.images, weight, grads, retain_graph=True)
        return gradient

    def backward(self, encoded: Encoded, gradients: ImageGradients, kl: Tensor) -> None:
        """From gradients at the images, and the weighted KL, to `.grad` of the parameters."""
        decoder_only, autoencoder = gradients.decoder_only, gradients.autoencoder
        kl_roots = [kl] if kl.requires_grad else []
        if decoder_only is None:
            roots = encoded.images if autoencoder is not None else []
            if roots or kl_roots:
                torch.autograd.backward([*roots, *kl_roots], [*(autoencoder or []), *(None for _ in kl_roots)])
            return
        total = sum_gradients(g for g in (decoder_only, autoencoder) if g is not None)
        to_decoder, to_encoder = self.parameters(DECODER), self.parameters(ENCODER)
        torch.autograd.backward(encoded.images, total, inputs=to_decoder, retain_graph=autoencoder is not None)
        if autoencoder is None:
            if kl_roots:
                torch.autograd.backward(kl_roots, inputs=to_encoder)
            return
        (z_grad,) = torch.autograd.grad(encoded.x_recon, encoded.z, autoencoder[0])
        torch.autograd.backward([encoded.z, *kl_roots], [z_grad, *(None for _ in kl_roots)], inputs=to_encoder)


def scaled(weighted: TermValues, gan_scale: Tensor | None) -> TermValues:
    """The same terms with the generator's multiplied by `gan_scale`."""
    if gan_scale is None:
        return weighted
    return {term: gan_scale * value if term in GENERATOR_TERMS else value for term, value in weighted.items()}
