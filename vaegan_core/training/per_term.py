"""The seed author's updates: one Adam step per loss term, in the order of TERM_ORDER; one Adam per network.

per_term, on fresh passes for every term:
    for term in TERM_ORDER:
        run the passes that the term needs, with the weights of now
        Adam(networks that the term reaches, d(weight * term))

per_term_stale, with gradients of one pass before the first step:
    run all passes once
    gradients = [d(weight * term) for term in TERM_ORDER]
    for term, gradient in zip(TERM_ORDER, gradients):
        Adam(networks that the term reaches, gradient)

Every discriminator batch before the last one takes the discriminator's steps alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from vaegan_core.losses.terms import (
    DISCRIMINATOR_TERMS,
    FEATURE_TERMS,
    IMAGE_TERMS,
    KL,
    PIXEL,
    PRIOR,
    REAL,
    RECON,
    Term,
    TermValues,
    Verdict,
)
from vaegan_core.model.modes import frozen, held_statistics, mixes_batch
from vaegan_core.training.curves import (
    AUTOENCODER_TOTAL,
    DISCRIMINATOR_TOTAL,
    Values,
    autoencoder_curves,
    latent_curves,
    probabilities,
    term_curves,
    weighted_key,
)
from vaegan_core.training.gradients import add_grad
from vaegan_core.training.update import DECODER, DISCRIMINATOR, ENCODER, Draw, Encoded, Update, unchanged

TERM_ORDER: tuple[tuple[Term, ...], ...] = (
    (Term("discriminator", REAL),),
    (Term("discriminator", RECON),),
    (Term("generator", RECON),),
    (Term("discriminator", PRIOR),),
    (Term("generator", PRIOR),),
    FEATURE_TERMS,
    (PIXEL,),
    (KL,),
)
"""The order of steps in the author's code of 2019-04-25; terms on one line share a step."""
BEFORE_GAN = TERM_ORDER[-2:]
"""What is left of it before `loss.start`: pixels and KL."""


class PerTerm(Update):
    """One Adam step per loss term, each on fresh passes of the same batch; the terms share one Adam per network.

    Running statistics and power iteration of a network advance in its own steps.
    """

    def step(self, draws: Sequence[Draw], step: int, measure: bool) -> Values:
        values: Values = {}
        gan_acts = self.gan_acts(step)
        for draw in draws[:-1] if gan_acts else ():
            for term in DISCRIMINATOR_TERMS:
                self._discriminator_step(term, draw, step)
        draw = draws[-1]
        for terms in TERM_ORDER if gan_acts else BEFORE_GAN:
            if terms == (KL,):
                values |= self._kl_step(draw, step, measure)
            elif terms[0] in DISCRIMINATOR_TERMS:
                values |= self._discriminator_step(terms[0], draw, step)
            else:
                values |= self._image_step(terms, draw, measure)
        totals = ((DISCRIMINATOR_TOTAL, DISCRIMINATOR_TERMS), (AUTOENCODER_TOTAL, (*IMAGE_TERMS, KL)))
        for total, members in totals:
            weighted = [values[weighted_key(term)] for term in members if weighted_key(term) in values]
            if weighted:
                values[total] = torch.stack([torch.as_tensor(value) for value in weighted]).sum()
        return values

    def _discriminator_step(self, term: Term, draw: Draw, step: int) -> Values:
        """A step of the discriminator by `term`; the penalties share that of real images, which has no other part where
        there is no such term."""
        seen = self.terms.kinds_seen([term])
        penalized = self.penalized(step) if term.image == REAL else {}
        with torch.no_grad(), held_statistics(self.encoder), held_statistics(self.decoder):
            images = {kind: self._image(kind, draw) for kind in sorted({*seen, *penalized})}
        logits = {}
        if seen:
            verdicts = self.judge({kind: images[kind] for kind in seen}, self.augmentation(len(draw.x)))
            logits = {kind: verdict.logits for kind, verdict in verdicts.items()}
        raw, penalties = self.terms.discriminator(logits), self.penalties(images, step) if penalized else {}
        if not raw and not penalties:
            return {}
        loss, values = self.discriminator_loss(raw, penalties)
        if loss.requires_grad:
            self.zero_grad(DISCRIMINATOR)
            torch.autograd.backward(loss)
            self.adam_step(DISCRIMINATOR)
        del values[DISCRIMINATOR_TOTAL]
        return values | probabilities(self.terms.relative(logits), self.terms.score)

    def _image_step(self, terms: Sequence[Term], draw: Draw, measure: bool) -> Values:
        """A step of the networks that `terms` reach. Terms of weight 0 are computed only to be measured, and a step of
        such terms alone is not augmented: measuring must not draw from the training's random numbers."""
        active = [term for term in terms if self.terms.weights[term]]
        wanted = terms if measure else active
        if not wanted:
            return {}
        targets = _reached(self, active)
        with self._only(targets):
            encoded = self.encode_kinds({term.image for term in wanted}, draw)
            images = {RECON: encoded.x_recon, PRIOR: encoded.x_prior}
            augment = self.augmentation(len(draw.x)) if active else unchanged
            raw = self.image_terms(wanted, draw.x, images, augment)
            weighted = self.terms.weighted(raw)
            values = self.gradient_norms(weighted, encoded) if measure and active else {}
            self.zero_grad(*targets)
            parts = list(_by_reach(self, active, weighted))
            for number, (networks, loss) in enumerate(parts, 1):
                torch.autograd.backward(loss, inputs=self.parameters(*networks), retain_graph=number < len(parts))
        for target in targets:
            self.adam_step(target)
        return values | term_curves(raw, weighted)

    def _kl_step(self, draw: Draw, step: int, measure: bool) -> Values:
        with self.autocast():
            posterior = self.encoder(draw.x)
        z = posterior.sample(draw.noise)
        weighted, raw = self.kl(posterior, z, step)
        values: Values = {}
        if weighted.requires_grad:
            values = self.gradient_norms({KL: weighted}, Encoded(posterior, z, z, z)) if measure else {}
            self.zero_grad(ENCODER)
            torch.autograd.backward(weighted)
            self.adam_step(ENCODER)
        return values | term_curves(raw, {KL: weighted}) | latent_curves(posterior)

    def _image(self, kind: str, draw: Draw) -> Tensor:
        if kind == REAL:
            return draw.x
        encoded = self.encode_kinds({kind}, draw)
        return encoded.x_recon if kind == RECON else encoded.x_prior

    @contextmanager
    def _only(self, targets: Sequence[str]) -> Iterator[None]:
        """Inside, encoder and decoder are frozen unless they are among `targets`."""
        with ExitStack() as stack:
            for name in (ENCODER, DECODER):
                if name not in targets:
                    stack.enter_context(frozen(self.networks[name]))
            yield


class PerTermStale(Update):
    """One Adam step per loss term, with gradients that all come from one pass before the first of them."""

    def step(self, draws: Sequence[Draw], step: int, measure: bool) -> Values:
        if not self.gan_acts(step):
            weighted, values = self.terms_before_gan(draws[-1], step, measure)
            self._descend(weighted)
            return values
        for draw in draws[:-1]:
            encoded = self.encode_without_gradient(draw)
            raw, _ = self._discriminator_terms(draw, encoded)
            self._descend(self._weighted_discriminator(raw, self.penalties(_seen(draw, encoded), step)))
        draw, encoded = draws[-1], self.encode(draws[-1])
        raw_discriminator, verdicts = self._discriminator_terms(draw, encoded)
        penalties = self.penalties(_seen(draw, encoded), step)
        _, values = self.discriminator_loss(raw_discriminator, penalties)
        raw = self.terms.images(IMAGE_TERMS, draw.x, encoded.x_recon, verdicts)
        weighted = self.terms.weighted(raw)
        weighted[KL], kl = self.kl(encoded.posterior, encoded.z, step)
        if measure:
            values |= self.gradient_norms(weighted, encoded)
        self._descend(self._weighted_discriminator(raw_discriminator, penalties) | weighted)
        logits = {kind: verdict.logits for kind, verdict in verdicts.items()}
        values |= probabilities(self.terms.relative(logits), self.terms.score)
        return values | autoencoder_curves(raw | kl, weighted, encoded.posterior)

    def _discriminator_terms(self, draw: Draw, encoded: Encoded) -> tuple[TermValues, dict[str, Verdict]]:
        verdicts = self.judge(_seen(draw, encoded), self.augmentation(len(draw.x)))
        return self.terms.discriminator({kind: verdict.logits for kind, verdict in verdicts.items()}), verdicts

    def _weighted_discriminator(self, raw: TermValues, penalties: TermValues) -> TermValues:
        """With the penalties added to the term on real images, if there is one: they share a step."""
        weighted, real = self.terms.weighted(raw), Term("discriminator", REAL)
        for penalty in self.weighted_penalties(penalties).values():
            weighted[real] = weighted[real] + penalty if real in weighted else penalty
        return weighted

    def _descend(self, weighted: Mapping[Term, Tensor]) -> None:
        """All gradients first, then the steps in their order."""
        steps = []
        for terms in TERM_ORDER:
            active = [term for term in terms if term in weighted and weighted[term].requires_grad]
            parts = [(self.parameters(*networks), loss) for networks, loss in _by_reach(self, active, weighted)]
            grads = [(to, torch.autograd.grad(loss, to, retain_graph=True, allow_unused=True)) for to, loss in parts]
            steps.append((_reached(self, active), grads))
        for targets, grads in steps:
            self.zero_grad(*targets)
            for parameters, gradients in grads:
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    add_grad(parameter, gradient)
            for target in targets:
                self.adam_step(target)


def _reached(update: Update, terms: Sequence[Term]) -> list[str]:
    """Networks that take a step from any of `terms`."""
    return sorted({network for term in terms for network in update.targets(term)})


def _by_reach(
    update: Update, terms: Sequence[Term], weighted: Mapping[Term, Tensor]
) -> Iterator[tuple[Sequence[str], Tensor]]:
    """The sum of `terms` in parts, each with the networks that take its gradient; one part where that says enough.

    With batch norm in the decoder, prior samples share a batch with reconstructions, whose statistics would take their
    gradient on to the encoder.
    """
    groups: dict[Sequence[str], list[Term]] = {}
    for term in terms:
        reach = update.targets(term) if mixes_batch(update.decoder) else tuple(_reached(update, terms))
        groups.setdefault(reach, []).append(term)
    for networks, members in groups.items():
        yield networks, torch.stack([weighted[term] for term in members]).sum()


def _seen(draw: Draw, encoded: Encoded) -> dict[str, Tensor]:
    """The images that the discriminator sees, by kind."""
    return {REAL: draw.x, RECON: encoded.x_recon, PRIOR: encoded.x_prior}
