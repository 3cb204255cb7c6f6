"""One Adam step per network: from a pass of the discriminator for each network, or from a single one for both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from vaegan_core.losses.functional import adaptive_weight
from vaegan_core.losses.terms import GENERATOR_TERMS, IMAGE_TERMS, PRIOR, REAL, RECON, fake_loss, resting
from vaegan_core.model.modes import held_statistics, mixes_batch
from vaegan_core.training.curves import Values, autoencoder_curves, probabilities
from vaegan_core.training.gradients import image_gradient, sum_gradients
from vaegan_core.training.update import DECODER, DISCRIMINATOR, ENCODER, Coded, Draw, Update


class Joint(Update):
    """One Adam step per network, the discriminator first: each pass is made once and shared by all terms."""

    def step(self, draws: Sequence[Draw], step: int, measure: bool) -> Values:
        for draw in draws[:-1]:
            with torch.no_grad(), held_statistics(self.encoder), held_statistics(self.decoder):
                coded = self.code(draw)
            self.discriminator_step(draw.x, coded.x_recon, coded.x_prior, step)
        draw, coded = draws[-1], self.code(draws[-1])
        values, decoder_rests = self.discriminator_step(draw.x, coded.x_recon.detach(), coded.x_prior.detach(), step)
        return values | self.autoencoder_step(draw, coded, step, measure, decoder_rests)

    def discriminator_step(
        self, x: Tensor, x_recon: Tensor, x_prior: Tensor, step: int
    ) -> tuple[Values, Tensor | None]:
        """One Adam step of the discriminator on detached images; also whether the decoder is to rest."""
        judged = self.judge({REAL: x, RECON: x_recon, PRIOR: x_prior}, self.augmentation(len(x)))
        logits = {kind: each.logits for kind, each in judged.items()}
        raw = self.terms.discriminator(logits)
        loss, values = self.discriminator_loss(raw, self.penalty(x, step))
        self.zero_grad(DISCRIMINATOR)
        torch.autograd.backward(loss)
        rests, decoder_rests = self.rests(raw)
        self.adam_step(DISCRIMINATOR, rests)
        return values | probabilities(logits), decoder_rests

    def rests(self, raw: Mapping[str, Tensor]) -> tuple[Tensor | None, Tensor | None]:
        """Whether discriminator and decoder rest in this step; None where updates are not balanced."""
        balance = self.config.train.balance
        if balance is None:
            return None, None
        return resting(balance, raw["discriminator_real"].detach(), fake_loss(self.config.loss, raw).detach())

    def autoencoder_step(
        self, draw: Draw, coded: Coded, step: int, measure: bool, decoder_rests: Tensor | None
    ) -> Values:
        """One Adam step of encoder and decoder."""
        images = {RECON: coded.x_recon, PRIOR: coded.x_prior}
        raw = self.image_terms(IMAGE_TERMS, draw.x, images, self.augmentation(len(draw.x)))
        weighted = self.terms.weighted(raw)

        def gradient(names: Sequence[str]) -> list[Tensor]:
            return image_gradient([weighted[name] for name in names], coded.images)

        return self.descend(raw, weighted, gradient, coded, step, measure, decoder_rests)

    def descend(
        self,
        raw: dict[str, Tensor],
        weighted: dict[str, Tensor],
        gradient: Callable[[Sequence[str]], list[Tensor]],
        coded: Coded,
        step: int,
        measure: bool,
        decoder_rests: Tensor | None,
    ) -> Values:
        """Adam steps of encoder and decoder from image terms, whose `gradient` is taken at the images, and the KL.

        From the images it goes on to the decoder alone, or to the whole autoencoder.
        """
        stops, goes_on, scale = self.image_gradients(weighted, gradient, coded)
        weighted |= {name: scale * weighted[name] for name in GENERATOR_TERMS if scale is not None}
        weighted["kl"], kls = self.kl(coded.posterior, coded.z, step)
        values = self.gradient_norms(weighted, coded) if measure else {}
        self.zero_grad(ENCODER, DECODER)
        self.backward(coded, stops, goes_on, weighted["kl"])
        self.adam_step(ENCODER)
        self.adam_step(DECODER, decoder_rests)
        if scale is not None:
            values["generator/adaptive_weight"] = scale
        return values | autoencoder_curves(raw | kls, weighted, coded.posterior)

    def image_gradients(
        self, weighted: Mapping[str, Tensor], gradient: Callable[[Sequence[str]], list[Tensor]], coded: Coded
    ) -> tuple[list[Tensor] | None, list[Tensor] | None, Tensor | None]:
        """Gradients at the images that stop at the decoder, those that go on, and the adaptive weight; None: none."""
        adaptive = self.config.loss.generator.weighting == "adaptive"
        stops_at_decoder = self.terms.stops_at_decoder
        # Prior samples' terms go no further than the decoder either. They join those that stop where there are any, or
        # must: under batch norm they would reach the encoder through the statistics of the common batch.
        if stops_at_decoder or mixes_batch(self.decoder):
            stops_at_decoder |= {name for name in IMAGE_TERMS if name.endswith("_prior")}
        groups: dict[tuple[bool, bool], list[str]] = {}
        for name in weighted:
            if weighted[name].requires_grad:
                groups.setdefault((name in stops_at_decoder, adaptive and name in GENERATOR_TERMS), []).append(name)
        grads = {group: gradient(names) for group, names in groups.items()}
        scale = None
        if adaptive:
            at_last_layer = [
                self._at_last_layer(sum_gradients(g for (_, scaled), g in grads.items() if scaled == of_gan), coded)
                for of_gan in (False, True)
            ]
            scale = adaptive_weight(*at_last_layer)
            grads = {group: [scale * each for each in g] if group[1] else g for group, g in grads.items()}
        stops = sum_gradients(g for (stop, _), g in grads.items() if stop)
        goes_on = sum_gradients(g for (stop, _), g in grads.items() if not stop)
        return stops, goes_on, scale

    def _at_last_layer(self, grads: list[Tensor] | None, coded: Coded) -> Tensor:
        weight = max(self.decoder.to_image.parameters(), key=torch.Tensor.numel)
        if grads is None:
            return torch.zeros_like(weight)
        (gradient,) = torch.autograd.grad(coded.images, weight, grads, retain_graph=True)
        return gradient

    def backward(self, coded: Coded, stops: list[Tensor] | None, goes_on: list[Tensor] | None, kl_term: Tensor) -> None:
        """From gradients at the images to the parameters' `.grad`."""
        kl_roots = [kl_term] if kl_term.requires_grad else []
        if stops is None:
            roots = coded.images if goes_on is not None else []
            if roots or kl_roots:
                torch.autograd.backward([*roots, *kl_roots], [*(goes_on or []), *(None for _ in kl_roots)])
            return
        total = sum_gradients(each for each in (stops, goes_on) if each is not None)
        decoder, encoder = self.parameters(DECODER), self.parameters(ENCODER)
        torch.autograd.backward(coded.images, total, inputs=decoder, retain_graph=goes_on is not None)
        if goes_on is None:
            if kl_roots:
                torch.autograd.backward(kl_roots, inputs=encoder)
            return
        (z_grad,) = torch.autograd.grad(coded.x_recon, coded.z, goes_on[0])
        torch.autograd.backward([coded.z, *kl_roots], [z_grad, *(None for _ in kl_roots)], inputs=encoder)
