"""The seed author's updates: one Adam step per loss term, on fresh passes or with gradients of one pass before them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from vaegan_core.losses.terms import DISCRIMINATOR_TERMS, IMAGE_TERMS, PRIOR, REAL, RECON, Judged
from vaegan_core.model.modes import frozen, held_statistics, mixes_batch
from vaegan_core.model.networks import Posterior
from vaegan_core.training.curves import Values, autoencoder_curves, curves, latent_curves, probabilities
from vaegan_core.training.gradients import add_grad
from vaegan_core.training.update import DECODER, DISCRIMINATOR, ENCODER, Coded, Draw, Update, unchanged

TERM_ORDER = (
    ("discriminator_real",),
    ("discriminator_recon",),
    ("generator_recon",),
    ("discriminator_prior",),
    ("generator_prior",),
    ("feature_recon", "feature_prior"),
    ("pixel",),
    ("kl",),
)
"""Who steps when in the author's code of 2019-04-25; terms of one line share a step."""


class PerTerm(Update):
    """One Adam step per loss term, each on fresh passes of the same batch; the terms share one Adam per network.

    Running statistics and power iteration of a network advance in its own steps.
    """

    def step(self, draws: Sequence[Draw], step: int, measure: bool) -> Values:
        values: Values = {}
        for draw in draws[:-1]:
            for name in DISCRIMINATOR_TERMS:
                self._discriminator_term(name, draw, step)
        for names in TERM_ORDER:
            if names[0] in DISCRIMINATOR_TERMS:
                values |= self._discriminator_term(names[0], draws[-1], step)
            elif names == ("kl",):
                values |= self._kl_term(draws[-1], step, measure)
            else:
                values |= self._image_term(names, draws[-1], measure)
        for total, members in (("discriminator", DISCRIMINATOR_TERMS), ("autoencoder", (*IMAGE_TERMS, "kl"))):
            weighted = [values[f"weighted/{name}"] for name in members if f"weighted/{name}" in values]
            values[f"train/{total}"] = torch.stack([torch.as_tensor(each) for each in weighted]).sum()
        return values

    def _discriminator_term(self, name: str, draw: Draw, step: int) -> Values:
        kind = name.removeprefix("discriminator_")
        with torch.no_grad(), held_statistics(self.encoder), held_statistics(self.decoder):
            image = draw.x if kind == REAL else self._image(kind, draw)
        logits = self.judge({kind: image}, self.augmentation(len(image)))[kind].logits
        penalty = self.penalty(draw.x, step) if kind == REAL else None
        loss, values = self.discriminator_loss(self.terms.discriminator({kind: logits}), penalty)
        if self.terms.weights[name] or penalty is not None:
            self.zero_grad(DISCRIMINATOR)
            torch.autograd.backward(loss)
            self.adam_step(DISCRIMINATOR)
        del values["train/discriminator"]
        return values | probabilities({kind: logits})

    def _image_term(self, names: Sequence[str], draw: Draw, measure: bool) -> Values:
        """A step of the networks that `names` reach. What weighs nothing is computed only to be measured, and a step
        of such terms alone is not augmented: measuring must not draw from the training's random numbers."""
        active = [name for name in names if self.terms.weights[name]]
        wanted = names if measure else active
        if not wanted:
            return {}
        targets = {target for name in active for target in self.targets(name)}
        with self._only(targets):
            coded = self._coded({RECON if name == "pixel" else name.partition("_")[2] for name in wanted}, draw)
            images = {RECON: coded.x_recon, PRIOR: coded.x_prior}
            augment = self.augmentation(len(draw.x)) if active else unchanged
            raw = self.image_terms(wanted, draw.x, images, augment)
            weighted = self.terms.weighted(raw)
            values = self.gradient_norms(weighted, coded) if measure and active else {}
            if active:
                self.zero_grad(*targets)
                torch.autograd.backward(torch.stack([weighted[name] for name in active]).sum())
        for target in sorted(targets):
            self.adam_step(target)
        return values | curves(raw, weighted)

    def _kl_term(self, draw: Draw, step: int, measure: bool) -> Values:
        with self.autocast():
            posterior = self.encoder(draw.x)
        z = posterior.sample(draw.noise)
        term, raw = self.kl(posterior, z, step)
        values: Values = {}
        if term.requires_grad:
            values = self.gradient_norms({"kl": term}, Coded(posterior, z, z, z)) if measure else {}
            self.zero_grad(ENCODER)
            torch.autograd.backward(term)
            self.adam_step(ENCODER)
        return values | curves(raw, {"kl": term}) | latent_curves(posterior)

    def _coded(self, kinds: set[str], draw: Draw) -> Coded:
        """Fresh images of these kinds, and what stands for the other is not to be used; with batch norm in the decoder
        always both, as one batch. Prior samples alone take no pass of the encoder."""
        if mixes_batch(self.decoder):
            return self.code(draw)
        with self.autocast():
            posterior = self.encoder(draw.x) if RECON in kinds else Posterior(draw.z_prior, None)
            z = posterior.sample(draw.noise)
            x_recon = self.decoder(z) if RECON in kinds else draw.x
            x_prior = self.decoder(draw.z_prior) if PRIOR in kinds else draw.x
        return Coded(posterior, z, x_recon, x_prior)

    def _image(self, kind: str, draw: Draw) -> Tensor:
        coded = self._coded({kind}, draw)
        return coded.x_recon if kind == RECON else coded.x_prior

    @contextmanager
    def _only(self, targets: set[str]) -> Iterator[None]:
        """Inside, the other one of encoder and decoder is frozen."""
        with ExitStack() as stack:
            for name in (ENCODER, DECODER):
                if name not in targets:
                    stack.enter_context(frozen(self.networks[name]))
            yield


class PerTermStale(Update):
    """One Adam step per loss term, with gradients that all come from one pass before the first of them."""

    def step(self, draws: Sequence[Draw], step: int, measure: bool) -> Values:
        for draw in draws[:-1]:
            with torch.no_grad(), held_statistics(self.encoder), held_statistics(self.decoder):
                coded = self.code(draw)
            raw, _, _ = self._discriminator_terms(draw, coded)
            self._descend(self._weighted_discriminator(raw, self.penalty(draw.x, step)))
        draw, coded = draws[-1], self.code(draws[-1])
        raw, logits, judged = self._discriminator_terms(draw, coded)
        penalty = self.penalty(draw.x, step)
        _, values = self.discriminator_loss(raw, penalty)
        raw_images = self.terms.images(IMAGE_TERMS, draw.x, coded.x_recon, judged)
        weighted = self.terms.weighted(raw_images)
        weighted["kl"], kls = self.kl(coded.posterior, coded.z, step)
        if measure:
            values |= self.gradient_norms(weighted, coded)
        self._descend(self._weighted_discriminator(raw, penalty) | weighted)
        return values | probabilities(logits) | autoencoder_curves(raw_images | kls, weighted, coded.posterior)

    def _discriminator_terms(
        self, draw: Draw, coded: Coded
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Judged]]:
        images = {REAL: draw.x, RECON: coded.x_recon, PRIOR: coded.x_prior}
        judged = self.judge(images, self.augmentation(len(draw.x)))
        logits = {kind: each.logits for kind, each in judged.items()}
        return self.terms.discriminator(logits), logits, judged

    def _weighted_discriminator(self, raw: Mapping[str, Tensor], penalty: Tensor | None) -> dict[str, Tensor]:
        own, weighted = self.config.loss.discriminator, self.terms.weighted(raw)
        if penalty is not None:
            weighted["discriminator_real"] = weighted["discriminator_real"] + own.r1 * own.r1_every * penalty
        return weighted

    def _descend(self, weighted: Mapping[str, Tensor]) -> None:
        """All gradients first, then the steps in their order."""
        steps = []
        for names in TERM_ORDER:
            active = [name for name in names if name in weighted and weighted[name].requires_grad]
            targets = sorted({target for name in active for target in self.targets(name)})
            if targets:
                loss = torch.stack([weighted[name] for name in active]).sum()
                grads = torch.autograd.grad(loss, self.parameters(*targets), retain_graph=True, allow_unused=True)
                steps.append((targets, grads))
        for targets, grads in steps:
            self.zero_grad(*targets)
            for parameter, grad in zip(self.parameters(*targets), grads, strict=True):
                add_grad(parameter, grad)
            for target in targets:
                self.adam_step(target)
