"""Curve values of single steps, and the log that turns them into points."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from vaegan_core.evaluation import SHARE_DISCRIMINATOR_LOSS, SHARE_PRIOR_GRADIENT, Point
from vaegan_core.losses.terms import DISCRIMINATOR_TERMS, IMAGE_TERMS, KL, PRIOR, Term
from vaegan_core.model.networks import Posterior

Values = dict[str, Tensor | float]
"""Curve values of a step by key; tensors are scalars on the device, without gradient."""

DISCRIMINATOR_TOTAL, AUTOENCODER_TOTAL = "train/discriminator", "train/autoencoder"
IMAGES_PER_SECOND = "speed/images_per_second"


def raw_key(term: Term) -> str:
    """Curve of the term before its weight; a KL is in nats."""
    return f"train/{term}"


def weighted_key(term: Term) -> str:
    """Curve of the term times its weight."""
    return f"weighted/{term}"


def gradient_key(network: str, term: Term) -> str:
    """Curve of the norm of the weighted term's gradient at the output of encoder or decoder."""
    return f"gradient/{network}/{term}"


LOSS_TERMS = tuple(raw_key(term) for term in (KL, *DISCRIMINATOR_TERMS, *IMAGE_TERMS))
"""Curves of the seed's formula, before weights."""


def probabilities(logits: Mapping[str, Tensor], score: Callable[[Tensor], Tensor]) -> Values:
    """Mean of sigmoid(D) over the `score` of each image, for each kind of image."""
    return {
        f"discriminator/probability_{image}": torch.sigmoid(score(x.detach())).mean() for image, x in logits.items()
    }


def autoencoder_curves(raw: Mapping[Term, Tensor], weighted: Mapping[Term, Tensor], posterior: Posterior) -> Values:
    """The autoencoder's total loss, each of its terms raw and weighted, and the size of the latent."""
    total = torch.stack([value.detach() for value in weighted.values()]).sum()
    return {AUTOENCODER_TOTAL: total} | term_curves(raw, weighted) | latent_curves(posterior)


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


def term_curves(raw: Mapping[Term, Tensor], weighted: Mapping[Term, Tensor]) -> Values:
    """Each term raw and weighted."""
    values: Values = {raw_key(term): value.detach() for term, value in raw.items()}
    return values | {weighted_key(term): value.detach() for term, value in weighted.items()}


def shares(means: Mapping[str, float], chance_loss: float | None) -> dict[str, float]:
    """What the diagnoses need of the curves' `means`: two shares, each absent where it is not defined.

    `chance_loss`: the discriminator's loss when it cannot tell real from fake, without penalties; so is its share.
    Before `loss.start` there is none.
    """
    gradients = [(term, means.get(gradient_key("decoder", term), 0.0)) for term in IMAGE_TERMS]
    prior = sum(norm for term, norm in gradients if term.image == PRIOR)
    result = {}
    if prior:
        result[SHARE_PRIOR_GRADIENT] = prior / sum(norm for _, norm in gradients)
    adversarial = [means[weighted_key(term)] for term in DISCRIMINATOR_TERMS if weighted_key(term) in means]
    if chance_loss is not None and adversarial:
        result[SHARE_DISCRIMINATOR_LOSS] = sum(adversarial) / chance_loss
    return result


class CurveLog:
    """Turns the curve values of steps into points, and keeps the points until the next evaluation takes them.

    A point is the mean over the steps since the one before. Values stay on the device until then, and are fetched in
    one block: the host does not wait for the device in every step.
    """

    def __init__(self, batch_size: int) -> None:
        """`batch_size`: images per step, for the curve of images per second."""
        self.batch_size = batch_size
        self.pending: list[Values] = []
        """Values of each step since the last point."""
        self.points: list[Point] = []
        """Points since the last evaluation."""
        self.restart_clock()

    def restart_clock(self) -> None:
        """Measures speed from here on: what came before was no training."""
        self._start = time.perf_counter()

    def add_step(self, values: Values) -> None:
        """Adds the values of one step."""
        self.pending.append(values)

    def flush(self, step: int) -> str:
        """Makes one point per curve at `step`, from the steps since the last one (those that have a value for it).

        Returns "", or, when a value is not finite, the first such curve with its value and step; then makes no point.
        """
        if not self.pending:
            return ""
        first_step = step - len(self.pending) + 1
        tensors = [
            (key, first_step + index, value)
            for index, values in enumerate(self.pending)
            for key, value in values.items()
            if isinstance(value, Tensor)
        ]
        numbers = torch.stack([value.detach().float() for _, _, value in tensors]).cpu().double().tolist()
        series: dict[str, list[float]] = {}
        for (key, at_step, _), number in zip(tensors, numbers, strict=True):
            if not math.isfinite(number):
                return f"{key} is {number} at step {at_step}"
            series.setdefault(key, []).append(number)
        values = {key: _mean(numbers) for key, numbers in series.items()}
        values |= {key: value for key, value in self.pending[-1].items() if not isinstance(value, Tensor)}
        elapsed = time.perf_counter() - self._start
        values[IMAGES_PER_SECOND] = len(self.pending) * self.batch_size / elapsed
        self.add_points(step, values)
        self.pending.clear()
        self.restart_clock()
        return ""

    def add_points(self, step: int, values: Mapping[str, float]) -> None:
        """Adds one point per value, at the time of now."""
        now = int(time.time() * 1000)
        self.points += [Point(key, step, float(value), now) for key, value in values.items()]

    def means(self) -> dict[str, float]:
        """Mean of each curve over its points since the last evaluation."""
        series: dict[str, list[float]] = {}
        for point in self.points:
            series.setdefault(point.key, []).append(point.value)
        return {key: _mean(values) for key, values in series.items()}

    def take_points(self) -> tuple[Point, ...]:
        """The points since the last evaluation, which are then forgotten here."""
        points, self.points = tuple(self.points), []
        return points


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
