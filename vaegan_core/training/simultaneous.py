"""One Adam step per network, all from the same weights and a single discriminator pass.

q = encoder(x); z ~ q; x_recon, x_prior = decoder(z), decoder(z_prior)
D(x), D(x_recon), D(x_prior) in one pass, with graphs both to D's weights and to the images
dL_D/dweights, and in the same backward pass c dD(image)/d(image), with c = dL_D/dD(image)
generator terms:  dL_G/d(image) = (dL_G/dD(image) / c) c dD(image)/d(image)     (one vector per image, rescaled)
other terms:      dL/d(image) by a backward pass of their own
then as in joint: decoder.grad, encoder.grad from the gradients at the images, + dL_KL
Adam(encoder), Adam(decoder), Adam(D)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from vaegan_core.losses.terms import IMAGE_TERMS, KL, PRIOR, REAL, RECON, Term, TermValues, Verdict
from vaegan_core.model.modes import mixes_batch
from vaegan_core.training.curves import Values, autoencoder_curves, probabilities
from vaegan_core.training.gradients import add_grad, image_gradient, sum_gradients
from vaegan_core.training.joint import Joint, scaled
from vaegan_core.training.update import DISCRIMINATOR, Draw, Encoded

SMALLEST_COTANGENT = 1e-20
"""Replaces a derivative of zero that is divided by; its effect is far below Adam's epsilon."""


class Simultaneous(Joint):
    """Both updates from the same weights and a single discriminator pass over real, reconstructed and sampled images.

    Where D judges each image on its own, by one logit, dD/dx of one image is one vector: the generator's gradient is
    then the discriminator's, rescaled per image, and costs nothing. Feature matching still needs a backward pass of its
    own, and with a patch head the generator does too: an image has as many vectors as logits.
    """

    def step(self, draws: Sequence[Draw], step: int, measure: bool) -> Values:
        (draw,) = draws
        if not self.gan_acts(step):
            return self.step_before_gan(draw, step, measure)
        encoded = self.encode(draw)
        images = {REAL: draw.x, RECON: encoded.x_recon, PRIOR: encoded.x_prior}
        verdicts = self._judge_separately(images, self.augmentation(len(draw.x)))
        logits = {kind: verdict.logits for kind, verdict in verdicts.items()}
        raw_discriminator = self.terms.discriminator(logits)
        penalties = self.penalties(images, step)
        loss, values = self.discriminator_loss(raw_discriminator, penalties)
        rests, decoder_rests = self.rests(raw_discriminator)

        raw = self.terms.images(IMAGE_TERMS, draw.x, encoded.x_recon, verdicts)
        weighted = self.terms.weighted(raw)
        self.zero_grad(DISCRIMINATOR)
        shared = self._discriminator_backward(loss, penalties, logits, weighted, encoded)

        def gradient(terms: Sequence[Term]) -> list[Tensor]:
            grads = [shared[term] for term in terms if term in shared]
            others = [weighted[term] for term in terms if term not in shared]
            if others:
                grads.append(image_gradient(others, encoded.images))
            return sum_gradients(grads) or []

        gradients = self.image_gradients(weighted, gradient, encoded)
        weighted = scaled(weighted, gradients.gan_scale)
        weighted[KL], kl = self.kl(encoded.posterior, encoded.z, step)
        values |= self.descend(encoded, weighted, gradients, decoder_rests, measure)
        self.adam_step(DISCRIMINATOR, rests)
        values |= probabilities(self.terms.relative(logits), self.terms.score)
        return values | autoencoder_curves(raw | kl, weighted, encoded.posterior)

    def _needs_own_pass(self, kind: str) -> bool:
        """Whether gradients come through D at this kind of image that are not the discriminator's own, rescaled."""
        terms = [Term("feature", kind)]
        if self.config.model.discriminator.patch_head:
            terms.append(Term("generator", kind))
        return kind != REAL and any(self.terms.weights[term] for term in terms)

    def _judge_separately(
        self, images: Mapping[str, Tensor], augment: Callable[[Tensor], Tensor]
    ) -> dict[str, Verdict]:
        """Runs the discriminator separately on kinds of image that need their own backward pass: it is then shorter."""
        together = {kind: x for kind, x in images.items() if not self._needs_own_pass(kind)}
        with parametrize.cached():
            verdicts = self.judge(together, augment)
            for kind in images:
                if kind not in together:
                    verdicts |= self.judge({kind: images[kind]}, augment)
        return {kind: verdicts[kind] for kind in images}

    def _discriminator_backward(
        self,
        loss: Tensor,
        penalties: TermValues,
        logits: Mapping[str, Tensor],
        weighted: Mapping[Term, Tensor],
        encoded: Encoded,
    ) -> dict[Term, list[Tensor]]:
        """Fills the discriminator's `.grad`; returns the gradients at the images of the generator terms that share it.

        No term shares it under batch norm in D, where an image's logit depends on the others in its batch.
        """
        images = {RECON: encoded.x_recon, PRIOR: encoded.x_prior}
        terms = {kind: Term("generator", kind) for kind in images}
        kinds = [kind for kind in images if weighted[terms[kind]].requires_grad and not self._needs_own_pass(kind)]
        if mixes_batch(self.discriminator):
            kinds = []
        parameters = self.parameters(DISCRIMINATOR)
        if not loss.requires_grad:
            return {}
        if not kinds:
            torch.autograd.backward(loss, inputs=parameters, retain_graph=True)
            return {}
        for penalty in self.weighted_penalties(penalties).values():  # whose paths do not lead through the logits
            torch.autograd.backward(penalty, inputs=parameters)
        at_logits = torch.autograd.grad(loss, list(logits.values()), retain_graph=True, materialize_grads=True)
        cotangents = dict(zip(logits, at_logits, strict=True))
        for kind in kinds:
            tiny = cotangents[kind].abs() < SMALLEST_COTANGENT
            cotangents[kind] = cotangents[kind].masked_fill(tiny, SMALLEST_COTANGENT)
        grads = torch.autograd.grad(
            list(logits.values()),
            [*parameters, *(images[kind] for kind in kinds)],
            list(cotangents.values()),
            retain_graph=True,
        )
        for parameter, grad in zip(parameters, grads[: len(parameters)], strict=True):
            add_grad(parameter, grad)
        shared = {}
        for kind, at_image in zip(kinds, grads[len(parameters) :], strict=True):
            (wanted,) = torch.autograd.grad(weighted[terms[kind]], logits[kind], retain_graph=True)
            rescaled = at_image * (wanted / cotangents[kind]).view(-1, 1, 1, 1)
            shared[terms[kind]] = [rescaled if x is images[kind] else torch.zeros_like(x) for x in encoded.images]
        return shared
