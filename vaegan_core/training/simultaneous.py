"""One Adam step per network from a single discriminator pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from vaegan_core.losses.terms import IMAGE_TERMS, PRIOR, REAL, RECON, Judged
from vaegan_core.model.modes import mixes_batch
from vaegan_core.training.curves import Values, probabilities
from vaegan_core.training.gradients import add_grad, image_gradient, sum_gradients
from vaegan_core.training.joint import Joint
from vaegan_core.training.update import DISCRIMINATOR, Coded, Draw

SMALLEST_COTANGENT = 1e-20
"""Stands for a derivative of zero where one is divided by; far below what Adam's epsilon lets through."""


class Simultaneous(Joint):
    """Both updates from the same weights and a single discriminator pass over real, reconstructed and sampled images.

    Where D judges each image on its own, dD/dx of one image is one vector: the generator's gradient is then the
    discriminator's, rescaled per image, and costs nothing. Feature matching still needs a pass back of its own.
    """

    def step(self, draws: Sequence[Draw], step: int, measure: bool) -> Values:
        (draw,) = draws
        coded = self.code(draw)
        images = {REAL: draw.x, RECON: coded.x_recon, PRIOR: coded.x_prior}
        judged = self._judge_apart(images, self.augmentation(len(draw.x)))
        logits = {kind: each.logits for kind, each in judged.items()}
        raw = self.terms.discriminator(logits)
        penalty = self.penalty(draw.x, step)
        loss, values = self.discriminator_loss(raw, penalty)
        rests, decoder_rests = self.rests(raw)

        raw_images = self.terms.images(IMAGE_TERMS, draw.x, coded.x_recon, judged)
        weighted = self.terms.weighted(raw_images)
        self.zero_grad(DISCRIMINATOR)
        shared = self._discriminator_backward(loss, penalty, logits, weighted, coded)

        def gradient(names: Sequence[str]) -> list[Tensor]:
            others = [weighted[name] for name in names if name not in shared]
            grads = [*(shared[name] for name in names if name in shared)]
            if others:
                grads.append(image_gradient(others, coded.images))
            return sum_gradients(grads) or []

        values |= self.descend(raw_images, weighted, gradient, coded, step, measure, decoder_rests)
        self.adam_step(DISCRIMINATOR, rests)
        return values | probabilities(logits)

    def _own_pass(self, kind: str) -> bool:
        """Whether gradients other than the generator's come through D at this kind of image."""
        return kind != REAL and self.terms.weights[f"feature_{kind}"] > 0

    def _judge_apart(self, images: Mapping[str, Tensor], augment: Callable[[Tensor], Tensor]) -> dict[str, Judged]:
        """Kinds with a pass back of their own are judged apart, so that this pass does not lead through the others."""
        together = {kind: each for kind, each in images.items() if not self._own_pass(kind)}
        with parametrize.cached():
            judged = self.judge(together, augment)
            for kind in images:
                if kind not in together:
                    judged |= self.judge({kind: images[kind]}, augment)
        return {kind: judged[kind] for kind in images}

    def _discriminator_backward(
        self,
        loss: Tensor,
        penalty: Tensor | None,
        logits: Mapping[str, Tensor],
        weighted: Mapping[str, Tensor],
        coded: Coded,
    ) -> dict[str, list[Tensor]]:
        """Fills the discriminator's `.grad`; returns the generator terms' gradients at the images that came with it."""
        images = {RECON: coded.x_recon, PRIOR: coded.x_prior}
        kinds = [kind for kind in images if weighted[f"generator_{kind}"].requires_grad and not self._own_pass(kind)]
        if mixes_batch(self.discriminator):
            kinds = []
        parameters = self.parameters(DISCRIMINATOR)
        if not kinds:
            torch.autograd.backward(loss, inputs=parameters, retain_graph=True)
            return {}
        if penalty is not None:  # its way to the parameters does not lead through the logits
            own = self.config.loss.discriminator
            torch.autograd.backward(own.r1 * own.r1_every * penalty, inputs=parameters)
        cotangents = dict(zip(logits, torch.autograd.grad(loss, list(logits.values()), retain_graph=True), strict=True))
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
            name = f"generator_{kind}"
            (wanted,) = torch.autograd.grad(weighted[name], logits[kind], retain_graph=True)
            scaled = at_image * (wanted / cotangents[kind]).view(-1, 1, 1, 1)
            shared[name] = [scaled if each is images[kind] else torch.zeros_like(each) for each in coded.images]
        return shared
