"""The losses of a discriminator with two heads."""

import math
from typing import Any

import pytest
import torch
from trials import tiny

from vaegan_core.losses.terms import LossTerms, Term

WHOLE, PATCH = torch.tensor([0.5, -1.0]), torch.tensor([[1.0, 2.0, 3.0], [-1.0, 0.0, 4.0]])
LOGITS = torch.cat([WHOLE[:, None], PATCH], dim=1)


def terms(whole: float, patch: float, **changes: Any) -> LossTerms:
    heads = {"loss__heads": {"whole": whole, "patch": patch}, "model__discriminator__patch_head": patch > 0}
    return LossTerms(tiny(**heads, **changes).loss, variance=1.0)


def test_each_head_counts_by_its_weight() -> None:
    both = terms(0.5, 2.0, loss__adversarial="hinge")
    generator = both.over_heads(both.adversarial.generator, LOGITS)
    assert generator.item() == pytest.approx(-0.5 * -0.25 - 2.0 * 1.5)
    raw = both.discriminator({"real": LOGITS, "prior": LOGITS})
    real, fake = 0.5 * 1.25 + 2.0 * (2.0 + 1.0) / 6, 0.5 * 0.75 + 2.0 * (2 + 3 + 4 + 0 + 1 + 5) / 6
    assert raw[Term("discriminator", "real")].item() == pytest.approx(real)
    assert raw[Term("discriminator", "prior")].item() == pytest.approx(fake)
    assert both.output(LOGITS).tolist() == pytest.approx([0.25 + 2.0 * 2.0, -0.5 + 2.0])


def test_a_single_head_of_weight_1_is_the_loss_itself() -> None:
    alone = terms(1.0, 0.0)
    assert torch.equal(alone.over_heads(alone.adversarial.real, WHOLE), alone.adversarial.real(WHOLE))
    assert torch.equal(alone.output(WHOLE), WHOLE)


@pytest.mark.parametrize(("whole", "patch", "score"), [(0.1, 2.0, [0.5, -1.0]), (0.0, 2.0, [2.0, 1.0])])
def test_the_score_is_the_whole_heads_unless_it_weighs_nothing(whole: float, patch: float, score: Any) -> None:
    assert terms(whole, patch).score(LOGITS).tolist() == score


@pytest.mark.parametrize(("whole", "patch"), [(1.0, 0.0), (0.3, 0.9), (0.0, 2.0)])
@pytest.mark.parametrize("adversarial", ["bce", "relativistic"])
def test_chance_is_the_loss_of_heads_that_cannot_tell(whole: float, patch: float, adversarial: str) -> None:
    weights = {"real": 1.0, "recon": 0.25, "prior": 0.5}
    own = terms(whole, patch, loss__discriminator=weights, loss__adversarial=adversarial)
    probability = 1.0 / 1.75
    logits = torch.full((4, 7) if patch else (4,), math.log(probability / (1.0 - probability)))
    weighted = own.weighted(own.discriminator(dict.fromkeys(("real", "recon", "prior"), logits)))
    assert sum(value.item() for value in weighted.values()) == pytest.approx(own.chance_loss)
