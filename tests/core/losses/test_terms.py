"""D's loss on fake images, by which balanced updates decide who rests."""

from __future__ import annotations

import pytest
import torch
from trials import tiny

from vaegan_core.losses.terms import PRIOR, RECON, Term, fake_loss


@pytest.mark.parametrize(
    ("recon", "prior", "expected"), [(0.5, 0.25, 8 / 3), (1.0, 1.0, 3.0), (0.3, 0.0, 2.0), (0.0, 2.0, 4.0)]
)
def test_the_loss_on_fake_images_is_the_mean_of_both_kinds_by_their_weights(
    recon: float, prior: float, expected: float
) -> None:
    loss = tiny(loss__discriminator={"real": 1.0, "recon": recon, "prior": prior}).loss
    raw = {Term("discriminator", RECON): torch.tensor(2.0), Term("discriminator", PRIOR): torch.tensor(4.0)}
    assert float(fake_loss(loss, raw)) == pytest.approx(expected)
